"""What kind of array a value is, and where it lives: NumPy, Numba, lazy, CAI or DLPack.

CAI is the `__cuda_array_interface__`, version 3. DLPack is the exchange protocol of the Python
array API standard. Nothing here imports Numba.
"""

from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from checkpointable.arrays.lazy import LazyArray
from checkpointable.errors import InvalidKernel

HostArray = np.ndarray[Any, np.dtype[Any]]
Layout: TypeAlias = tuple[np.dtype[Any], tuple[int, ...]]
_DLPACK_CUDA = 2
_LEGACY_STREAM = 1


def is_array(value: object) -> bool:
    """Whether the value is an array that can be read: on the host or on a device.

    >>> is_array(np.zeros(3)), is_array([0, 0, 0])
    (True, False)
    """
    kind: Any = type(value)
    if kind is np.ndarray or isinstance(value, LazyArray) or _has_methods_of_numba(kind):
        return True
    if isinstance(value, np.ndarray | np.generic | type):
        return False  # a subclass of an array has a meaning that its bytes do not hold
    return cuda_interface(value) is not None or is_dlpack(value)


def is_numba(value: object) -> bool:
    """Whether the value is a device array of Numba, or of its simulator, which has no CAI."""
    kind: Any = type(value)
    return _has_methods_of_numba(kind)


@lru_cache
def _has_methods_of_numba(cls: Any) -> bool:
    methods = ("copy_to_host", "copy_to_device", "is_c_contiguous")  # a single record lacks these
    return all(hasattr(cls, method) for method in methods)


def is_dlpack(value: object) -> bool:
    """Whether the value supports DLPack."""
    return hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__")


def cuda_interface(value: object) -> dict[str, Any] | None:
    """The CUDA array interface, if the value has one."""
    try:
        interface: dict[str, Any] | None = getattr(value, "__cuda_array_interface__", None)
    except RuntimeError as error:  # a torch tensor with a gradient
        raise unreadable(value, error) from error
    return interface


def is_on_device(value: Any) -> bool:
    """Whether the array is in a device's memory."""
    if is_numba(value):
        return True
    if isinstance(value, np.ndarray | LazyArray):
        return False
    if cuda_interface(value) is not None:
        return True
    return is_dlpack(value) and int(value.__dlpack_device__()[0]) == _DLPACK_CUDA


def in_region(value: Any) -> bool:
    """Whether the array is a snapshot on a device, digested there and fetched block by block."""
    return isinstance(value, LazyArray) and value.region is not None


def unreadable(value: Any, error: Exception) -> InvalidKernel:
    """Return the error for an array that cannot be read."""
    return InvalidKernel(
        f"a {type(value).__module__}.{type(value).__qualname__} cannot be read: {error}",
        hint="pass an array with __cuda_array_interface__, or copy it to the host",
    )


def host_view(value: Any) -> HostArray:
    """The array as a NumPy array: the same memory if that is on the host, else a copy."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, LazyArray):
        return np.asarray(value)
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        if not hasattr(value, "__array__"):
            raise unreadable(value, error) from error
    try:
        return np.asarray(value)  # its dtype is unknown to DLPack
    except (RuntimeError, TypeError, ValueError) as error:
        raise unreadable(value, error) from error


def layout(value: Any) -> Layout:
    """Return dtype and shape, without touching the data.

    >>> layout(np.zeros((2, 3), np.float32))
    (dtype('float32'), (2, 3))
    """
    if isinstance(value, np.ndarray | LazyArray) or is_numba(value):
        return np.dtype(value.dtype), tuple(value.shape)
    described = cuda_interface(value)
    if described is not None:
        fields = described.get("descr")
        plain = np.dtype(described["typestr"])
        dtype = np.dtype(fields) if plain.kind == "V" and fields else plain
        return dtype, tuple(described["shape"])
    view = dlpack_view(value) if is_on_device(value) else host_view(value)
    return np.dtype(view.dtype), tuple(view.shape)


def dlpack_view(value: Any) -> Any:
    """Return cuda.core's view of a device array that supports only DLPack.

    Its producer orders it before what follows on the default stream.
    """
    from cuda.core.utils import StridedMemoryView  # pyright: ignore[reportMissingImports]

    return StridedMemoryView.from_dlpack(value, stream_ptr=_LEGACY_STREAM)
