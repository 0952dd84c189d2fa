"""Opening a checkpoint and its parents; nothing in a file is trusted before it is checked.

This module knows neither what the arrays mean nor where the files are kept.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TypeAlias

import numpy as np
from attrs import define, evolve, field, frozen

from checkpointable.errors import CorruptCheckpoint, InvalidCheckpoint, NoCheckpoint
from checkpointable.format import container, digests, layout
from checkpointable.format.extents import Base, Numbers, located
from checkpointable.format.layout import Bytes, Header, Parent, Part, StoredArray
from checkpointable.stores import Reader, Remote

Siblings: TypeAlias = Callable[[str], Reader]
"""Opens a sibling file by name; it stays open as long as this one."""

_TOGETHER = "load it from the store that has them"

_NONE: Numbers = np.zeros(0, np.int64)


def _no_ranks(source: int) -> "Opened":
    raise CorruptCheckpoint(
        "its data is in the files of ranks, which are not accessible", hint=_TOGETHER
    )


@frozen(eq=False)
class Opened:
    """A checkpoint open for reading: `files` are its own and its parents', `name` is for errors.

    `source` and `offsets` have for each block the number of its file and the offset there; they are
    empty if all blocks are in the first file. The rank files of a sharded checkpoint are opened
    when needed, by `rank_file`, which takes the number of a parent.
    """

    header: Header
    table: bytes
    seal: bytes
    files: tuple[Reader, ...]
    source: Numbers = _NONE
    offsets: Numbers = _NONE
    name: str = ""
    rank_file: "Callable[[int], Opened]" = _no_ranks

    @cached_property
    def request_size(self) -> int:
        """The bytes worth requesting at once if a file is remote; 0 if none is."""
        return max(file.part if isinstance(file, Remote) else 0 for file in self.files)

    def as_base(self) -> Base:
        """This checkpoint as the base of a delta."""
        return Base(self.name, self.header, self.table, self.seal)


def read_header(reader: Reader) -> Header:
    """Read the header of a file, and nothing else."""
    return container.parse(_read_prefix(reader), reader.size)


def _read_prefix(reader: Reader) -> bytes:
    start = read_bytes(reader, 0, min(8, reader.size))
    return read_bytes(reader, 0, container.header_size(start, reader.size))


def opened(
    reader: Reader,
    siblings: Siblings | None = None,
    *,
    name: str = "",
    step: int | None = None,
    key: bytes | None = None,
) -> Opened:
    """Read the header and the digest table, and check the seal over both; no array is read.

    `siblings` opens the parents, whose seals are checked as well. If `step` is given, as by a name
    in a store, the checkpoint must be of that step; with a key all files must be signed with it.
    Raises `CorruptCheckpoint`.
    """
    sealed = read_sealed(reader, name=name, step=step, key=key)
    if not sealed.header.parents:
        return sealed
    if siblings is None:
        what = f"it needs {len(sealed.header.parents)} other files, which are not accessible"
        raise CorruptCheckpoint(what, hint=_TOGETHER)
    if sealed.header.meta.sharded:
        return evolve(sealed, rank_file=_RankFiles(sealed.header, siblings, key))
    files = [reader]
    headers = [sealed.header]
    for parent in sealed.header.parents:
        with _about(parent):
            files.append(siblings(parent.name))
            opened_parent = read_sealed(files[-1], key=key)
        _check_parent(parent, opened_parent)
        headers.append(opened_parent.header)
    source, offsets = located(headers)
    return evolve(sealed, files=tuple(files), source=source, offsets=offsets)


@contextmanager
def _about(parent: Parent) -> Iterator[None]:
    """Turn an error about a parent into one about the file that needs it."""
    try:
        yield
    except (NoCheckpoint, InvalidCheckpoint) as error:
        what = f"its parent {parent.name!r} cannot be read: {error.what}"
        raise CorruptCheckpoint(what, hint=layout.USE_OLDER) from error


def _check_parent(parent: Parent, file: Opened) -> None:
    if file.seal.hex() != parent.seal:
        what = f"its parent {parent.name!r} is not the file that this delta was made against"
        raise CorruptCheckpoint(what, hint=layout.USE_OLDER)


@define(eq=False)
class _RankFiles:
    """Opens the rank files of a sharded checkpoint, each once; safe for threads."""

    manifest: Header
    siblings: Siblings
    key: bytes | None
    files: dict[int, Opened] = field(factory=dict)
    guard: threading.Lock = field(factory=threading.Lock)

    @cached_property
    def due(self) -> dict[int, list[tuple[StoredArray, Part]]]:
        """The parts that each file must have, by its number."""
        due: dict[int, list[tuple[StoredArray, Part]]] = {}
        for array in self.manifest.arrays.values():
            for part in array.parts:
                due.setdefault(part.source, []).append((array, part))
        return due

    def __call__(self, source: int) -> Opened:
        with self.guard:
            if source not in self.files:
                parent = self.manifest.parents[source - 1]
                with _about(parent):
                    reader = self.siblings(parent.name)
                    file = opened(reader, self.siblings, name=parent.name, key=self.key)
                _check_parent(parent, file)
                self._check_parts(source, file)
                self.files[source] = file
            return self.files[source]

    def _check_parts(self, source: int, file: Opened) -> None:
        """Raise `CorruptCheckpoint` unless the file has the parts that the manifest lists."""
        for array, part in self.due.get(source, []):
            shard = file.header.arrays.get(array.name)
            if shard is None or (shard.dtype, shard.shape) != (array.dtype, part.box[1]):
                what = f"it lacks the shard of array {array.name!r} that the manifest lists"
                raise CorruptCheckpoint(what, where=file.name, hint=layout.USE_OLDER)


def read_sealed(
    reader: Reader, *, name: str = "", step: int | None = None, key: bytes | None = None
) -> Opened:
    """Open a file as `opened` does, but without its parents: only its own blocks can be read."""
    digests.check_key(key)
    prefix = _read_prefix(reader)
    try:
        header = container.parse(prefix, reader.size)
    except CorruptCheckpoint:
        raise
    except InvalidCheckpoint:  # or damage that looks like another version
        _read_seal(reader, prefix, *container.find_seal(prefix, reader.size))
        raise
    table, seal = _read_seal(reader, prefix, header.digests_offset, header.seal_offset)
    if key is not None:
        begin = header.signature_offset
        signature = read_bytes(reader, begin, reader.size - begin)
        digests.check_signature(key, header, table, seal, signature)
    if step is not None and header.meta.step != step:
        what = f"it is of step {header.meta.step}, but its name says {step}"
        raise CorruptCheckpoint(what, hint="rename nothing in a store; use an older checkpoint")
    return Opened(header, table, seal, (reader,), name=name)


def _read_seal(reader: Reader, prefix: bytes, begin: int, offset: int) -> tuple[bytes, bytes]:
    table = read_bytes(reader, begin, offset - begin)
    seal = read_bytes(reader, offset, layout.SEAL_SIZE)
    digests.check_seal(prefix, table, seal)
    return table, seal


def read_bytes(reader: Reader, offset: int, size: int) -> bytes:
    """Read `size` bytes of a file from an offset."""
    buffer = bytearray(size)
    reader.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def raw_bytes(file: Opened, key: bytes | None = None) -> Iterator[Bytes]:
    """Yield the bytes of an open file, in blocks of at most 1 MiB, each valid until the next.

    Of a delta these are its own bytes, without its parents'. Raises `CorruptCheckpoint` where the
    file is damaged; without the key of a signed file, its signature is not checked.
    """
    reader, header = file.files[0], file.header
    prefix = read_bytes(reader, 0, header.data_offset)
    digests.check_seal(prefix, file.table, file.seal)
    yield prefix
    offset, buffer = header.data_offset, memoryview(bytearray(layout.BLOCK))
    for placed in header.arrays.values():
        for index in placed.own():
            block = buffer[: placed.size(index)]
            reader.read_into(offset, block)
            digests.check_block(placed, index, block, file.table, signed=header.meta.signed)
            yield block
            offset += len(block)
    if offset != header.digests_offset:
        raise CorruptCheckpoint("its blocks do not fill it", hint=layout.USE_OLDER)
    yield file.table
    yield file.seal
    if header.meta.signed:
        begin = header.signature_offset
        signature = read_bytes(reader, begin, header.file_size - begin)
        if key is not None:
            digests.check_signature(key, header, file.table, file.seal, signature)
        yield signature
