"""A checkpoint object to the bytes of a file, and back, verified on the way.

Here the parts meet: schema, tree and container. Nothing here knows where the bytes are kept.
"""

import os
import sys
import typing
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache, partial
from operator import itemgetter
from typing import Any, TypeVar

import attrs
import numpy as np

from checkpointable import container, digests, layout
from checkpointable.container import Packed
from checkpointable.device.arrays import HostArray, in_place, on_host
from checkpointable.errors import CheckpointableError, CorruptCheckpoint, InvalidCheckpoint
from checkpointable.layout import Header, Placed
from checkpointable.migrations import LazyArray, from_older
from checkpointable.protocol import KernelMetadata
from checkpointable.schema import is_same, schema_from_json, schema_of
from checkpointable.store import Reader
from checkpointable.tree import from_tree, to_tree

C = TypeVar("C")

_THREADS = min(4, os.cpu_count() or 1)
_LEAST_BLOCKS = 4  # for a thread of its own


def encode(
    checkpoint: object,
    *,
    step: int = 0,
    kernel: KernelMetadata | None = None,
    cls: Any = None,
    key: bytes | None = None,
) -> Packed:
    """Lay a checkpoint out as a file; `Packed.size` and `Packed.chunks()` are what to write.

    `cls` is needed only for a generic class: `Box[int]`. With a key, of at least 16 bytes, the
    file will be signed. Raises `UnsupportedType` for a class
    that cannot be stored, `InvalidCheckpoint` for a value that is not of its field's type.
    """
    digests.check_key(key)
    cls = cls or type(checkpoint)
    schema = schema_of(cls)
    tree, arrays = to_tree(checkpoint, cls)
    meta = layout.Meta(
        schema=attrs.asdict(schema),
        kernel={"id": kernel.id, "version": kernel.version} if kernel else {},
        step=step,
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        nonce=os.urandom(16).hex(),
        writer=_writer(_package(cls)),
        tree=tree,
    )
    return container.pack(meta, {name: on_host(array) for name, array in arrays.items()}, key)


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


def read_header(reader: Reader) -> Header:
    """Read what a file says of itself: its header only, however large the file."""
    return container.parse(_read_prefix(reader), reader.size)


def _read_prefix(reader: Reader) -> bytes:
    start = _read(reader, 0, min(8, reader.size))
    return _read(reader, 0, container.header_size(start, reader.size))


def read_sealed(
    reader: Reader, *, step: int | None = None, key: bytes | None = None
) -> tuple[Header, bytes]:
    """Read header and digest table, and check the seal over both; none of the arrays' data.

    If `step` is given, as a name in a store does, it has to be of that step; with a key it has to
    be signed with it. Raises `CorruptCheckpoint`.
    """
    digests.check_key(key)
    prefix = _read_prefix(reader)
    try:
        header = container.parse(prefix, reader.size)
    except CorruptCheckpoint:
        raise
    except InvalidCheckpoint:  # or damage that looks like it
        _read_seal(reader, prefix, *container.find_seal(prefix, reader.size))
        raise
    table, seal = _read_seal(reader, prefix, header.digests_offset, header.seal_offset)
    if key is not None:
        said = _read(reader, header.signature_offset, reader.size - header.signature_offset)
        digests.check_signature(key, header, table, seal, said)
    if step is not None and header.meta.step != step:
        what = f"it is of step {header.meta.step}, and its name says {step}"
        raise CorruptCheckpoint(what, hint="rename nothing in a store; use an older checkpoint")
    return header, table


def _read_seal(reader: Reader, prefix: bytes, begin: int, offset: int) -> tuple[bytes, bytes]:
    table = _read(reader, begin, offset - begin)
    seal = _read(reader, offset, layout.SEAL_SIZE)
    digests.check_seal(prefix, table, seal)
    return table, seal


