"""A checkpoint open for reading, with the files that it continues: nothing of them is believed.

Nothing here knows what the arrays mean, or where the files are kept.
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
from checkpointable.stores import Reader

Siblings: TypeAlias = Callable[[str], Reader]
"""Opens the file of another name beside this one; it stays open as long as this one."""

_TOGETHER = "load it from where they are"

_NONE: Numbers = np.zeros(0, np.int64)


def _no_ranks(source: int) -> "Opened":
    raise CorruptCheckpoint("it lies in the files of ranks, which are not at hand", hint=_TOGETHER)


@frozen(eq=False)
class Opened:
    """A checkpoint open for reading: `files` are itself and its parents, `name` is for errors.

    Of each block, `source` and `offsets` say in which file it lies, and where; they are empty if
    all lie in the first. Of a sharded one the files of ranks are opened when they are needed, by
    `rank_file`, which gives that of the parent of a number.
    """

    header: Header
    table: bytes
    seal: bytes
    files: tuple[Reader, ...]
    source: Numbers = _NONE
    offsets: Numbers = _NONE
    name: str = ""
    rank_file: "Callable[[int], Opened]" = _no_ranks

    def as_base(self) -> Base:
        """What a delta can be made against."""
        return Base(self.name, self.header, self.table, self.seal)


def read_header(reader: Reader) -> Header:
    """Read what a file says of itself: its header only, however large the file."""
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
    """Read header and digest table, and check the seal over both; none of the arrays' data.

    The files that it continues are opened by `siblings`, and their seals are checked as well. If
    `step` is given, as a name in a store does, it has to be of that step; with a key all have to be
    signed with it. Raises `CorruptCheckpoint`.
    """
    sealed = read_sealed(reader, name=name, step=step, key=key)
    if not sealed.header.parents:
        return sealed
    if siblings is None:
        what = f"it continues {len(sealed.header.parents)} other files, which are not at hand"
        raise CorruptCheckpoint(what, hint=_TOGETHER)
    if sealed.header.meta.sharded:
        return evolve(sealed, rank_file=_RankFiles(sealed.header, siblings, key))
    files = [reader]
    headers = [sealed.header]
    for parent in sealed.header.parents:
        with _about(parent):
            files.append(siblings(parent.name))
            found = read_sealed(files[-1], key=key)
        _check_parent(parent, found)
        headers.append(found.header)
    source, offsets = located(headers)
    return evolve(sealed, files=tuple(files), source=source, offsets=offsets)


@contextmanager
def _about(parent: Parent) -> Iterator[None]:
    """Say of an error that it is about what another file needs."""
    try:
        yield
    except (NoCheckpoint, InvalidCheckpoint) as error:
        what = f"{parent.name!r}, which it continues, cannot be read: {error.what}"
        raise CorruptCheckpoint(what, hint=layout.USE_OLDER) from error


def _check_parent(parent: Parent, found: Opened) -> None:
    if found.seal.hex() != parent.seal:
        what = f"{parent.name!r}, which it continues, is another file than it was"
        raise CorruptCheckpoint(what, hint=layout.USE_OLDER)


@define(eq=False)
class _RankFiles:
    """Opens the files of ranks, each once; for many threads."""

    head: Header
    siblings: Siblings
    key: bytes | None
    found: dict[int, Opened] = field(factory=dict)
    guard: threading.Lock = field(factory=threading.Lock)

    @cached_property
    def due(self) -> dict[int, list[tuple[StoredArray, Part]]]:
        """What each file has to have, by its number."""
        due: dict[int, list[tuple[StoredArray, Part]]] = {}
        for array in self.head.arrays.values():
            for part in array.parts:
                due.setdefault(part.source, []).append((array, part))
        return due

    def __call__(self, source: int) -> Opened:
        with self.guard:
            if source not in self.found:
                parent = self.head.parents[source - 1]
                with _about(parent):
                    reader = self.siblings(parent.name)
                    made = opened(reader, self.siblings, name=parent.name, key=self.key)
                _check_parent(parent, made)
                self._check_parts(source, made)
                self.found[source] = made
            return self.found[source]

    def _check_parts(self, source: int, found: Opened) -> None:
        """Raise `CorruptCheckpoint` unless the file has the parts that the head says."""
        for array, part in self.due.get(source, []):
            own = found.header.arrays.get(array.name)
            if own is None or (own.dtype, own.shape) != (array.dtype, part.box[1]):
                what = f"it has not the shard of array {array.name!r} that the head says"
                raise CorruptCheckpoint(what, where=found.name, hint=layout.USE_OLDER)


def read_sealed(
    reader: Reader, *, name: str = "", step: int | None = None, key: bytes | None = None
) -> Opened:
    """The same, but what lies in the files that it continues is out of reach."""
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
        said = read_bytes(reader, header.signature_offset, reader.size - header.signature_offset)
        digests.check_signature(key, header, table, seal, said)
    if step is not None and header.meta.step != step:
        what = f"it is of step {header.meta.step}, and its name says {step}"
        raise CorruptCheckpoint(what, hint="rename nothing in a store; use an older checkpoint")
    return Opened(header, table, seal, (reader,), name=name)


def _read_seal(reader: Reader, prefix: bytes, begin: int, offset: int) -> tuple[bytes, bytes]:
    table = read_bytes(reader, begin, offset - begin)
    seal = read_bytes(reader, offset, layout.SEAL_SIZE)
    digests.check_seal(prefix, table, seal)
    return table, seal


def read_bytes(reader: Reader, offset: int, size: int) -> bytes:
    """So many bytes of a file, from one of them on."""
    buffer = bytearray(size)
    reader.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def raw_bytes(file: Opened, key: bytes | None = None) -> Iterator[Bytes]:
    """Yield all of an open file, by blocks of at most 1 MiB; each is valid until the next.

    Of a delta, what lies in itself. Raises `CorruptCheckpoint` where it is damaged; without the key
    of a signed file, its signature is given as it is.
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
            digests.check_block(placed, index, block, file.table, header.meta.signed)
            yield block
            offset += len(block)
    if offset != header.digests_offset:
        raise CorruptCheckpoint("its blocks do not fill it", hint=layout.USE_OLDER)
    yield file.table
    yield file.seal
    if header.meta.signed:
        said = read_bytes(
            reader, header.signature_offset, header.file_size - header.signature_offset
        )
        if key is not None:
            digests.check_signature(key, header, file.table, file.seal, said)
        yield said
