"""The memory of CUDA devices by address, with streams and events; and pinned host memory.

Apart from kernels, all that this package asks of Numba's CUDA is here. In Numba's simulator, device
memory is that of the process, and each call is complete when it returns.
"""

# Without the package of numba.cuda, the type checker sees stubs with other parameters.
# pyright: reportCallIssue=false, reportArgumentType=false

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
from numba import config, cuda

from checkpointable.arrays.cuda.lost import cuda_errors
from checkpointable.arrays.kinds import HostArray, cuda_interface, dlpack_view, is_numba, layout

SIMULATED = bool(config.ENABLE_CUDASIM)  # type: ignore[attr-defined]

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


def words() -> Array:
    """All memory, as an array of uint64 whose first element is at `BASE`."""
    return at(BASE, 2**57, np.uint64)


def unwrapped(value: Any) -> Any:
    """The NumPy array in an array of the simulator, for a compiled loop."""
    return getattr(value, "_ary", value)


def address_of(array: Array) -> int:
    """The address of an array's first byte."""
    if SIMULATED:
        return int(unwrapped(array).__array_interface__["data"][0])
    return int(array.device_ctypes_pointer.value or 0)


def device_of(address: int) -> int:
    """The number of the device whose memory is at an address."""
    if SIMULATED:
        return 0
    from cuda.bindings import driver  # pyright: ignore[reportMissingImports]

    attribute = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    error, device = driver.cuPointerGetAttribute(attribute, driver.CUdeviceptr(address))
    return int(device) if not int(error) else current()


def current() -> int:
    """The number of the current device."""
    return 0 if SIMULATED else int(cuda.get_current_device().id)


@contextmanager
def on_device(device: int) -> Iterator[None]:
    """Make a device current in this thread, and raise CUDA's errors as `cuda_errors` does."""
    with cuda_errors(), cuda.gpus[device]:
        yield


def free() -> float:
    """Bytes of free memory on the current device."""
    return float(cuda.current_context().get_memory_info()[0])


def collect() -> None:
    """Free the memory whose deallocation Numba has deferred; it counts as used until then."""
    manager = getattr(cuda.current_context(), "memory_manager", None)
    pending = getattr(manager, "deallocations", None)  # not every manager defers
    if pending is not None:
        pending.clear()


def empty(shape: tuple[int, ...], dtype: Any, stream: Stream = 0) -> Array:
    """Memory of the current device, from the memory manager that Numba uses."""
    return cuda.device_array(shape, dtype, stream=stream)


def to_device(array: HostArray, stream: Stream) -> Array:
    """An asynchronous copy on the current device, which keeps the original alive."""
    copy = cuda.to_device(array, stream=stream)
    copy.original = array
    return copy


def to_host(array: Array, stream: Stream) -> HostArray:
    """A copy on the host, in the order of the stream."""
    copy = np.empty(tuple(array.shape), array.dtype)
    array.copy_to_host(copy, stream=stream)
    stream.synchronize()
    return copy


def copy(target: int, source: int, size: int, stream: Stream) -> None:
    """Copy within a device, in the order of the stream; returns at once."""
    at(target, size).copy_to_device(at(source, size), stream=stream)


def pinned(size: int) -> HostArray:
    """Pinned host memory, which a device copies asynchronously; `MemoryError` if there is none."""
    with cuda_errors():
        return np.asarray(cuda.pinned_array(size, np.uint8))


Wait: TypeAlias = Callable[[], None]
"""Blocks until something is done; it may be called in any thread."""


def done(stream: Stream, *kept: object) -> Wait:
    """Return a wait for what is in the stream now; `kept` is kept alive until then."""
    device, event = current(), cuda.event()
    event.record(stream)
    needed = [*kept]

    def wait() -> None:
        with on_device(device):
            event.synchronize()
        needed.clear()

    return wait


def follow(stream: Stream, first: Stream) -> None:
    """Make a stream continue only when another has done what is in it now."""
    event = cuda.event()
    event.record(first)
    event.wait(stream)


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
    protocol = getattr(value, "__cuda_stream__", None)
    if protocol is not None:
        return cuda.external_stream(int(protocol()[1]))
    return cuda.external_stream(int(getattr(value, "cuda_stream", None) or value.ptr))


def side_stream() -> Stream:
    """A new stream that does not synchronize with the default stream."""
    if SIMULATED:
        return cuda.stream()
    from cuda.core import Device, StreamOptions  # pyright: ignore[reportMissingImports]

    device = Device(current())
    device.set_current()
    stream = device.create_stream(options=StreamOptions(nonblocking=True))
    external = cuda.external_stream(int(stream.handle))
    external.owner = stream  # or it would be destroyed with it
    return external


def device_array(value: Any) -> Any:
    """The same memory as a Numba device array."""
    if is_numba(value):
        return value
    interface = cuda_interface(value)
    if interface is not None:
        array = cuda.as_cuda_array(value, sync=False)  # events keep the order of streams
        return array.view(layout(value)[0])
    view = dlpack_view(value)
    strides = view.strides and [n * view.dtype.itemsize for n in view.strides]
    described = SimpleNamespace(owner=value)
    described.__cuda_array_interface__ = {
        "data": (view.ptr, view.readonly), "shape": tuple(view.shape), "typestr": view.dtype.str,
        "strides": strides, "version": 3,
    }  # fmt: skip
    return cuda.as_cuda_array(described, sync=False)