def decode(
    reader: Reader,
    cls: type[C],
    *,
    step: int | None = None,
    key: bytes | None = None,
    into: Mapping[str, Any] | None = None,
) -> C:
    """Read a checkpoint of class `cls`; every byte of it is verified.

    One of an older version is migrated; an array that its migrations drop is not read. `step` and
    `key` are as for `read_sealed`. `into` has arrays by name: if all those of the file fit, they
    are read into these, where that can be done in place.

    Raises `CorruptCheckpoint` naming the array and block that is damaged, and `SchemaMismatch`,
    before any array is read, if the file is of another class, a newer version, or an older one
    that no migration leads from.
    """
    header, table = read_sealed(reader, step=step, key=key)
    stored = schema_from_json(header.meta.schema)
    read = partial(read_array, reader, header, table)
    if is_same(stored, schema_of(cls)):
        due = {name: (placed.dtype, placed.shape) for name, placed in header.arrays.items()}
        places = {} if into is None else in_place(into, due)
        arrays = {name: read(name, into=places.get(name)) for name in header.arrays}
        return from_tree(header.meta.tree, arrays, cls)
    lazy = {n: LazyArray(a.dtype, a.shape, partial(read, n)) for n, a in header.arrays.items()}
    return from_older(header.meta.tree, lazy, stored, cls, newer=_requirement(header, cls))


def _requirement(header: Header, cls: Any) -> str:
    """What has to be installed to read the file, as pip would have it; empty if it is not clear.

    A file may ask for a version of the package that the class is of, and for no other package.
    """
    writer = header.meta.writer
    own, version = _package(cls), container.version_text(writer.get("version"))
    return f"{own}>={version}" if version and writer.get("package") == own else ""


def read_array(
    reader: Reader, header: Header, table: bytes, name: str, into: HostArray | None = None
) -> HostArray:
    """Read one array, by some threads if it is large; each block is verified while it is warm.

    `into` is what it is read into: an array in C order, of the same dtype and shape.
    """
    placed = header.arrays[name]
    # np.empty would make S1 of S0.
    array: HostArray = np.ndarray(placed.shape, placed.dtype) if into is None else into
    if not placed.blocks:
        return array
    threads = max(1, min(_THREADS, placed.blocks // _LEAST_BLOCKS))
    shares = [range(first, placed.blocks, threads) for first in range(threads)]
    data = array.reshape(-1).view(np.uint8).data
    read = partial(_read_blocks, reader, header, table, placed, data)
    if threads == 1:
        found = [read(shares[0])]
    else:
        from concurrent.futures import ThreadPoolExecutor  # here, since it takes a while

        with ThreadPoolExecutor(threads, "checkpointable-read") as pool:
            found = [*pool.map(read, shares)]
    if errors := [failed for failed in found if failed is not None]:
        raise min(errors, key=itemgetter(0))[1]  # of the first block that is damaged
    return array


def _read_blocks(
    reader: Reader,
    header: Header,
    table: bytes,
    placed: Placed,
    data: memoryview,
    indices: Iterable[int],
) -> tuple[int, CheckpointableError] | None:
    """Read these blocks into their places, up to the first that fails; say which, and how."""
    for index in indices:
        try:
            read_block(reader, header, table, placed, index, data[index * layout.BLOCK :])
        except CheckpointableError as error:
            return index, error
    return None


def read_block(
    reader: Reader, header: Header, table: bytes, placed: Placed, index: int, buffer: memoryview
) -> memoryview:
    """Read one block of an array into the buffer's beginning, verify it, and return that part."""
    offset, size = placed.block(index)
    block = buffer[:size]
    reader.read_into(offset, block)
    digests.check_block(placed, index, block, table, signed=header.meta.signed)
    return block


def verify(reader: Reader, *, step: int | None = None, key: bytes | None = None) -> Header:
    """Read a whole file and check seal and digests, in memory for a single block.

    `step` and `key` are as for `read_sealed`.
    """
    header, table = read_sealed(reader, step=step, key=key)
    buffer = memoryview(bytearray(layout.BLOCK))
    for placed in header.arrays.values():
        for index in range(placed.blocks):
            read_block(reader, header, table, placed, index, buffer)
    return header


def _read(reader: Reader, offset: int, size: int) -> bytes:
    buffer = bytearray(size)
    reader.read_into(offset, memoryview(buffer))
    return bytes(buffer)
