"""Host memory that one snapshot after another is copied into.

Fresh memory costs more than the copy, since the system has to find and clear each page. So memory
that no array uses any more is reused.
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

_LEAST = 1 << 16  # bytes; below, fresh memory costs next to nothing
_HUGE = 2 << 20  # bytes of a huge page
_MANY = 128 << 20  # bytes; below, a second thread may start too late to help
_PROBE = [np.empty(0, np.uint8)]
_UNUSED = sys.getrefcount(_PROBE[0])


def fresh(size: int) -> Slab:
    """Return zeroed memory that goes back to the system with its last view.

    From the size of a huge page on it is aligned to one, and in huge pages if the system has them.

    >>> fresh(5)
    array([0, 0, 0, 0, 0], dtype=uint8)
    """
    align = _HUGE if size >= _HUGE else mmap.PAGESIZE
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # private, so the system can merge mappings
    try:
        memory = mmap.mmap(-1, size + align, flags=flags)  # untouched pages use no memory
    except OSError as error:
        raise MemoryError(f"{size} bytes cannot be allocated") from error
    if align == _HUGE:
        with suppress(OSError):  # a system without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    begin = -np.frombuffer(memory, np.uint8).ctypes.data % align
    return np.frombuffer(memory, np.uint8, size, begin)  # not a slice: its views keep its base


def fill(target: Slab, source: Slab) -> None:
    """Copy all bytes, padding included, between two arrays in C order of one dtype and shape.

    A large copy is split between two threads: one alone does not saturate the memory.
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
        except RuntimeError:  # the system has no more threads
            into[half:] = data[half:]
            rest = None
        into[:half] = data[:half]
        if rest is not None:
            rest.result()


Way: TypeAlias = Literal["device", "pinned", "sliced"]
"""Where device arrays are copied to: other memory of the device, pinned host memory, or any host
memory, slice by slice."""


@frozen
class Snapshot:
    """How device arrays were copied: `bytes` of them, in `seconds`.

    `predicted` is how long it was to take by the rate of the previous copy of the same way, in
    seconds; None if there was none.
    """

    way: Way
    bytes: int
    predicted: float | None
    seconds: float


class Staging:
    """The memory that one snapshot after another is copied into.

    Device arrays stay on their device if that leaves `reserve` bytes free there. `snapshot` is set
    to how the last ones were copied; `arena` is the device memory.

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
        """Make `empty` return this memory; what it has not reused by the end is freed."""
        self._free, self._slabs = self._slabs, []
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)
            self._free = []

    def held(self) -> int:
        """Bytes that are kept from one snapshot to the next."""
        return sum(len(slab) for slab in self._slabs)

    def release(self) -> None:
        """Let go of the memory that no array uses."""
        self._slabs = []
        if snapshot := sys.modules.get("checkpointable.arrays.cuda.snapshot"):
            snapshot.release(self)

    def take(self, size: int) -> Slab:
        """Bytes that no array uses, within `in_use`."""
        with self._lock:
            for index in range(len(self._free)):
                unused = sys.getrefcount(self._free[index]) == _UNUSED  # it has no views left
                if unused and len(self._free[index]) == size:
                    self._slabs.append(self._free.pop(index))
                    break
            else:
                self._slabs.append(self._make(size))
            return self._slabs[-1]


_current: ContextVar[Staging | None] = ContextVar("staging", default=None)


def staging_in_use() -> Staging | None:
    """The `Staging` in use, if there is one."""
    return _current.get()


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Slab:
    """Like `numpy.empty`, in C order, from the memory of the `Staging` in use, if there is one."""
    staging, size = _current.get(), math.prod(shape) * dtype.itemsize
    if staging is None or size < _LEAST:
        return np.ndarray(shape, dtype)
    return staging.take(size).view(dtype).reshape(shape)
