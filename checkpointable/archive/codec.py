"""A checkpoint object to the bytes of a file, and back, verified on the way.

Here the parts meet: schema, tree and container. Nothing here knows where the bytes are kept.
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
"""How a checkpoint gets its arrays."""

Into: TypeAlias = Mapping[str, Any] | None
"""Arrays of a kernel, by the names that they have in a file."""


def encode(
    checkpoint: object,
    *,
    step: int = 0,
    kernel: KernelMetadata | None = None,
    cls: Any = None,
    key: bytes | None = None,
    base: Base | None = None,
) -> Packed:
    """Lay a checkpoint out as a file; `Packed.size` and `Packed.chunks()` are what to write.

    `cls` is needed only for a generic class: `Box[int]`. With a key, of at least 16 bytes, the
    file will be signed; with a base it will hold only what has changed since, if that has the same
    arrays. Raises `UnsupportedType` for a class that cannot be stored, `InvalidCheckpoint` for a
    value that is not of its field's type.
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
    """Who writes: the versions of this package and of the one that the checkpoint's class is of."""
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
    """Make an object of class `cls` of a checkpoint; every byte that is read is verified.

    One of an older version is migrated; an array that its migrations drop is not read. If all of
    the file's arrays fit those of `into`, they are read into these where they are on the host.
    Where they are on a device, and a `Staging` in use has room there, they are read to it, verified
    there, and are `LazyArray`s of its memory. With "lazy" the object holds `LazyArray`s of the
    file, with "shards" in its `Shard`s alone, with "mmap" views of it, which are not verified;
    unless it is of an older version.

    Raises `CorruptCheckpoint` naming the array and block that is damaged, and `SchemaMismatch`,
    before any array is read, if the file is of another class, a newer version, or an older one
    that no migration leads from.
    """
    header = checkpoint.header
    stored = schema_from_json(header.meta.schema)
    if not is_same(stored, schema_of(cls)):
        lazy = {name: lazy_array(checkpoint, name) for name in header.arrays}
        return from_older(header.meta.tree, lazy, stored, cls, newer=_requirement(header, cls))
    due = {name: (placed.dtype, placed.shape) for name, placed in header.arrays.items()}
    places = {} if into is None else in_place(into, due)
    found: dict[str, Any] = _on_devices(checkpoint, into) if into and arrays == "read" else {}
    shards = {f"{field}.local" for field in shard_fields(cls)} if arrays == "shards" else set()
    for name in [name for name in header.arrays if name not in found]:
        if arrays == "lazy" or name in shards:
            found[name] = lazy_array(checkpoint, name)
        elif arrays == "mmap":
            found[name] = mapped_array(checkpoint, name)
        else:
            found[name] = read_array(checkpoint, name, places.get(name))
    return from_tree(header.meta.tree, found, cls)


def _on_devices(checkpoint: Opened, into: Mapping[str, Any]) -> dict[str, Any]:
    """Read the arrays that belong on a device to it, as far as there is room."""
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

    found = snapshot.allocate_like(live, staging)
    read_to_devices(checkpoint, found)
    return dict(found)


def _requirement(header: Header, cls: Any) -> str:
    """What has to be installed to read the file, as pip would have it; empty if it is not clear.

    A file may ask for a version of the package that the class is of, and for no other package.
    """
    writer = header.meta.writer
    own, version = _package(cls), container.version_text(writer.get("version"))
    return f"{own}>={version}" if version and writer.get("package") == own else ""
