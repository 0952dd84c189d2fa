"""A checkpoint object to the bytes of a file, and back: schema, tree and container together.

This module does not know where the bytes are kept.
"""

import os
import sys
import typing
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal, TypeAlias, TypeVar

import attrs

from checkpointable.arrays import in_place, is_on_device, staging_in_use
from checkpointable.arrays import layout as layout_of
from checkpointable.format import (
    Base,
    Header,
    Opened,
    Packed,
    container,
    digests,
    layout,
    lazy_array,
    mapped_array,
    read_array,
    read_to_devices,
)
from checkpointable.protocol import KernelMetadata
from checkpointable.schema import is_same, schema_from_json, schema_of, shard_fields
from checkpointable.tree import from_older, from_tree, to_tree

C = TypeVar("C")

Arrays: TypeAlias = Literal["read", "lazy", "mmap", "shards"]
"""How a checkpoint gets its arrays: see `decode`."""

Into: TypeAlias = Mapping[str, Any] | None
"""Arrays of a kernel, by their names in a file."""


def encode(
    checkpoint: object,
    *,
    step: int = 0,
    kernel: KernelMetadata | None = None,
    cls: Any = None,
    key: bytes | None = None,
    base: Base | None = None,
) -> Packed:
    """Lay out a checkpoint as a file; `Packed.size` and `Packed.chunks()` are what to write.

    `cls` is needed only for a generic class: `Box[int]`. With a key of at least 16 bytes the file
    will be signed; with a base that has the same arrays it will be a delta. Raises
    `UnsupportedType` for a class that cannot be stored, `InvalidCheckpoint` for a value that is not
    of its field's type.
    """
    digests.check_key(key)
    cls = cls or type(checkpoint)
    meta, arrays = describe(checkpoint, cls, step=step, kernel=kernel)
    return container.pack(meta, arrays, key, base)


def describe(
    checkpoint: object, cls: Any, *, step: int, kernel: KernelMetadata | None
) -> tuple[layout.Meta, dict[str, Any]]:
    """The metadata of a checkpoint of class `cls`, with its tree; and its arrays, as they are.

    Raises as `encode` does.
    """
    schema = _schema(cls)
    tree, arrays = to_tree(checkpoint, cls)
    meta = layout.Meta(
        schema=schema,
        kernel={"id": kernel.id, "version": kernel.version} if kernel else {},
        step=step,
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        nonce=os.urandom(16).hex(),
        writer=_writer(_package(cls)),
        tree=tree,
    )
    return meta, arrays


@cache
def _schema(cls: Any) -> dict[str, Any]:
    return attrs.asdict(schema_of(cls))


def _package(cls: Any) -> str:
    module: str = (typing.get_origin(cls) or cls).__module__
    return module.partition(".")[0]


@cache
def _writer(package: str) -> dict[str, str]:
    """The versions of this package and of the package of the checkpoint's class."""
    own = {"checkpointable": _version("checkpointable")}
    return own | {"package": package, "version": _version(package)}


def _version(package: str) -> str:
    from importlib import metadata  # here, since it takes a while

    try:
        return metadata.version(package)
    except (metadata.PackageNotFoundError, ValueError):  # a program, or a package of another name
        return str(getattr(sys.modules.get(package), "__version__", ""))


def decode(
    checkpoint: Opened,
    cls: type[C],
    *,
    into: Into = None,
    arrays: Arrays = "read",
) -> C:
    """Make an object of class `cls` from a checkpoint; every byte that is read is verified.

    A checkpoint of an older version is migrated; an array that its migrations drop is not read. If
    all arrays of the file fit those of `into`, arrays on the host are read into these. Arrays on a
    device are read to memory of the `Staging` in use, if that has room, verified there, and are
    `LazyArray`s of it. With "lazy" the object holds `LazyArray`s of the file, with "shards" only
    its `Shard`s do, and with "mmap" it holds views of the file, which are not verified; all of that
    only if it is of the current version.

    Raises `CorruptCheckpoint` that names the damaged array and block, and `SchemaMismatch`, before
    any array is read, if the file is of another class, of a newer version, or of an older one from
    which no migration leads.
    """
    header = checkpoint.header
    stored = schema_from_json(header.meta.schema)
    if not is_same(stored, schema_of(cls)):
        lazy = {name: lazy_array(checkpoint, name) for name in header.arrays}
        return from_older(header.meta.tree, lazy, stored, cls, newer=_requirement(header, cls))
    due = {name: (placed.dtype, placed.shape) for name, placed in header.arrays.items()}
    places = {} if into is None else in_place(into, due)
    loaded: dict[str, Any] = _on_devices(checkpoint, into) if into and arrays == "read" else {}
    shards = {f"{field}.local" for field in shard_fields(cls)} if arrays == "shards" else set()
    for name in [name for name in header.arrays if name not in loaded]:
        if arrays == "lazy" or name in shards:
            loaded[name] = lazy_array(checkpoint, name)
        elif arrays == "mmap":
            loaded[name] = mapped_array(checkpoint, name)
        else:
            loaded[name] = read_array(checkpoint, name, places.get(name))
    return from_tree(header.meta.tree, loaded, cls)


def _on_devices(checkpoint: Opened, into: Mapping[str, Any]) -> dict[str, Any]:
    """Read the arrays that belong on a device to it, if there is room."""
    staging, described = staging_in_use(), checkpoint.header.arrays
    meta = checkpoint.header.meta
    if staging is None or meta.signed or meta.sharded:
        return {}
    live = {
        name: array
        for name, array in into.items()
        if is_on_device(array)
        and name in described
        and layout_of(array) == (described[name].dtype, described[name].shape)
        and described[name].nbytes
    }
    if not live:
        return {}
    from checkpointable.arrays.cuda import snapshot  # which imports Numba

    loaded = snapshot.allocate_like(live, staging)
    read_to_devices(checkpoint, loaded)
    return dict(loaded)


def _requirement(header: Header, cls: Any) -> str:
    """What to install to read the file, as a pip requirement; empty if that is not clear.

    A file may require a version of the package of the class, and of no other package.
    """
    writer = header.meta.writer
    own, version = _package(cls), container.version_text(writer.get("version"))
    return f"{own}>={version}" if version and writer.get("package") == own else ""
