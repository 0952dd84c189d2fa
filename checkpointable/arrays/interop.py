"""Reading and overwriting arrays of every kind in the same way.

Nothing here imports Numba unless an array is already on a device.
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
    """Return the array in host memory: the array itself if it is there already, else a copy."""
    return owned(value) if is_on_device(value) else host_view(value)


def owned(value: Any) -> HostArray:
    """Return a copy in host memory, in C order, that shares nothing with the original.

    Its memory comes from the `Staging` in use, if there is one.

    >>> a = np.arange(3)
    >>> b = owned(a); a[0] = 7; b
    array([0, 1, 2])
    """
    if is_on_device(value):
        from checkpointable.arrays.cuda import snapshot

        copies, wait = snapshot.begin({"": value}, None, None)
        wait()
        on_host: HostArray = copies[""]
        return on_host
    view = host_view(value)
    copy = empty(view.shape, view.dtype)
    if view.flags.c_contiguous and view.itemsize:  # as bytes, the padding of records too
        fill(copy, view)
    else:
        copy[...] = view
    return copy


def in_place(arrays: Mapping[str, Any], stored: Mapping[str, Layout]) -> dict[str, HostArray]:
    """Those of `arrays` that stored ones of these layouts can be read straight into.

    They are in host memory, in C order and writable. None is returned unless every stored array has
    its counterpart, of the same layout.

    >>> grid = np.zeros((2, 3))
    >>> [*in_place({"grid": grid}, {"grid": (np.dtype(float), (2, 3))})]
    ['grid']
    >>> [*in_place({"grid": grid}, {"grid": (np.dtype(float), (3, 2))})]
    []
    """
    if any(name not in arrays or layout(arrays[name]) != spec for name, spec in stored.items()):
        return {}
    on_host = {name: arrays[name] for name in stored if isinstance(arrays[name], np.ndarray)}
    return {n: a for n, a in on_host.items() if a.flags.c_contiguous and a.flags.writeable}


def is_writable(value: Any) -> bool:
    """Whether `overwrite` can write into the array."""
    if isinstance(value, np.ndarray):
        return bool(value.flags.writeable)
    interface = cuda_interface(value)
    if interface is not None:
        return not interface["data"][1]
    return is_on_device(value) or bool(host_view(value).flags.writeable)


def replaced_like(value: Any, source: Any) -> Any:
    """Return a new array of the kind and placement of an immutable one, with the source's values.

    Only JAX's are known; None for any other.
    """
    if type(value).__module__.partition(".")[0] not in ("jax", "jaxlib"):
        return None
    import jax  # pyright: ignore[reportMissingImports]

    return jax.device_put(owned(source), value.sharding)


def overwrite(target: Any, source: HostArray) -> None:
    """Copy `source` into the host memory of `target`, which has the same dtype and shape."""
    if source is not target:  # it is if it was read in place
        host_view(target)[...] = source
