"""One face for NumPy arrays, Numba's device arrays, lazy ones, and what speaks CAI or DLPack.

CAI is the `__cuda_array_interface__`, version 3, and DLPack the exchange protocol of the Python
array API standard. Nothing here imports Numba unless an array is already on a device.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from checkpointable.arrays.kinds import (
    HostArray,
    Layout,
    cuda_interface,
    host_view,
    is_on_device,
    layout,
)
from checkpointable.arrays.staging import empty, fill


def on_host(value: Any) -> HostArray:
    """Return the array in host memory: itself if it is there already, else a copy."""
    return owned(value) if is_on_device(value) else host_view(value)


def owned(value: Any) -> HostArray:
    """Return a copy in host memory, C order, that shares nothing with the original.

    Its memory is of the `Staging` in use, if one is.

    >>> a = np.arange(3)
    >>> b = owned(a); a[0] = 7; b
    array([0, 1, 2])
    """
    if is_on_device(value):
        from checkpointable.arrays.cuda import snapshot
        from checkpointable.arrays.cuda.memory import device_array

        copies, wait = snapshot.begin({"": device_array(value)}, None, None)
        wait()
        copied: HostArray = copies[""]
        return copied
    view = host_view(value)
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
    interface = cuda_interface(value)
    if interface is not None:
        return not interface["data"][1]
    return is_on_device(value) or bool(host_view(value).flags.writeable)


def replaced_like(value: Any, source: Any) -> Any:
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
        host_view(target)[...] = source
