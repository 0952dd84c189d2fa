"""The memory of CUDA devices by address, with streams and events; and pinned host memory.

Kernels are launched by Numba, and device memory is allocated by the memory manager that Numba uses.
All else is asked of the driver. In Numba's simulator, device memory is that of the process, and
each call is complete when it returns.
"""

# Without the package of numba.cuda, the type checker sees stubs with other parameters.
# pyright: reportCallIssue=false, reportArgumentType=false

import ctypes
import functools
import importlib
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import numpy as np
from numba import config, cuda

from checkpointable.arrays.cuda.lost import check, cuda_errors
from checkpointable.arrays.kinds import HostArray
from checkpointable.arrays.staging import fresh

SIMULATED = bool(config.ENABLE_CUDASIM)  # type: ignore[attr-defined]

driver: Any = None
"""The driver's API; None in the simulator, and where there is no package numba-cuda."""
if not SIMULATED:
    with suppress(ImportError):
        driver = importlib.import_module("cuda.bindings.driver")

PER_THREAD = bool(getattr(config, "CUDA_PER_THREAD_DEFAULT_STREAM", 0))
"""Whether each thread has a default stream of its own, so that the one in use is not known."""

BASE = 8
"""The address that `words` begins at: not 0, which means no memory, and not in use."""

Array: TypeAlias = Any
"""A device array of Numba."""

Stream: TypeAlias = Any
"""A stream of Numba."""


class _Described:
    """Memory as NumPy or Numba accepts it; an array made from it keeps `owner` alive."""

    def __init__(self, address: int, count: int, dtype: np.dtype[Any], owner: object) -> None:
        described = {
            "data": (address, False), "shape": (count,), "typestr": dtype.str, "version": 3,
        }  # fmt: skip
        setattr(self, f"__{'array' if SIMULATED else 'cuda_array'}_interface__", described)
        self.owner = owner


def at(address: int, count: int, dtype: Any = np.uint8, owner: object = None) -> Array:
    """The memory at an address as an array of `count` elements, not copied."""
    described = _Described(address, count, np.dtype(dtype), owner)
    if SIMULATED:
        return type(cuda.device_array(1, np.uint8))(np.asarray(described))
    return cuda.as_cuda_array(described)


