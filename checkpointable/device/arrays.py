"""One face for NumPy arrays, Numba's device arrays, lazy ones, and what speaks CAI or DLPack.

CAI is the `__cuda_array_interface__`, version 3, and DLPack the exchange protocol of the Python
array API standard. Nothing here imports Numba unless an array is already on a device.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from checkpointable.device.lazy import LazyArray
from checkpointable.device.staging import empty, fill
from checkpointable.errors import InvalidKernel

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
    return _is_numba(value) or hasattr(value, "__cuda_array_interface__") or _is_dlpack(value)


def _is_numba(value: object) -> bool:
    """A Numba device array, the simulator's included (which has no CAI)."""
    return hasattr(value, "copy_to_host") and hasattr(value, "copy_to_device")


def _is_dlpack(value: object) -> bool:
    return hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__")


def _view(value: Any) -> Any:
    """The same memory as a NumPy or a Numba device array."""
    if isinstance(value, np.ndarray) or _is_numba(value):
        return value
    if isinstance(value, LazyArray):
        return np.asarray(value)
    if hasattr(value, "__cuda_array_interface__"):
        from numba import cuda

        return cuda.as_cuda_array(value)
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InvalidKernel(
            f"a {type(value).__module__}.{type(value).__qualname__} cannot be read: {error}",
            hint="pass an array with __cuda_array_interface__, or copy it to the host",
        ) from error


def layout(value: Any) -> Layout:
    """Return dtype and shape, without touching the data.

    >>> layout(np.zeros((2, 3), np.float32))
    (dtype('float32'), (2, 3))
    """
    if hasattr(value, "__cuda_array_interface__") and not _is_numba(value):
        described = value.__cuda_array_interface__
        fields = described.get("descr")
        plain = np.dtype(described["typestr"])
        dtype = np.dtype(fields) if plain.kind == "V" and fields else plain
        return dtype, tuple(described["shape"])
    view = value if isinstance(value, LazyArray) else _view(value)
    return np.dtype(view.dtype), tuple(view.shape)


def on_host(value: Any) -> HostArray:
    """Return the array in host memory: itself if it is there already, else a copy."""
    view = _view(value)
    return view if isinstance(view, np.ndarray) else np.asarray(view.copy_to_host())


def owned(value: Any) -> HostArray:
    """Return a copy in host memory, C order, that shares nothing with the original.

    Its memory is of the `Staging` in use, if one is.

    >>> a = np.arange(3)
    >>> b = owned(a); a[0] = 7; b
    array([0, 1, 2])
    """
    view = _view(value)
    if isinstance(view, np.ndarray):
        copy = empty(view.shape, view.dtype)
        if view.flags.c_contiguous and view.itemsize:  # as bytes, the padding of records too
            fill(copy, view)
        else:
            copy[...] = view
        return copy
    if view.is_c_contiguous():
        copy = empty(tuple(view.shape), np.dtype(view.dtype))
        view.copy_to_host(copy)
        return copy
    return np.ascontiguousarray(view.copy_to_host())


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
    view = _view(value)
    return not isinstance(view, np.ndarray) or bool(view.flags.writeable)


def overwrite(target: Any, source: HostArray) -> None:
    """Copy `source` into the memory of `target`, which has the same dtype and shape."""
    if source is target:  # it was read in place
        return
    view = _view(target)
    if isinstance(view, np.ndarray):
        view[...] = source
    else:
        view.copy_to_device(np.ascontiguousarray(source))
