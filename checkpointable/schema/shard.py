"""A rank's part of a global array, as a field of a checkpoint class."""

from typing import Any, Generic, TypeVar, get_origin

import numpy as np
from attrs import field, frozen

from checkpointable.arrays import check_box
from checkpointable.schema.fields import fields_of
from checkpointable.schema.types import Array

D = TypeVar("D", bound=np.generic)


def _numbers(shard: Any, attribute: Any, value: tuple[int, ...]) -> None:
    if not all(isinstance(n, int) and n >= 0 for n in value):
        raise ValueError(f"{attribute.name} must be a tuple of non-negative ints, not {value!r}")


def _inside(shard: "Shard[Any]", attribute: Any, value: tuple[int, ...]) -> None:
    check_box((shard.offset, tuple(shard.local.shape)), shard.shape, "Shard")


@frozen(eq=False)
class Shard(Generic[D]):
    """A rank's part of a global array: its `local` array, the global `shape`, and its `offset`.

    In a checkpoint class `field: Shard[np.float32]` means that each rank of a job holds a part;
    every other field must be the same on all ranks. The parts must neither overlap nor leave a gap;
    a rank without a part has a length of 0.

    A shard is indexed in global coordinates. In a checkpoint that is being restored, `local` is the
    whole array and is read when it is indexed, so each rank takes its own box, however many ranks
    saved it: `checkpoint.field[self.field.box]`. `reinstate` does that by itself.

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
        """Its place in the global array."""
        ends = zip(self.offset, self.local.shape, strict=True)
        return tuple(slice(begin, begin + length) for begin, length in ends)

    def __getitem__(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        if len(keys) > len(self.shape) or Ellipsis in keys or None in keys:
            raise IndexError(f"a shard of {len(self.shape)} axes takes a slice or index for each")
        keys = (*keys, *[slice(None)] * (len(self.shape) - len(keys)))
        return self.local[tuple(self._shifted(axis, part) for axis, part in enumerate(keys))]

    def _shifted(self, axis: int, key: Any) -> Any:
        """The same part of an axis, counted from where this shard begins."""
        size, first, length = self.shape[axis], self.offset[axis], self.local.shape[axis]
        wanted = range(size)[key] if isinstance(key, slice) else range(size)[key : key + 1 or None]
        if not isinstance(key, slice) and not wanted:
            raise IndexError(f"{key} on axis {axis}, which has {size}")
        if wanted and not (first <= min(wanted) and max(wanted) < first + length):
            raise IndexError(
                f"{min(wanted)} to {max(wanted) + 1} on axis {axis} is not in this shard, "
                f"which has {first} to {first + length} of {size}"
            )
        if not isinstance(key, slice):
            return wanted[0] - first
        if not wanted:
            return slice(0, 0)
        end = wanted.stop - first
        return slice(wanted.start - first, end if end >= 0 else None, wanted.step)


def shard_fields(cls: Any) -> frozenset[str]:
    """The names of the fields of a checkpoint class that are shards."""
    return frozenset(
        field.name for field in fields_of(cls) if (get_origin(field.type) or field.type) is Shard
    )
