"""One face for NumPy arrays, Numba's device arrays, lazy ones, and what speaks CAI or DLPack.

CAI is the `__cuda_array_interface__`, version 3, and DLPack the exchange protocol of the Python
array API standard. Nothing here imports Numba unless an array is already on a device.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np

from checkpointable.device.lazy import LazyArray
from checkpointable.device.staging import empty, fill
from checkpointable.errors import InvalidKernel

_DLPACK_CUDA = 2

HostArray = np.ndarray[Any, np.dtype[Any]]
Layout: TypeAlias = tuple[np.dtype[Any], tuple[int, ...]]


def is_array(value: object) -> bool:
    """Say whether the value is an array that can be read: on the host or on a device.

    >>> is_array(np.zeros(3)), is_array([0, 0, 0])
    (True, False)
    """
    if isinstance(value, np.ndarray):
        return type(value) is np.ndarray  # a subclass means something that its bytes don't say
    if isinstance(value, np.generic | type):
        return False
    if isinstance(value, LazyArray):
        return True
    return _is_numba(value) or _interface(value) is not None or _is_dlpack(value)


def _is_numba(value: object) -> bool:
    """A Numba device array, the simulator's included (which has no CAI)."""
    methods = ("copy_to_host", "copy_to_device", "is_c_contiguous")  # one record has no such order
    return all(hasattr(value, method) for method in methods)


def _is_dlpack(value: object) -> bool:
    return hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__")


def _interface(value: object) -> dict[str, Any] | None:
    """The CUDA array interface, if the value has one."""
    try:
        found: dict[str, Any] | None = getattr(value, "__cuda_array_interface__", None)
    except RuntimeError as error:  # torch, of a tensor with a gradient
        raise _unreadable(value, error) from error
    return found


def is_on_device(value: Any) -> bool:
    """Say whether the array is in a device's memory."""
    if isinstance(value, np.ndarray | LazyArray):
        return False
    if _is_numba(value) or _interface(value) is not None:
        return True
    return _is_dlpack(value) and int(value.__dlpack_device__()[0]) == _DLPACK_CUDA


def in_region(value: Any) -> bool:
    """Say whether it is a copy on a device, to be digested there and fetched by the block."""
    return isinstance(value, LazyArray) and value.region is not None


def device_array(value: Any) -> Any:
    """The same memory as a Numba device array."""
    from numba import cuda

    if _is_numba(value):
        return value
    interface = _interface(value)
    if interface is not None:
        array = cuda.as_cuda_array(value, sync=False)  # the order of streams is kept by events
        return array.view(layout(value)[0])
    from cuda.core.utils import StridedMemoryView  # pyright: ignore[reportMissingImports]

    view = StridedMemoryView.from_dlpack(value, stream_ptr=-1)
    strides = view.strides and [n * view.dtype.itemsize for n in view.strides]
    described = SimpleNamespace(owner=value)
    described.__cuda_array_interface__ = {
        "data": (view.ptr, view.readonly), "shape": tuple(view.shape), "typestr": view.dtype.str,
        "strides": strides, "version": 3,
    }  # fmt: skip
    return cuda.as_cuda_array(described, sync=False)


def _unreadable(value: Any, error: Exception) -> InvalidKernel:
    return InvalidKernel(
        f"a {type(value).__module__}.{type(value).__qualname__} cannot be read: {error}",
        hint="pass an array with __cuda_array_interface__, or copy it to the host",
    )


def _host_view(value: Any) -> HostArray:
    """The same memory as a NumPy array, where it is on the host; else a copy."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, LazyArray):
        return np.asarray(value)
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        if not hasattr(value, "__array__"):
            raise _unreadable(value, error) from error
    try:
        return np.asarray(value)  # of a dtype that DLPack does not know
    except (RuntimeError, TypeError, ValueError) as error:
        raise _unreadable(value, error) from error


def layout(value: Any) -> Layout:
    """Return dtype and shape, without touching the data.

    >>> layout(np.zeros((2, 3), np.float32))
    (dtype('float32'), (2, 3))
    """
    described = None if _is_numba(value) else _interface(value)
    if described is not None:
        fields = described.get("descr")
        plain = np.dtype(described["typestr"])
        dtype = np.dtype(fields) if plain.kind == "V" and fields else plain
        return dtype, tuple(described["shape"])
    if not isinstance(value, LazyArray):
        value = device_array(value) if is_on_device(value) else _host_view(value)
    return np.dtype(value.dtype), tuple(value.shape)


def on_host(value: Any) -> HostArray:
    """Return the array in host memory: itself if it is there already, else a copy."""
    return owned(value) if is_on_device(value) else _host_view(value)


def owned(value: Any) -> HostArray:
    """Return a copy in host memory, C order, that shares nothing with the original.

    Its memory is of the `Staging` in use, if one is.

    >>> a = np.arange(3)
    >>> b = owned(a); a[0] = 7; b
    array([0, 1, 2])
    """
    if is_on_device(value):
        from checkpointable.device import snapshot

        copies, wait = snapshot.begin({"": device_array(value)}, None, None)
        wait()
        copied: HostArray = copies[""]
        return copied
    view = _host_view(value)
    copy = empty(view.shape, view.dtype)
    if view.flags.c_contiguous and view.itemsize:  # as bytes, the padding of records too
        fill(copy, view)
    else:
        copy[...] = view
    return copy


def in_place(live: Mapping[str, Any], due: Mapping[str, Layout]) -> dict[str, HostArray]:
    """Those of the arrays that others of dtype and shape as `due` can be read into.

    They are in host memory, C order and writable; none, unless all that are due are there and fit.

    >>> grid = np.zeros((2, 3))
    >>> [*in_place({"grid": grid}, {"grid": (np.dtype(float), (2, 3))})]
    ['grid']
    >>> [*in_place({"grid": grid}, {"grid": (np.dtype(float), (3, 2))})]
    []
    """
    if any(name not in live or layout(live[name]) != spec for name, spec in due.items()):
        return {}
    hosts = {name: live[name] for name in due if isinstance(live[name], np.ndarray)}
    return {n: a for n, a in hosts.items() if a.flags.c_contiguous and a.flags.writeable}


def is_writable(value: Any) -> bool:
    """Say whether `overwrite` can write into the array."""
    if isinstance(value, np.ndarray):
        return bool(value.flags.writeable)
    interface = _interface(value)
    if interface is not None:
        return not interface["data"][1]
    return is_on_device(value) or bool(_host_view(value).flags.writeable)


def renewed(value: Any, source: Any) -> Any:
    """Another array of the kind and at the place of one that can't be written; None if unknown.

    Those of JAX, whose arrays never change.
    """
    if type(value).__module__.partition(".")[0] not in ("jax", "jaxlib"):
        return None
    import jax  # pyright: ignore[reportMissingImports]

    return jax.device_put(owned(source), value.sharding)


def overwrite(target: Any, source: HostArray) -> None:
    """Copy `source` into the host memory of `target`, which has the same dtype and shape."""
    if source is not target:  # it was read in place
        _host_view(target)[...] = source
