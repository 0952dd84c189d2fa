"""Arrays that are read, or computed, when they are used."""

import math
from collections.abc import Callable
from itertools import takewhile
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from checkpointable.arrays.boxes import Box
from checkpointable.errors import InvalidCheckpoint

_Array = np.ndarray[Any, np.dtype[Any]]


@frozen(eq=False)
class Region:
    """Bytes of device memory that do not change as long as this, or a part of it, exists."""

    device: int
    address: int
    size: int
    owner: object = field(repr=False)

    def part(self, begin: int, size: int) -> "Region":
        """The `size` bytes from `begin` on."""
        return evolve(self, address=self.address + begin, size=size, owner=self)


class LazyArray:
    """An array that is read, or computed, when it is used: dtype, shape, and a function.

    NumPy accepts it wherever it accepts an array. `part`, if given, reads a box of it, given by
    offsets and lengths on all axes; a slice then reads no more than that. `region` is the device
    memory that holds it, if there is any.

    >>> old = LazyArray(np.float64, (6,), lambda: np.arange(6.0))
    >>> new = old.astype(np.float32).reshape(2, -1)
    >>> new.dtype, new.shape
    (dtype('float32'), (2, 3))
    >>> total = LazyArray(np.float32, (2,), lambda: np.asarray(new).sum(axis=1))
    >>> np.asarray(total)
    array([ 3., 12.], dtype=float32)
    >>> new[1, ::2]
    array([3., 5.], dtype=float32)
    """

    def __init__(
        self,
        dtype: Any,
        shape: tuple[int, ...],
        read: Callable[[], _Array],
        part: Callable[[Box], _Array] | None = None,
        region: Region | None = None,
    ) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.shape = tuple(shape)
        self._read = read
        self._part = part
        self.region = region

    def __repr__(self) -> str:
        return f"LazyArray({self.dtype}, {self.shape})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> _Array:
        array = np.asarray(self._read())
        if (array.dtype, array.shape) != (self.dtype, self.shape):
            raise InvalidCheckpoint(
                f"a LazyArray promised {self.dtype} of shape {self.shape}, "
                f"and gave {array.dtype} of shape {array.shape}",
                hint="give it the dtype and shape of what its function returns",
            )
        return array  # NumPy casts it

    def __len__(self) -> int:
        return len(range(*self.shape[:1]))

    def __getitem__(self, key: Any) -> Any:
        """Read a part, indexed as a NumPy array is."""
        keys: tuple[Any, ...] = key if isinstance(key, tuple) else (key,)
        simple = [*takewhile(_is_simple, keys[: len(self.shape)])]
        if self._part is None or not simple:
            return np.asarray(self)[key]
        spans = [_span(axis, one, self.shape[axis]) for axis, one in enumerate(simple)]
        rest = self.shape[len(spans) :]
        offset = (*(begin for begin, _, _ in spans), *[0] * len(rest))
        box = offset, (*(end - begin for begin, end, _ in spans), *rest)
        return self._part(box)[(*(part for _, _, part in spans), *keys[len(spans) :])]

    def astype(self, dtype: Any) -> "LazyArray":
        """The same values in another dtype, cast as `numpy.ndarray.astype` does."""
        to = np.dtype(dtype)
        return LazyArray(to, self.shape, lambda: np.asarray(self).astype(to))

    def reshape(self, *shape: int) -> "LazyArray":
        """The same values in another shape, C order; one axis may be -1."""
        size, known = math.prod(self.shape), math.prod(n for n in shape if n != -1)
        to = tuple(size // max(known, 1) if n == -1 else n for n in shape)
        if math.prod(to) != size or shape.count(-1) > 1 or min(to, default=0) < 0:
            raise ValueError(f"an array of shape {self.shape} cannot have the shape {shape}")
        return LazyArray(self.dtype, to, lambda: np.asarray(self).reshape(to))


def _is_simple(key: Any) -> bool:
    return isinstance(key, slice | int | np.integer) and not isinstance(key, bool)


def _span(axis: int, key: Any, size: int) -> tuple[int, int, Any]:
    """What a key selects on an axis of this size: begin, end, and the key within these bounds."""
    if isinstance(key, slice):
        wanted = range(size)[key]
        return min(wanted, default=0), max(wanted, default=-1) + 1, slice(None, None, wanted.step)
    try:
        begin = range(size)[int(key)]
    except IndexError:
        raise IndexError(f"index {key} on axis {axis}, which has {size}") from None
    return begin, begin + 1, 0
