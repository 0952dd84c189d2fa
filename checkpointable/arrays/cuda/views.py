"""Device arrays of every library as address, dtype, shape and strides. No context is needed."""

import math
import sys
from typing import Any

import numpy as np
from attrs import frozen

from checkpointable.arrays.cuda import memory
from checkpointable.arrays.kinds import Layout, cuda_interface, dlpack_view, is_numba, layout

DEFAULT = "default"
"""The default stream of a device."""


@frozen(eq=False)
class View:
    """The memory of a device array, which `owner` keeps alive.

    `strides` are in bytes; None means C order without gaps. `stream` orders what is done to the
    array: a stream, or `DEFAULT`; None means that none is known to.
    """

    address: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    nbytes: int
    device: int
    stream: Any
    owner: object


def _view(
    address: int, layout: Layout, strides: tuple[int, ...] | None, stream: Any, owner: object
) -> View:
    dtype, shape = layout
    size = math.prod(shape) * dtype.itemsize
    device = memory.device_of(address) if size else 0
    return View(address, dtype, shape, strides, size, device, stream, owner)


def view_of(value: Any) -> View:
    """The memory of a device array; raises `InvalidKernel` if it cannot be read."""
    if isinstance(value, View):
        return value
    if is_numba(value):
        return _of_numba(value)
    module = type(value).__module__.partition(".")[0]
    if module in ("jax", "jaxlib"):
        value.block_until_ready()
    interface = cuda_interface(value)
    if interface is not None:
        dtype, shape = layout(value)
        strides = _unless_contiguous(shape, interface.get("strides"), dtype.itemsize)
        stream = _stream(module, value)
        return _view(int(interface["data"][0]), (dtype, shape), strides, stream, value)
    view = dlpack_view(value)
    dtype, shape = np.dtype(view.dtype), tuple(view.shape)
    strides = view.strides and tuple(n * dtype.itemsize for n in view.strides)
    strides = _unless_contiguous(shape, strides, dtype.itemsize)
    return _view(int(view.ptr), (dtype, shape), strides, DEFAULT, (value, view))


def _of_numba(value: Any) -> View:
    dtype, shape = np.dtype(value.dtype), tuple(value.shape)
    strides = None if value.is_c_contiguous() else tuple(value.strides)
    stream = getattr(value, "stream", None) or (None if memory.PER_THREAD else DEFAULT)
    return _view(memory.address_of(value), (dtype, shape), strides, stream, value)


def _stream(module: str, value: Any) -> Any:
    """The stream that orders a foreign array, if its library says so."""
    if module == "torch":
        return sys.modules["torch"].cuda.current_stream(value.device)
    if module in ("jax", "jaxlib"):
        return DEFAULT  # the array is ready, and never changes
    return None


def _unless_contiguous(
    shape: tuple[int, ...], strides: tuple[int, ...] | None, itemsize: int
) -> tuple[int, ...] | None:
    if strides is None:
        return None
    expected = itemsize
    for count, stride in zip(reversed(shape), reversed(strides), strict=True):
        if count != 1 and stride != expected:
            return tuple(strides)
        expected *= count
    return None
