"""Which blocks a box of an array touches, and how the box is assembled from them; no I/O.

An array is stored in C order, so a box consists of pieces: one for each row, unless it is as wide
as the array. It is read in slabs of rows; of each slab only the blocks that the pieces touch.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np

from checkpointable.arrays import Numbers
from checkpointable.arrays.boxes import Box
from checkpointable.format import layout
from checkpointable.format.layout import AnyArray, StoredArray

Fill: TypeAlias = Callable[[range, memoryview], None]
"""Reads consecutive blocks of an array to the beginning of a buffer."""

SLAB = 32 << 20
"""The most bytes of an array that a slab spans, unless a single row is longer."""


def read_box(placed: StoredArray, box: Box, out: AnyArray, fill: Fill) -> None:
    """Fill `out`, of the box's shape and the array's dtype, from the blocks that `fill` reads."""
    if not out.nbytes:
        return
    if box[1] == placed.shape and out.flags.c_contiguous:
        fill(range(placed.blocks), out.reshape(-1).view(np.uint8).data)
        return
    for slab in _slabs(placed, box):
        _read_slab(placed, slab, out[slab.place], fill)


def blocks_of(placed: StoredArray, box: Box) -> Iterator[range]:
    """The blocks that `read_box` reads, in that order; two slabs may have one in common.

    >>> from checkpointable.format.layout import Meta, plan_layout
    >>> meta = Meta({}, {}, step=1, created="", nonce="", tree={})
    >>> placed = plan_layout(meta, {"grid": (np.dtype(np.float32), (4096, 1024))}).arrays["grid"]
    >>> [*blocks_of(placed, ((1000, 0), (30, 512)))]
    [range(3, 5)]
    """
    if not math.prod(box[1]) * placed.dtype.itemsize:
        return
    if box[1] == placed.shape:
        yield range(placed.blocks)
        return
    for slab in _slabs(placed, box):
        yield from _blocks(placed, slab)[2]


class _Slab(NamedTuple):
    """Rows of a box: their `place` in it, and the `shape` of what is read.

    The rows have shape `inner`, and are read from `offset` in each; element `first` of the array is
    the first element of the first row.
    """

    place: tuple[int | slice, ...]
    shape: tuple[int, ...]
    first: int
    inner: tuple[int, ...]
    offset: tuple[int, ...]


def _slabs(
    placed: StoredArray, box: Box, first: int = 0, at: tuple[int, ...] = ()
) -> Iterator[_Slab]:
    """The slabs of a box, within its part `at`, whose first element is `first`."""
    offset, lengths = (part[len(at) :] for part in box)
    inner = placed.shape[len(at) + 1 :]
    row = math.prod(inner) * placed.dtype.itemsize
    if len(inner) and row > SLAB:
        for i in range(lengths[0]):
            yield from _slabs(placed, box, first + (offset[0] + i) * math.prod(inner), (*at, i))
        return
    rows = max(1, SLAB // row)
    for begin in range(0, lengths[0], rows):
        shape = min(rows, lengths[0] - begin), *lengths[1:]
        start = first + (offset[0] + begin) * math.prod(inner)
        yield _Slab((*at, slice(begin, begin + rows)), shape, start, inner, offset[1:])


def _blocks(placed: StoredArray, slab: _Slab) -> tuple[int, int, list[range]]:
    """The blocks that a slab touches, and where they begin and end in the array."""
    size = placed.dtype.itemsize
    begin, length, gap = _span(slab.shape, slab.inner, slab.offset)
    if gap * size < layout.BLOCK:  # no block fits into a gap
        begin = (begin + slab.first) * size
        touched = [range(begin // layout.BLOCK, -(-(begin + length * size) // layout.BLOCK))]
    else:
        begins, length = _pieces(slab.shape, slab.inner, slab.offset)
        begins = (begins + slab.first) * size
        touched = _touched(begins // layout.BLOCK, (begins + length * size - 1) // layout.BLOCK)
    end = min(touched[-1].stop * layout.BLOCK, placed.nbytes)
    return touched[0].start * layout.BLOCK, end, touched


def _read_slab(placed: StoredArray, slab: _Slab, out: AnyArray, fill: Fill) -> None:
    size = placed.dtype.itemsize
    low, high, touched = _blocks(placed, slab)
    span = np.empty(high - low, np.uint8)
    for blocks in touched:
        fill(blocks, span.data[blocks.start * layout.BLOCK - low :])
    # A view of the rows, although the last one may be cut off after the part that is read.
    strides = [math.prod(slab.inner[i:]) * size for i in range(len(slab.inner) + 1)]
    begin = slab.first * size + sum(o * s for o, s in zip(slab.offset, strides[1:], strict=True))
    # As plain bytes: a copy of structured elements would leave out their padding.
    plain = np.dtype(f"V{size}") if placed.dtype.kind == "V" else placed.dtype
    out.view(plain)[...] = np.ndarray(out.shape, plain, span.data, begin - low, tuple(strides))


def _span(
    shape: tuple[int, ...], inner: tuple[int, ...], offset: tuple[int, ...]
) -> tuple[int, int, int]:
    """The begin of a box, its length up to its end, and its longest gap, in elements.

    >>> _span((2, 3), (10,), (4,))
    (4, 13, 7)
    """
    begin, length, gap, stride = 0, 1, 0, 1
    for axis in reversed(range(len(shape))):
        if shape[axis] > 1:
            gap = max(gap, stride - length)
        length += (shape[axis] - 1) * stride
        if axis:
            begin += offset[axis - 1] * stride
            stride *= inner[axis - 1]
    return begin, length, gap


def _pieces(
    shape: tuple[int, ...], inner: tuple[int, ...], offset: tuple[int, ...]
) -> tuple[Numbers, int]:
    """Where the contiguous pieces of a box begin, and their length, in elements."""
    whole = len(inner)  # the axes from here on are as wide as the array
    while whole and shape[whole] == inner[whole - 1]:
        whole -= 1
    begins = np.zeros(1, np.int64)
    sizes = (0, *offset)
    for axis in range(whole):
        stride = math.prod(inner[axis:])
        here = (np.arange(shape[axis]) + sizes[axis]) * stride
        begins = np.add.outer(begins, here).reshape(-1)
    last = math.prod(inner[whole:])
    return begins + sizes[whole] * last, shape[whole] * last


def _touched(first: Numbers, last: Numbers) -> list[range]:
    """The blocks that pieces in order touch, as ranges."""
    breaks = np.flatnonzero(first[1:] > last[:-1] + 1).tolist()
    begins = [0, *(n + 1 for n in breaks)]
    ends = [*breaks, -1]
    return [range(int(first[a]), int(last[b]) + 1) for a, b in zip(begins, ends, strict=True)]


def boxes_of(shape: tuple[int, ...], begin: int, end: int) -> Iterator[Box]:
    """The boxes that make up elements `begin` to `end` of an array in C order, in order.

    >>> [*boxes_of((3, 4), 2, 9)]
    [((0, 2), (1, 2)), ((1, 0), (1, 4)), ((2, 0), (1, 1))]
    """
    if not shape or begin >= end:
        if begin < end:
            yield (), ()
        return
    row = math.prod(shape[1:])
    whole = range(-(-begin // row), end // row)  # the rows that are whole
    edges = [begin, *(n * row for n in (whole.start, whole.stop) if whole), end]
    for low, high in pairwise(edges):
        if low >= high:
            continue
        if whole and low == whole.start * row:
            yield (whole.start, *[0] * len(shape[1:])), (len(whole), *shape[1:])
            continue
        for index in range(low // row, -(-high // row)):
            here = max(low - index * row, 0), min(high - index * row, row)
            for offset, lengths in boxes_of(shape[1:], *here):
                yield (index, *offset), (1, *lengths)
