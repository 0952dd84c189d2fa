"""A checkpoint open for reading, with the files that it continues; every byte is verified.

Nothing here knows what the arrays mean, or where the files are kept.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import TypeAlias

import numpy as np
from attrs import evolve, frozen

from checkpointable import container, digests, layout
from checkpointable.blocks import device_digests
from checkpointable.delta import Base, Numbers, located
from checkpointable.device.arrays import HostArray
from checkpointable.device.lazy import LazyArray
from checkpointable.errors import (
    CheckpointableError,
    CorruptCheckpoint,
    InvalidCheckpoint,
    NoCheckpoint,
    errors_at,
)
from checkpointable.layout import Header, Placed
from checkpointable.store import Reader
from checkpointable.stores.files import FileReader
from checkpointable.threads import THREADS, by_threads

Siblings: TypeAlias = Callable[[str], Reader]
"""Opens the file of another name beside this one; it stays open as long as this one."""

_LEAST_BLOCKS = 4  # for a thread of its own
_REQUESTS = 8  # at once, to a store that is far away
_NONE: Numbers = np.zeros(0, np.int64)


@frozen(eq=False)
class Opened:
    """A checkpoint open for reading: `files` are itself and its parents, `name` is for errors.

    Of each block, `source` and `offsets` say in which file it lies, and where; they are empty if
    all lie in the first.
    """

    header: Header
    table: bytes
    seal: bytes
    files: tuple[Reader, ...]
    source: Numbers = _NONE
    offsets: Numbers = _NONE
    name: str = ""

    def as_base(self) -> Base:
        """What a delta can be made against."""
        return Base(self.name, self.header, self.table, self.seal)


def read_header(reader: Reader) -> Header:
    """Read what a file says of itself: its header only, however large the file."""
    return container.parse(_read_prefix(reader), reader.size)


def _read_prefix(reader: Reader) -> bytes:
    start = _read(reader, 0, min(8, reader.size))
    return _read(reader, 0, container.header_size(start, reader.size))


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
        raise CorruptCheckpoint(what, hint="load it from where they are")
    files = [reader]
    headers = [sealed.header]
    for parent in sealed.header.parents:
        try:
            files.append(siblings(parent.name))
            found = read_sealed(files[-1], key=key)
        except (NoCheckpoint, InvalidCheckpoint) as error:
            what = f"{parent.name!r}, which it continues, cannot be read: {error.what}"
            raise CorruptCheckpoint(what, hint=layout.OLDER) from error
        if found.seal.hex() != parent.seal:
            what = f"{parent.name!r}, which it continues, is another file than it was"
            raise CorruptCheckpoint(what, hint=layout.OLDER)
        headers.append(found.header)
    source, offsets = located(headers)
    return evolve(sealed, files=tuple(files), source=source, offsets=offsets)


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
        said = _read(reader, header.signature_offset, reader.size - header.signature_offset)
        digests.check_signature(key, header, table, seal, said)
    if step is not None and header.meta.step != step:
        what = f"it is of step {header.meta.step}, and its name says {step}"
        raise CorruptCheckpoint(what, hint="rename nothing in a store; use an older checkpoint")
    return Opened(header, table, seal, (reader,), name=name)


def _read_seal(reader: Reader, prefix: bytes, begin: int, offset: int) -> tuple[bytes, bytes]:
    table = _read(reader, begin, offset - begin)
    seal = _read(reader, offset, layout.SEAL_SIZE)
    digests.check_seal(prefix, table, seal)
    return table, seal


def read_array(checkpoint: Opened, name: str, into: HostArray | None = None) -> HostArray:
    """Read one array, by some threads if it is large; each block is verified while it is warm.

    `into` is what it is read into: an array in C order, of the same dtype and shape.
    """
    placed = checkpoint.header.arrays[name]
    # np.empty would make S1 of S0.
    array: HostArray = np.ndarray(placed.shape, placed.dtype) if into is None else into
    if placed.blocks:
        _fill(checkpoint, placed, range(placed.blocks), array.reshape(-1).view(np.uint8).data)
    return array


def read_rows(checkpoint: Opened, name: str, begin: int, end: int) -> HostArray:
    """Read a range of an array's first axis: the blocks that it touches, and no others."""
    placed = checkpoint.header.arrays[name]
    shape = (end - begin, *placed.shape[1:])
    size = placed.nbytes // max(placed.shape[0], 1)
    blocks = range(begin * size // layout.BLOCK, -(-end * size // layout.BLOCK))
    if not size or not len(blocks):
        return np.ndarray(shape, placed.dtype)
    first = blocks[0] * layout.BLOCK
    whole = np.empty(min(blocks[-1] * layout.BLOCK + layout.BLOCK, placed.nbytes) - first, np.uint8)
    _fill(checkpoint, placed, blocks, whole.data)
    return np.ndarray(shape, placed.dtype, whole.data, begin * size - first)


def lazy_array(checkpoint: Opened, name: str) -> LazyArray:
    """An array that is read when it is used, and of which a slice reads no more than its rows."""
    placed = checkpoint.header.arrays[name]

    def rows(begin: int, end: int) -> HostArray:
        with errors_at(checkpoint.name):
            return read_rows(checkpoint, name, begin, end)

    def read() -> HostArray:
        with errors_at(checkpoint.name):
            return read_array(checkpoint, name)

    return LazyArray(placed.dtype, placed.shape, read, rows)


def mapped_array(checkpoint: Opened, name: str) -> HostArray:
    """A read-only view of an array in its file, not verified.

    It is read, and verified, if it lies in pieces, or in a store that has no files to map.
    """
    placed = checkpoint.header.arrays[name]
    source, offset = 0, checkpoint.header.data_offset + placed.offset
    if checkpoint.header.parents and placed.blocks:
        blocks = slice(placed.first_block, placed.first_block + placed.blocks)
        sources, offsets = checkpoint.source[blocks], checkpoint.offsets[blocks]
        source, offset = int(sources[0]), int(offsets[0])
        if (sources != source).any() or (np.diff(offsets) != layout.BLOCK).any():
            return read_array(checkpoint, name)
    reader = checkpoint.files[source]
    if isinstance(reader, FileReader) and placed.nbytes:
        with suppress(OSError):
            return np.ndarray(placed.shape, placed.dtype, reader.mapped().bytes.data, offset)
    return read_array(checkpoint, name)


def _fill(checkpoint: Opened, placed: Placed, blocks: range, data: memoryview) -> None:
    """Read blocks that follow one another, by some threads if they are many."""
    if runs := _runs(checkpoint, placed, blocks):

        def read_run(run: range) -> None:
            begin = (run[0] - blocks[0]) * layout.BLOCK
            _read_run(checkpoint, placed, run, data[begin:])

        by_threads(read_run, runs, _REQUESTS, "read")
        return
    threads = max(1, min(THREADS, len(blocks) // _LEAST_BLOCKS))
    read = partial(_read_blocks, checkpoint, placed, data, blocks[0])
    shares = [blocks[share::threads] for share in range(threads)]
    found = by_threads(read, shares, threads, "read")
    if errors := [failed for failed in found if failed is not None]:
        raise min(errors, key=itemgetter(0))[1]  # of the first block that is damaged


def _read_blocks(
    checkpoint: Opened, placed: Placed, data: memoryview, first: int, indices: Iterable[int]
) -> tuple[int, CheckpointableError] | None:
    """Read these blocks into their places, up to the first that fails; say which, and how."""
    for index in indices:
        try:
            read_block(checkpoint, placed, index, data[(index - first) * layout.BLOCK :])
        except CheckpointableError as error:
            return index, error
    return None


def _runs(checkpoint: Opened, placed: Placed, blocks: range) -> list[range]:
    """Blocks that are read at once: neighbours in a file that is far away; none if no file is."""
    part = max(getattr(reader, "part", 0) for reader in checkpoint.files)
    if not part or not blocks:
        return []
    breaks = set(blocks[:: max(1, part // layout.BLOCK)])
    if checkpoint.header.parents:
        own = slice(placed.first_block + blocks[0], placed.first_block + blocks[-1] + 1)
        moved = np.diff(checkpoint.source[own]) != 0
        moved |= np.diff(checkpoint.offsets[own]) != layout.BLOCK
        breaks.update((np.flatnonzero(moved) + blocks[0] + 1).tolist())
    edges = [*sorted(breaks), blocks[-1] + 1]
    return [range(begin, end) for begin, end in pairwise(edges)]


def _read_run(checkpoint: Opened, placed: Placed, run: range, buffer: memoryview) -> None:
    """Read such blocks into the buffer's beginning, and verify them."""
    size = (run[-1] - run[0]) * layout.BLOCK + placed.size(run[-1])
    source = _read_unchecked(checkpoint, placed, run[0], buffer[:size])
    for index in run:
        begin = (index - run[0]) * layout.BLOCK
        block, signed = buffer[begin : begin + placed.size(index)], checkpoint.header.meta.signed
        digests.check_block(placed, index, block, checkpoint.table, signed, source)


def read_block(checkpoint: Opened, placed: Placed, index: int, buffer: memoryview) -> memoryview:
    """Read one block of an array into the buffer's beginning, verify it, and return that part."""
    header, block = checkpoint.header, buffer[: placed.size(index)]
    source = _read_unchecked(checkpoint, placed, index, block)
    digests.check_block(placed, index, block, checkpoint.table, header.meta.signed, source)
    return block


def _read_unchecked(
    checkpoint: Opened, placed: Placed, index: int, buffer: memoryview, begin: int = 0
) -> str:
    """Fill the buffer from a block, from its byte `begin` on; say which parent it is in."""
    header = checkpoint.header
    offset = header.data_offset + placed.offset + index * layout.BLOCK
    if header.parents:
        offset = int(checkpoint.offsets[placed.first_block + index])
    source, name = _source(checkpoint, placed, index)
    checkpoint.files[source].read_into(offset + begin, buffer)
    return name


def _source(checkpoint: Opened, placed: Placed, index: int) -> tuple[int, str]:
    """The number of the file that a block lies in, and its name if it is a parent."""
    parents = checkpoint.header.parents
    source = int(checkpoint.source[placed.first_block + index]) if parents else 0
    return source, parents[source - 1].name if source else ""


def read_to_devices(checkpoint: Opened, arrays: Mapping[str, LazyArray]) -> None:
    """Read arrays to where they lie on devices; verified there, so on all the way.

    Blocks are on their way from the file while those before are on their way to the device.
    """
    from checkpointable.device import transfer  # which imports Numba

    header, table = checkpoint.header, checkpoint.table
    with transfer.uploading() as upload:
        for name, array in arrays.items():
            if array.region is not None:
                upload(array.region, partial(_read_bytes, checkpoint, header.arrays[name]))
    for name, found in device_digests(arrays, header).items():
        placed, size = header.arrays[name], layout.DIGEST_SIZE[False]
        for index in range(placed.blocks):
            own = found[index * size : (index + 1) * size]
            _, parent = _source(checkpoint, placed, index)
            digests.check_digest(placed, index, own, table, parent)


def _read_bytes(checkpoint: Opened, placed: Placed, begin: int, buffer: memoryview) -> None:
    """Fill the buffer from an array, from its byte `begin` on, by some threads."""

    def read(index: int) -> None:
        first = max(begin, index * layout.BLOCK)
        last = min(begin + len(buffer), index * layout.BLOCK + placed.size(index))
        part = buffer[first - begin : last - begin]
        _read_unchecked(checkpoint, placed, index, part, first - index * layout.BLOCK)

    blocks = range(begin // layout.BLOCK, -(-(begin + len(buffer)) // layout.BLOCK))
    by_threads(read, blocks, THREADS, "read")


def verify(checkpoint: Opened) -> Header:
    """Read all of a checkpoint and check the digests.

    In memory for a single block; for a few larger parts if it is far away.
    """
    buffer = memoryview(bytearray(layout.BLOCK))
    for placed in checkpoint.header.arrays.values():
        if runs := _runs(checkpoint, placed, range(placed.blocks)):
            by_threads(partial(_verify_run, checkpoint, placed), runs, _REQUESTS, "verify")
            continue
        for index in range(placed.blocks):
            read_block(checkpoint, placed, index, buffer)
    return checkpoint.header


def _verify_run(checkpoint: Opened, placed: Placed, run: range) -> None:
    _read_run(checkpoint, placed, run, memoryview(bytearray(len(run) * layout.BLOCK)))


def _read(reader: Reader, offset: int, size: int) -> bytes:
    buffer = bytearray(size)
    reader.read_into(offset, memoryview(buffer))
    return bytes(buffer)
