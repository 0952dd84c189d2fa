"""Arrays that are not there yet."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from checkpointable.errors import InvalidCheckpoint

_Array = np.ndarray[Any, np.dtype[Any]]


@frozen(eq=False)
class Region:
    """Bytes of device memory, which stay what they are while this, or a part of it, is kept."""

    device: int
    address: int
    size: int
    owner: object = field(repr=False)

    def part(self, begin: int, size: int) -> "Region":
        """So many of the bytes, from one of them on."""
        return evolve(self, address=self.address + begin, size=size, owner=self)


class LazyArray:
    """An array that is read, or computed, when it is needed: dtype, shape, and how to get it.

    NumPy takes it wherever it takes an array. `rows`, if given, gets a range of the first axis;
    then a slice reads no more than that. `region` is where it lies if that is on a device.

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
        rows: Callable[[int, int], _Array] | None = None,
        region: Region | None = None,
    ) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.shape = tuple(shape)
        self._read = read
        self._rows = rows
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
        return array  # which NumPy casts

    def __len__(self) -> int:
        return len(range(*self.shape[:1]))

    def __getitem__(self, key: Any) -> Any:
        """A part, as of a NumPy array."""
        keys: tuple[Any, ...] = key if isinstance(key, tuple) and key else (key,)
        first, others = keys[0], keys[1:]
        simple = isinstance(first, slice | int | np.integer) and not isinstance(first, bool)
        if self._rows is None or not self.shape or not simple:
            return np.asarray(self)[key]
        if isinstance(first, slice):
            wanted = range(len(self))[first]
            begin, end = min(wanted, default=0), max(wanted, default=-1) + 1
            part: Any = slice(None, None, wanted.step)
        else:
            try:
                begin = range(len(self))[int(first)]
            except IndexError:
                raise IndexError(f"row {first} of an array of {len(self)}") from None
            end, part = begin + 1, 0
        return self._rows(begin, end)[(part, *others)]

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
