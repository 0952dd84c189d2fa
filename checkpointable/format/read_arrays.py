"""Reading the arrays of an open checkpoint, whole or in part; every byte is verified.

In a sharded checkpoint the parts of an array are in the files of ranks; it is read as if it were
in one file.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np

from checkpointable.arrays import HostArray, LazyArray, overlapping
from checkpointable.arrays.boxes import Box
from checkpointable.errors import CheckpointableError, errors_at
from checkpointable.format import digests, layout, selection
from checkpointable.format.blocks import device_digests
from checkpointable.format.layout import Header, StoredArray
from checkpointable.format.reader import Opened
from checkpointable.stores import FileReader
from checkpointable.threads import THREADS, parallel_map

_LEAST_BLOCKS = 4  # for a thread of its own
_REQUESTS = 8  # concurrent ones, to a remote store


def read_array(checkpoint: Opened, name: str, into: HostArray | None = None) -> HostArray:
    """Read one array, with threads if it is large; a block is verified while it is in the cache.

    `into` is the array to read into: in C order, of the same dtype and shape.
    """
    placed = checkpoint.header.arrays[name]
    return read_box(checkpoint, placed, ((0,) * len(placed.shape), placed.shape), into)


def read_box(
    checkpoint: Opened, placed: StoredArray, box: Box, into: HostArray | None = None
) -> HostArray:
    """Read a box of an array: only the blocks that it touches, in the files of ranks too.

    `into` is the array to read into: of the same dtype and of the box's shape.
    """
    parts = parts_of(checkpoint.header, placed, box)
    # All are opened before the array is allocated: its size is not checked until then.
    files = [checkpoint.rank_file(source) if source else checkpoint for source, *_ in parts]
    # np.empty would turn S0 into S1.
    array: HostArray = np.ndarray(box[1], placed.dtype) if into is None else into
    for file, (source, here, local) in zip(files, parts, strict=True):
        with errors_at(file.name if source else ""):
            own = file.header.arrays[placed.name]
            target = array[_slices(_from(box[0], here))]  # a view, also of a single number
            selection.read_box(own, local, target, partial(_fill, file, own))
    return array


def parts_of(header: Header, placed: StoredArray, box: Box) -> list[tuple[int, Box, Box]]:
    """The files that hold a box of an array, by number of the parent, and what each has of it.

    That is a box twice: relative to the array, and relative to the file's part. No I/O.
    """
    if not header.meta.sharded:
        return [(0, box, box)]
    overlaps = ((placed.parts[i], here) for i, here in overlapping(box, *placed.bounds))
    return [(part.source, here, _from(part.box[0], here)) for part, here in overlaps]


def _from(origin: tuple[int, ...], box: Box) -> Box:
    """A box relative to another origin."""
    return tuple(n - first for n, first in zip(box[0], origin, strict=True)), box[1]


def _slices(box: Box) -> Any:
    return (*(slice(begin, begin + n) for begin, n in zip(*box, strict=True)), ...)


def read_rows(checkpoint: Opened, name: str, begin: int, end: int) -> HostArray:
    """Read a range of an array's first axis: only the blocks that it touches."""
    placed = checkpoint.header.arrays[name]
    rest = placed.shape[1:]
    return read_box(checkpoint, placed, ((begin, *[0] * len(rest)), (end - begin, *rest)))


def lazy_array(checkpoint: Opened, name: str) -> LazyArray:
    """An array that is read when it is used; a slice reads no more than its box."""
    placed = checkpoint.header.arrays[name]

    def part(box: Box) -> HostArray:
        with errors_at(checkpoint.name):
            return read_box(checkpoint, placed, box)

    def read() -> HostArray:
        with errors_at(checkpoint.name):
            return read_array(checkpoint, name)

    return LazyArray(placed.dtype, placed.shape, read, part)


