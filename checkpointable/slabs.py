"""Which blocks of an array a box of it touches, and how the box is put together of them; no I/O.

An array lies in C order, so a box lies in pieces of it: one a row, unless it is as wide as the
array. It is read by slabs of some rows, of each the blocks that the pieces touch and no others.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from checkpointable import layout
from checkpointable.boxes import Box
from checkpointable.layout import AnyArray, Placed

Fill: TypeAlias = Callable[[range, memoryview], None]
"""Reads blocks of an array that follow one another into the beginning of a buffer."""

SLAB = 32 << 20
"""Bytes of an array that a slab spans, at most, unless a single row is longer."""


def read_box(placed: Placed, box: Box, out: AnyArray, fill: Fill) -> None:
    """Fill `out`, of the box's shape and the array's dtype, from the blocks that `fill` reads."""
    if not out.nbytes:
        return
    if box[1] == placed.shape and out.flags.c_contiguous:
        fill(range(placed.blocks), out.reshape(-1).view(np.uint8).data)
        return
    if not placed.shape:  # one element, and not in C order: it cannot be
        raise AssertionError(placed)
    _read(placed, box, out, fill, 0, 0)


def _read(placed: Placed, box: Box, out: AnyArray, fill: Fill, axis: int, first: int) -> None:
    """Fill `out` from the part of the array that has its element `first` as its own first one."""
    offset, lengths = (part[axis:] for part in box)
    inner = placed.shape[axis + 1 :]
    row = math.prod(inner) * placed.dtype.itemsize
    if len(inner) and row > SLAB:
        for i in range(lengths[0]):
            _read(placed, box, out[i], fill, axis + 1, first + (offset[0] + i) * math.prod(inner))
        return
    rows = max(1, SLAB // row)
    for begin in range(0, lengths[0], rows):
        part = out[begin : begin + rows]
        start = first + (offset[0] + begin) * math.prod(inner)
        _read_slab(placed, part, start, inner, offset[1:], fill)


def _read_slab(
    placed: Placed, out: AnyArray, first: int, inner: tuple[int, ...], offset: tuple[int, ...],
    fill: Fill,
) -> None:  # fmt: skip
    """Fill `out` from rows of shape `inner`, of which element `first` of the array is the first."""
    size = placed.dtype.itemsize
    begins, length = _pieces(out.shape, inner, offset)
    begins = (begins + first) * size
    touched = _touched(begins // layout.BLOCK, (begins + length * size - 1) // layout.BLOCK)
    low, high = touched[0].start, touched[-1].stop
    end = min(high * layout.BLOCK, placed.nbytes)
    span = np.empty(end - low * layout.BLOCK, np.uint8)
    for blocks in touched:
        fill(blocks, span.data[(blocks.start - low) * layout.BLOCK :])
    # A view of the rows, though of the last one there may be only the part that is asked for.
    strides = [math.prod(inner[i:]) * size for i in range(len(inner) + 1)]
    begin = first * size + sum(o * s for o, s in zip(offset, strides[1:], strict=True))
    # As plain bytes: a copy of structured elements would leave out their padding.
    plain = np.dtype(f"V{size}") if placed.dtype.kind == "V" else placed.dtype
    begin -= low * layout.BLOCK
    out.view(plain)[...] = np.ndarray(out.shape, plain, span.data, begin, tuple(strides))


def _pieces(
    shape: tuple[int, ...], inner: tuple[int, ...], offset: tuple[int, ...]
) -> tuple["np.ndarray[Any, np.dtype[np.int64]]", int]:
    """Where the pieces of a box begin that lie in one go, in elements, and how long they are."""
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


def _touched(first: Any, last: Any) -> list[range]:
    """The blocks that pieces begin and end in, and those between, as ranges."""
    low = int(first.min())
    edges = np.zeros(int(last.max()) - low + 2, np.int64)
    np.add.at(edges, first - low, 1)
    np.add.at(edges, last + 1 - low, -1)
    held = np.flatnonzero(np.diff(np.cumsum(edges) > 0, prepend=False, append=False))
    return [range(low + begin, low + end) for begin, end in held.reshape(-1, 2).tolist()]


def boxes_of(shape: tuple[int, ...], begin: int, end: int) -> Iterator[Box]:
    """The boxes that elements `begin` to `end` of an array in C order are, one after another.

    >>> [*boxes_of((3, 4), 2, 9)]
    [((0, 2), (1, 2)), ((1, 0), (1, 4)), ((2, 0), (1, 1))]
    """
    if not shape or begin >= end:
        if begin < end:
            yield (), ()
        return
    row = math.prod(shape[1:])
    whole = range(-(-begin // row), end // row)  # rows of which all is wanted
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
