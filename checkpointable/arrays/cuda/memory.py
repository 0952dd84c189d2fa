"""The memory of CUDA devices: by address, with streams and events, and pinned memory beside it.

All that this package asks of Numba's CUDA is here, but kernels. In Numba's simulator the device's
memory is that of the process, and each call is done when it returns. Importing it imports Numba.
"""

# What is seen of numba.cuda without its package are stubs with other parameters.
# pyright: reportCallIssue=false, reportArgumentType=false

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
from numba import config, cuda

from checkpointable.arrays.cuda.lost import cuda_errors
from checkpointable.arrays.kinds import cuda_interface, dlpack_view, is_numba, layout

SIMULATED = bool(config.ENABLE_CUDASIM)  # type: ignore[attr-defined]

BASE = 8
"""The address that `words` begins at: not NULL, which stands for no memory, and where none is."""

Array: TypeAlias = Any
"""A device array of Numba's."""

Stream: TypeAlias = Any
"""A stream of Numba's."""

HostArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]


class _Described:
    """Memory, as NumPy or Numba take it; an array made of it keeps `owner` alive."""

    def __init__(self, address: int, count: int, dtype: np.dtype[Any], owner: object) -> None:
        described = {
            "data": (address, False), "shape": (count,), "typestr": dtype.str, "version": 3,
        }  # fmt: skip
        setattr(self, f"__{'array' if SIMULATED else 'cuda_array'}_interface__", described)
        self.owner = owner


def at(address: int, count: int, dtype: Any = np.uint8, owner: object = None) -> Array:
    """The memory at an address, as an array of so many elements; it is not copied."""
    described = _Described(address, count, np.dtype(dtype), owner)
    if SIMULATED:
        return type(cuda.device_array(1, np.uint8))(np.asarray(described))
    return cuda.as_cuda_array(described)


def words() -> Array:
    """All the memory there is, as an array of uint64 whose first lies at `BASE`."""
    return at(BASE, 2**57, np.uint64)


def unwrapped(value: Any) -> Any:
    """What a compiled loop takes for an array of the simulator."""
    return getattr(value, "_ary", value)


def address_of(array: Array) -> int:
    """Where an array begins."""
    if SIMULATED:
        return int(unwrapped(array).__array_interface__["data"][0])
    return int(array.device_ctypes_pointer.value or 0)


def device_of(address: int) -> int:
    """The number of the device that the memory at an address is of."""
    if SIMULATED:
        return 0
    from cuda.bindings import driver  # pyright: ignore[reportMissingImports]

    attribute = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    error, device = driver.cuPointerGetAttribute(attribute, driver.CUdeviceptr(address))
    return int(device) if not int(error) else current()


def current() -> int:
    """The number of the device in use."""
    return 0 if SIMULATED else int(cuda.get_current_device().id)


@contextmanager
def on_device(device: int) -> Iterator[None]:
    """Use a device, in this thread; errors of CUDA's are ours within."""
    with cuda_errors(), cuda.gpus[device]:
        yield


def free() -> float:
    """Bytes of memory that the device in use has left."""
    return float(cuda.current_context().get_memory_info()[0])


def collect() -> None:
    """Free what Numba has put off freeing, which counts as used until then."""
    manager = getattr(cuda.current_context(), "memory_manager", None)
    pending = getattr(manager, "deallocations", None)  # not every manager puts it off
    if pending is not None:
        pending.clear()


def empty(shape: tuple[int, ...], dtype: Any, stream: Stream = 0) -> Array:
    """Memory of the device in use, from Numba's memory manager, whichever that is."""
    return cuda.device_array(shape, dtype, stream=stream)


def to_device(array: HostArray, stream: Stream) -> Array:
    """A copy on the device in use; it keeps the original until it is there."""
    copy = cuda.to_device(array, stream=stream)
    copy.original = array
    return copy


def to_host(array: Array, stream: Stream) -> HostArray:
    """A copy on the host, after what the stream has to do before."""
    copy = np.empty(tuple(array.shape), array.dtype)
    array.copy_to_host(copy, stream=stream)
    stream.synchronize()
    return copy


def copy(target: int, source: int, size: int, stream: Stream) -> None:
    """Copy within a device, in the order of the stream; returns at once."""
    at(target, size).copy_to_device(at(source, size), stream=stream)


def pinned(size: int) -> HostArray:
    """Host memory that a device copies to and from by itself; `MemoryError` if there is none."""
    with cuda_errors():
        return np.asarray(cuda.pinned_array(size, np.uint8))


Wait: TypeAlias = Callable[[], None]
"""Returns when something is done; to be called in any thread."""


def done(stream: Stream, *kept: object) -> Wait:
    """Wait for what the stream has to do now, for which `kept` is needed."""
    device, happened = current(), cuda.event()
    happened.record(stream)

    def wait() -> None:
        with on_device(device):
            happened.synchronize()
        del kept_until[:]

    kept_until = [*kept]
    return wait


def follow(stream: Stream, first: Stream) -> None:
    """Have a stream go on only when another one has done what it has to do now."""
    happened = cuda.event()
    happened.record(first)
    happened.wait(stream)


def is_stream(value: Any) -> bool:
    """Say whether it is a CUDA stream: of Numba's, cuda.core's, CuPy's or torch's.

    >>> is_stream(cuda.stream) or is_stream(open) or is_stream(7)
    False
    """
    if SIMULATED and isinstance(value, cuda.stream):
        return True
    kind = type(value).__module__.partition(".")[0]
    named = {"torch": "cuda_stream", "cupy": "ptr", "numba": "handle", "numba_cuda": "handle"}
    return hasattr(value, "__cuda_stream__") or hasattr(value, named.get(kind, "__cuda_stream__"))


def stream_of(value: Any) -> Stream:
    """A stream as Numba takes it; the default one for None. Its maker has to keep it."""
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
    """A stream beside all others: it does not wait for the default one, nor that for it."""
    if SIMULATED:
        return cuda.stream()
    from cuda.core import Device, StreamOptions  # pyright: ignore[reportMissingImports]

    device = Device(current())
    device.set_current()
    stream = device.create_stream(options=StreamOptions(nonblocking=True))
    beside = cuda.external_stream(int(stream.handle))
    beside.owner = stream  # which would take it along
    return beside


def device_array(value: Any) -> Any:
    """The same memory as a Numba device array."""
    if is_numba(value):
        return value
    interface = cuda_interface(value)
    if interface is not None:
        array = cuda.as_cuda_array(value, sync=False)  # the order of streams is kept by events
        return array.view(layout(value)[0])
    view = dlpack_view(value)
    strides = view.strides and [n * view.dtype.itemsize for n in view.strides]
    described = SimpleNamespace(owner=value)
    described.__cuda_array_interface__ = {
        "data": (view.ptr, view.readonly), "shape": tuple(view.shape), "typestr": view.dtype.str,
        "strides": strides, "version": 3,
    }  # fmt: skip
    return cuda.as_cuda_array(described, sync=False)