def mapped_array(checkpoint: Opened, name: str) -> HostArray:
    """A read-only view of an array in its file, not verified.

    If its blocks are not contiguous, or the store has no files to map, it is read and verified.
    """
    placed = checkpoint.header.arrays[name]
    source, offset = 0, checkpoint.header.data_offset + placed.offset
    if checkpoint.header.meta.sharded:
        return read_array(checkpoint, name)
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


def _fill(checkpoint: Opened, placed: StoredArray, blocks: range, data: memoryview) -> None:
    """Read consecutive blocks, with threads if there are many."""
    if runs := _runs(checkpoint, placed, blocks):

        def read_run(run: range) -> None:
            begin = (run[0] - blocks[0]) * layout.BLOCK
            _read_run(checkpoint, placed, run, data[begin:])

        parallel_map(read_run, runs, _REQUESTS, "read")
        return
    threads = max(1, min(THREADS, len(blocks) // _LEAST_BLOCKS))
    read = partial(_read_blocks, checkpoint, placed, data, blocks[0])
    shares = [blocks[share::threads] for share in range(threads)]
    results = parallel_map(read, shares, threads, "read")
    if errors := [failure for failure in results if failure is not None]:
        raise min(errors, key=itemgetter(0))[1]  # of the first damaged block


def _read_blocks(
    checkpoint: Opened, placed: StoredArray, data: memoryview, first: int, indices: Iterable[int]
) -> tuple[int, CheckpointableError] | None:
    """Read these blocks into their places; return the first that fails, with its error."""
    for index in indices:
        try:
            read_block(checkpoint, placed, index, data[(index - first) * layout.BLOCK :])
        except CheckpointableError as error:
            return index, error
    return None


def is_remote(checkpoint: Opened) -> bool:
    """Whether reading the checkpoint takes requests to another machine."""
    return checkpoint.request_size > 0


def _runs(checkpoint: Opened, placed: StoredArray, blocks: range) -> list[range]:
    """Runs of blocks to request at once: neighbours in a remote file; none if no file is."""
    part = checkpoint.request_size
    if not part or not blocks:
        return []
    breaks = set(blocks[:: max(1, part // layout.BLOCK)])
    if checkpoint.header.parents:
        own = slice(placed.first_block + blocks[0], placed.first_block + blocks[-1] + 1)
        breaks_here = np.diff(checkpoint.source[own]) != 0
        breaks_here |= np.diff(checkpoint.offsets[own]) != layout.BLOCK
        breaks.update((np.flatnonzero(breaks_here) + blocks[0] + 1).tolist())
    edges = [*sorted(breaks), blocks[-1] + 1]
    return [range(begin, end) for begin, end in pairwise(edges)]


def _read_run(checkpoint: Opened, placed: StoredArray, run: range, buffer: memoryview) -> None:
    """Read a run of blocks to the beginning of the buffer, and verify them."""
    size = (run[-1] - run[0]) * layout.BLOCK + placed.size(run[-1])
    source = _read_unchecked(checkpoint, placed, run[0], buffer[:size])
    for index in run:
        begin = (index - run[0]) * layout.BLOCK
        block, signed = buffer[begin : begin + placed.size(index)], checkpoint.header.meta.signed
        digests.check_block(placed, index, block, checkpoint.table, signed=signed, source=source)


def read_block(
    checkpoint: Opened, placed: StoredArray, index: int, buffer: memoryview
) -> memoryview:
    """Read one block to the beginning of the buffer, verify it, and return that part."""
    header, block = checkpoint.header, buffer[: placed.size(index)]
    if header.meta.sharded:
        block[:] = _assemble(checkpoint, placed, index * layout.BLOCK, len(block))
        return block
    source = _read_unchecked(checkpoint, placed, index, block)
    signed = header.meta.signed
    digests.check_block(placed, index, block, checkpoint.table, signed=signed, source=source)
    return block


def _assemble(checkpoint: Opened, placed: StoredArray, begin: int, size: int) -> memoryview:
    """Assemble a range of bytes of a sharded array from its parts."""
    item = placed.dtype.itemsize
    first, last = begin // item, -(-(begin + size) // item)  # the elements that they touch
    boxes = selection.boxes_of(placed.shape, first, last)
    parts = [read_box(checkpoint, placed, box).reshape(-1) for box in boxes]
    whole = np.concatenate([part.view(np.uint8) for part in parts])
    return whole.data[begin - first * item : begin - first * item + size]


def _read_unchecked(
    checkpoint: Opened, placed: StoredArray, index: int, buffer: memoryview, begin: int = 0
) -> str:
    """Fill the buffer from a block, from byte `begin` of it; return the parent that holds it."""
    header = checkpoint.header
    offset = header.data_offset + placed.offset + index * layout.BLOCK
    if header.parents:
        offset = int(checkpoint.offsets[placed.first_block + index])
    source, name = _source(checkpoint, placed, index)
    checkpoint.files[source].read_into(offset + begin, buffer)
    return name


def _source(checkpoint: Opened, placed: StoredArray, index: int) -> tuple[int, str]:
    """The number of the file that holds a block, and its name if it is a parent."""
    parents = checkpoint.header.parents
    source = int(checkpoint.source[placed.first_block + index]) if parents else 0
    return source, parents[source - 1].name if source else ""


def read_to_devices(checkpoint: Opened, arrays: Mapping[str, LazyArray]) -> None:
    """Read arrays into their memory on devices, and verify them there.

    Blocks are read from the file while the previous ones are copied to the device.
    """
    from checkpointable.arrays.cuda import transfer  # which imports Numba

    header, table = checkpoint.header, checkpoint.table
    with transfer.uploading() as upload:
        for name, array in arrays.items():
            if array.region is not None:
                upload(array.region, partial(_read_bytes, checkpoint, header.arrays[name]))
    for name, computed in device_digests(arrays, header).items():
        placed, size = header.arrays[name], layout.DIGEST_SIZE[False]
        for index in range(placed.blocks):
            digest = computed[index * size : (index + 1) * size]
            _, parent = _source(checkpoint, placed, index)
            digests.check_digest(placed, index, digest, table, parent)


def _read_bytes(checkpoint: Opened, placed: StoredArray, begin: int, buffer: memoryview) -> None:
    """Fill the buffer from an array, from its byte `begin`, with threads."""

    def read(index: int) -> None:
        first = max(begin, index * layout.BLOCK)
        last = min(begin + len(buffer), index * layout.BLOCK + placed.size(index))
        part = buffer[first - begin : last - begin]
        _read_unchecked(checkpoint, placed, index, part, first - index * layout.BLOCK)

    blocks = range(begin // layout.BLOCK, -(-(begin + len(buffer)) // layout.BLOCK))
    parallel_map(read, blocks, THREADS, "read")


def verify(checkpoint: Opened) -> Header:
    """Read all of a checkpoint and check the digests.

    This takes memory for one block, or for a few larger parts if the store is remote.
    """
    if checkpoint.header.meta.sharded:
        parts = (part for array in checkpoint.header.arrays.values() for part in array.parts)
        for source in sorted({part.source for part in parts}):
            rank = checkpoint.rank_file(source)
            with errors_at(rank.name):
                verify(rank)
        return checkpoint.header
    buffer = memoryview(bytearray(layout.BLOCK))
    for placed in checkpoint.header.arrays.values():
        if runs := _runs(checkpoint, placed, range(placed.blocks)):
            parallel_map(partial(_verify_run, checkpoint, placed), runs, _REQUESTS, "verify")
            continue
        for index in range(placed.blocks):
            read_block(checkpoint, placed, index, buffer)
    return checkpoint.header


def _verify_run(checkpoint: Opened, placed: StoredArray, run: range) -> None:
    _read_run(checkpoint, placed, run, memoryview(bytearray(len(run) * layout.BLOCK)))