@functools.cache
def words(size: int = 8) -> Array:
    """All memory, as an array of unsigned integers of `size` bytes whose first is at `BASE`."""
    return at(BASE, 2**60 // size, f"u{size}")


def unwrapped(value: Any) -> Any:
    """The NumPy array in an array of the simulator, for a compiled loop."""
    return getattr(value, "_ary", value)


def address_of(array: Array) -> int:
    """The address of an array's first byte."""
    if SIMULATED:
        return int(unwrapped(array).__array_interface__["data"][0])
    return int(array.device_ctypes_pointer.value or 0)


# --- devices --------------------------------------------------------------------------------------


@functools.cache
def devices() -> int:
    """How many devices there are."""
    return 1 if SIMULATED else len(cuda.gpus)


def device_of(address: int) -> int:
    """The number of the device whose memory is at an address. No context is made for that."""
    if devices() == 1:
        return 0
    attribute = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    with cuda_errors():
        return int(check(driver.cuPointerGetAttribute(attribute, address)))


def current() -> int:
    """The number of the current device."""
    return 0 if SIMULATED else int(cuda.get_current_device().id)


@contextmanager
def on_device(device: int) -> Iterator[None]:
    """Make a device current in this thread, and raise CUDA's errors as `cuda_errors` does.

    What is done here does not disturb the capture of a graph in another thread.
    """
    with cuda_errors(), cuda.gpus[device]:
        if SIMULATED:
            yield
            return
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        before = check(driver.cuThreadExchangeStreamCaptureMode(mode))
        try:
            yield
        finally:
            driver.cuThreadExchangeStreamCaptureMode(before)


def has_context(device: int) -> bool:
    """Whether this process uses a device; no context is made to find out."""
    return SIMULATED or bool(check(driver.cuDevicePrimaryCtxGetState(device))[1])


def synchronize(device: int) -> None:
    """Wait for all that was begun on a device."""
    with on_device(device):
        if not SIMULATED:
            check(driver.cuCtxSynchronize())


# --- memory ---------------------------------------------------------------------------------------


def free() -> float:
    """Bytes of free memory on the current device; those in a pool of its manager do not count."""
    if SIMULATED:
        return float(cuda.current_context().get_memory_info()[0])
    return float(check(driver.cuMemGetInfo())[0])


_unpinned: deque[int] = deque()


def collect() -> None:
    """Free the memory whose deallocation is deferred; it counts as used until then.

    It may wait for all that runs on the device.
    """
    manager = getattr(cuda.current_context(), "memory_manager", None)
    pending = getattr(manager, "deallocations", None)  # not every manager defers
    if pending is not None:
        pending.clear()
    _free_unpinned()


def _free_unpinned() -> None:
    while _unpinned:
        driver.cuMemFreeHost(_unpinned.popleft())


def empty(size: int) -> Array:
    """Bytes on the current device, from the memory manager that Numba uses."""
    return cuda.device_array((size,), np.uint8)


def pinned(size: int) -> HostArray:
    """Pinned host memory, which devices copy asynchronously; `MemoryError` if there is none.

    It takes about half a second per GiB. When no array refers to it, it is freed by `collect`, or
    before more is pinned.
    """
    with cuda_errors():
        if SIMULATED:
            return np.asarray(cuda.pinned_array(size, np.uint8))
        _free_unpinned()
        portable = driver.CU_MEMHOSTALLOC_PORTABLE
        address = int(check(driver.cuMemHostAlloc(size, portable)))
    memory = (ctypes.c_uint8 * size).from_address(address)
    weakref.finalize(memory, _unpinned.append, address).atexit = False
    array: HostArray = np.ndarray(size, np.uint8, memory)  # type: ignore[arg-type]
    return array


def pinned_if_possible(size: int) -> HostArray:
    """As `pinned`, but memory that is not pinned if there is none: copies are slower then."""
    try:
        return pinned(size)
    except MemoryError:
        return fresh(size)


def copy(target: int, source: int, size: int, stream: Stream) -> None:
    """Copy within a device, in the order of the stream; returns at once."""
    if SIMULATED:
        ctypes.memmove(target, source, size)
    else:
        check(driver.cuMemcpyDtoDAsync(target, source, size, _handle(stream)))


def to_host(target: HostArray, source: int, stream: Stream) -> None:
    """Copy to the host, in the order of the stream; returns at once if the memory is pinned."""
    if SIMULATED:
        ctypes.memmove(target.ctypes.data, source, target.nbytes)
    else:
        check(driver.cuMemcpyDtoHAsync(target.ctypes.data, source, target.nbytes, _handle(stream)))


def to_device(target: int, source: HostArray, stream: Stream) -> None:
    """Copy from the host, in the order of the stream; returns at once if the memory is pinned."""
    if SIMULATED:
        ctypes.memmove(target, source.ctypes.data, source.nbytes)
    else:
        check(driver.cuMemcpyHtoDAsync(target, source.ctypes.data, source.nbytes, _handle(stream)))


# --- order ----------------------------------------------------------------------------------------

Wait: TypeAlias = Callable[[], None]
"""Blocks until something is done; it may be called in any thread."""


def _handle(stream: Stream) -> int:
    return int(stream.handle)


def _recorded(stream: Stream) -> Any:
    flags = driver.CUevent_flags
    event = check(
        driver.cuEventCreate(
            flags.CU_EVENT_DISABLE_TIMING.value | flags.CU_EVENT_BLOCKING_SYNC.value
        )
    )
    try:
        check(driver.cuEventRecord(event, _handle(stream)))
    except BaseException:
        driver.cuEventDestroy(event)
        raise
    return event


def done(stream: Stream, *kept: object) -> Wait:
    """Return a wait for what is in the stream now; `kept` is kept alive until then."""
    event, needed = None if SIMULATED else _recorded(stream), [*kept]

    def wait() -> None:
        nonlocal event
        if event is not None:
            with cuda_errors():
                check(driver.cuEventSynchronize(event))
            driver.cuEventDestroy(event)
            event = None
        needed.clear()

    return wait


def follow(stream: Stream, first: Stream) -> None:
    """Make a stream continue only when another has done what is in it now."""
    if not SIMULATED and _handle(stream) != _handle(first):
        event = _recorded(first)
        check(driver.cuStreamWaitEvent(_handle(stream), event, 0))
        driver.cuEventDestroy(event)  # when it is done


def is_stream(value: Any) -> bool:
    """Whether it is a CUDA stream: of Numba, cuda.core, CuPy or torch.

    >>> is_stream(cuda.stream) or is_stream(open) or is_stream(7)
    False
    """
    if SIMULATED and isinstance(value, cuda.stream):
        return True
    kind = type(value).__module__.partition(".")[0]
    named = {"torch": "cuda_stream", "cupy": "ptr", "numba": "handle", "numba_cuda": "handle"}
    return hasattr(value, "__cuda_stream__") or hasattr(value, named.get(kind, "__cuda_stream__"))


def stream_of(value: Any) -> Stream:
    """A stream as a Numba stream, the default one for None; the caller keeps the original alive."""
    if SIMULATED:
        return cuda.stream()
    if value is None:
        return cuda.default_stream()
    if isinstance(value, type(cuda.default_stream())):
        return value
    if isinstance(value, int):
        return cuda.external_stream(value)
    protocol = getattr(value, "__cuda_stream__", None)
    if protocol is not None:
        return cuda.external_stream(int(protocol()[1]))
    return cuda.external_stream(int(getattr(value, "cuda_stream", None) or value.ptr))


def device_of_stream(stream: Stream) -> int | None:
    """The number of a stream's device; None for the default stream, which every device has."""
    if SIMULATED or devices() == 1:
        return 0
    if _handle(stream) in (0, 1, 2):
        return None
    context = check(driver.cuStreamGetCtx(_handle(stream)))
    check(driver.cuCtxPushCurrent(context))
    try:
        return int(check(driver.cuCtxGetDevice()))
    finally:
        driver.cuCtxPopCurrent()


def side_stream() -> Stream:
    """A new stream of the current device that does not synchronize with the default stream."""
    if SIMULATED:
        return cuda.stream()
    flags = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
    handle = int(check(driver.cuStreamCreate(flags)))
    stream = cuda.external_stream(handle)
    weakref.finalize(stream, driver.cuStreamDestroy, handle).atexit = False
    return stream
