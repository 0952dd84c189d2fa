"""A rank's part of a global array, as a field of a checkpoint class."""

from typing import Any, Generic, TypeVar

import numpy as np
from attrs import field, frozen

from checkpointable.arrays import check_box
from checkpointable.schema.fields import fields_of
from checkpointable.schema.types import Array

D = TypeVar("D", bound=np.generic)


def _numbers(shard: Any, attribute: Any, value: tuple[int, ...]) -> None:
    if not all(isinstance(n, int) and n >= 0 for n in value):
        raise ValueError(f"{attribute.name} is {value!r}, and has to be a tuple of ints from 0")


def _inside(shard: "Shard[Any]", attribute: Any, value: tuple[int, ...]) -> None:
    check_box((shard.offset, tuple(shard.local.shape)), shard.shape, "Shard")


@frozen(eq=False)
class Shard(Generic[D]):
    """A rank's part of a global array: its `local` array, the global `shape`, and its `offset`.

    In a checkpoint class `field: Shard[np.float32]` says that the ranks of a job hold a part each;
    every other field has to be the same on all. The parts must neither overlap nor leave a gap; a
    rank may have none, with a length of 0.

    Indexed in global coordinates. In a checkpoint that is restored `local` is the whole array, read
    when it is indexed, so that each rank takes its box of it, however many there were when it was
    saved: `checkpoint.field[self.field.box]`. `reinstate` does that by itself.

    >>> mine = Shard(np.arange(4.0), shape=(100,), offset=(20,))
    >>> mine.box, mine[21:23]
    ((slice(20, 24, None),), array([1., 2.]))
    >>> mine[30:40]
    Traceback (most recent call last):
        ...
    IndexError: 30 to 40 on axis 0 is not in this shard, which has 20 to 24 of 100
    """

    local: Array[D]
    shape: tuple[int, ...] = field(validator=_numbers)
    offset: tuple[int, ...] = field(validator=[_numbers, _inside])

    @property
    def box(self) -> tuple[slice, ...]:
        """Where it lies in the global array."""
        ends = zip(self.offset, self.local.shape, strict=True)
        return tuple(slice(begin, begin + length) for begin, length in ends)

    def __getitem__(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        if len(keys) > len(self.shape) or Ellipsis in keys or None in keys:
            raise IndexError(f"a shard of {len(self.shape)} axes takes a slice or index for each")
        rest = [slice(None)] * (len(self.shape) - len(keys))  # of the global array, too
        return self.local[
            tuple(self._moved(axis, part) for axis, part in enumerate([*keys, *rest]))
        ]

    def _moved(self, axis: int, key: Any) -> Any:
        """The same part of an axis, counted from where this shard begins."""
        size, first, own = self.shape[axis], self.offset[axis], self.local.shape[axis]
        wanted = range(size)[key] if isinstance(key, slice) else range(size)[key : key + 1 or None]
        if not isinstance(key, slice) and not wanted:
            raise IndexError(f"{key} on axis {axis}, which has {size}")
        if wanted and not (first <= min(wanted) and max(wanted) < first + own):
            asked = f"{min(wanted)} to {max(wanted) + 1} on axis {axis}"
            raise IndexError(
                f"{asked} is not in this shard, which has {first} to {first + own} of {size}"
            )
        if not isinstance(key, slice):
            return wanted[0] - first
        if not wanted:
            return slice(0, 0)
        end = wanted.stop - first
        return slice(wanted.start - first, end if end >= 0 else None, wanted.step)


def shard_fields(cls: Any) -> frozenset[str]:
    """The names of the fields of a checkpoint class that are shards."""
    return frozenset(f.name for f in fields_of(cls) if _is_shard(f.type))


def _is_shard(tp: Any) -> bool:
    return (getattr(tp, "__origin__", None) or tp) is Shard
