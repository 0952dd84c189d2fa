"""Host memory that snapshot after snapshot is copied into.

Fresh memory costs more than the copy: the system has to find and clear each page. So memory that
no array uses any more is used again.
"""

import math
import mmap
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Literal, TypeAlias

import numpy as np
from attrs import frozen

Slab = np.ndarray[Any, np.dtype[Any]]

_LEAST = 1 << 16  # bytes; below, fresh memory costs nothing to speak of
_HUGE = 2 << 20  # bytes of a huge page
_MANY = 128 << 20  # bytes; below, a second thread begins too late to be sure to help
_PROBE = [np.empty(0, np.uint8)]
_UNUSED = sys.getrefcount(_PROBE[0])


def fresh(size: int) -> Slab:
    """Memory of zeros that goes back to the system with its last view.

    Much of it is in huge pages, where there are some, and begins where one could.

    >>> fresh(5)
    array([0, 0, 0, 0, 0], dtype=uint8)
    """
    align = _HUGE if size >= _HUGE else mmap.PAGESIZE
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # private: of many slabs one mapping is made
    try:
        memory = mmap.mmap(-1, size + align, flags=flags)  # what is not touched is not taken
    except OSError as error:
        raise MemoryError(f"{size} bytes cannot be had") from error
    if align == _HUGE:
        with suppress(OSError):  # a system without
            memory.madvise(mmap.MADV_HUGEPAGE)
    begin = -np.frombuffer(memory, np.uint8).ctypes.data % align
    return np.frombuffer(memory, np.uint8, size, begin)  # no slice: views would not refer to it


def fill(target: Slab, source: Slab) -> None:
    """Copy all bytes, padding too, from one array in C order to another of its dtype and shape.

    Many of them go by two threads, since one alone does not keep the memory busy.
    """
    if not source.ndim:
        target, source = target.reshape(1), source.reshape(1)
    if source.nbytes < _MANY:
        target.view(np.uint8)[...] = source.view(np.uint8)
        return
    from concurrent.futures import ThreadPoolExecutor  # here, since it takes a while

    into, data = target.reshape(-1).view(np.uint8), source.reshape(-1).view(np.uint8)
    half = len(data) // 2
    with ThreadPoolExecutor(1, "checkpointable-copy") as other:
        try:
            rest = other.submit(np.copyto, into[half:], data[half:])
        except RuntimeError:  # no more threads are to be had
            into[half:] = data[half:]
            rest = None
        into[:half] = data[:half]
        if rest is not None:
            rest.result()


Way: TypeAlias = Literal["device", "pinned", "sliced"]
"""Where device arrays are copied to: into other memory of the device, into host memory that it
copies to by itself, or into any host memory."""


@frozen
class Snapshot:
    """How device arrays were copied: `bytes` of them, in `seconds`.

    `predicted` is what the copy before said of it, in seconds; None if none went the same way.
    """

    way: Way
    bytes: int
    predicted: float | None
    seconds: float


class Staging:
    """The memory of one snapshot after another.

    `reserve` bytes of each device stay free, or device arrays are copied to the host; `snapshot`
    is set to how that was done, `arena` is the memory of devices.

    >>> staging = Staging()
    >>> with staging.in_use():
    ...     first = empty((1 << 20,), np.dtype(np.float32))
    >>> address = first.ctypes.data
    >>> del first
    >>> with staging.in_use():
    ...     empty((1 << 10, 1 << 10), np.dtype(np.int32)).ctypes.data == address
    True
    """

    def __init__(self, reserve: int = 0, make: Callable[[int], Slab] = fresh) -> None:
        self.reserve = reserve
        self.arena: Any = None
        self.snapshot: Snapshot | None = None
        self.rates: dict[Way, float] = {}
        self._make = make
        self._lock = threading.Lock()
        self._slabs: list[Slab] = []
        self._free: list[Slab] = []

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Have `empty` give this memory; what is not wanted this time is let go at the end."""
        self._free, self._slabs = self._slabs, []
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)
            self._free = []

    def held(self) -> int:
        """Bytes that it keeps from one snapshot for the next."""
        return sum(len(slab) for slab in self._slabs)

    def _take(self, size: int) -> Slab:
        with self._lock:
            for index in range(len(self._free)):
                unused = sys.getrefcount(self._free[index]) == _UNUSED  # no array is a view of it
                if unused and len(self._free[index]) == size:
                    self._slabs.append(self._free.pop(index))
                    break
            else:
                self._slabs.append(self._make(size))
            return self._slabs[-1]


_current: ContextVar[Staging | None] = ContextVar("staging", default=None)


def staging_in_use() -> Staging | None:
    """The `Staging` in use, if one is."""
    return _current.get()


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Slab:
    """Like `numpy.empty`, C order; of the memory of the `Staging` in use, if one is."""
    staging, size = _current.get(), math.prod(shape) * dtype.itemsize
    if staging is None or size < _LEAST:
        return np.ndarray(shape, dtype)
    return staging._take(size).view(dtype).reshape(shape)
