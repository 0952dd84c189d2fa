"""Kernels that copy many pieces of memory in one launch: packed ones, and arrays of any strides.

A launch reads a table of pieces from device memory. A piece has at most 64 KiB, so that a few large
arrays keep all multiprocessors as busy as many small ones.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Numba infers the types of what it compiles.

# Numba describes what is used within kernels as classes, not as what it becomes there.
# pyright: reportCallIssue=false, reportArgumentType=false

import itertools
import math
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from numba import cuda, prange

from checkpointable.arrays.cuda import memory
from checkpointable.arrays.cuda.programs import Jit, Program, cpu, gpu, kernel, launch, loop
from checkpointable.arrays.cuda.views import View
from checkpointable.arrays.kinds import HostArray

_PIECE = 1 << 16  # bytes
_LARGE = 32 << 20  # bytes; from here on, the driver's own copy is as fast
_MOST = 4096  # pieces of one strided array
_AXES = 6
_MOVE = 4 + 2 * _AXES  # numbers in the row of a piece of a strided array

U0, U3, U7, U8, U64 = (np.uint64(k) for k in (0, 3, 7, 8, 64))
BYTE = np.uint64(0xFF)


def make(jit: Jit) -> tuple[Any, Any]:
    """Return the element functions (copy, move)."""

    @jit
    def copy(words, octets, target, source, size, k):
        """Copy bytes 8 k to 8 k + 7 of a piece, or those that are left of it; read no others."""
        begin, to = source + (np.uint64(k) << U3), target + (np.uint64(k) << U3)
        left = size - (np.uint64(k) << U3)
        shift = (begin & U7) << U3
        word = words[begin >> U3] >> shift
        if shift != U0 and (left << U3) > U64 - shift:
            word |= words[(begin + U7) >> U3] << (U64 - shift)
        if left >= U8 and to & U7 == U0:
            words[to >> U3] = word
        else:
            for i in range(min(left, U8)):
                octets[to + np.uint64(i)] = np.uint8((word >> (np.uint64(i) << U3)) & BYTE)

    @jit
    def move(units, table, row, back, k):
        """Copy unit k of a piece, from a strided array to where it is packed, or back."""
        rest = np.int64(table[row + 2]) + k
        there = np.int64(table[row])
        for axis in range(_AXES - 1, -1, -1):
            count = np.int64(table[row + 4 + axis])
            if count > 1:
                there += (rest % count) * np.int64(table[row + 4 + _AXES + axis])
                rest //= count
        here = np.uint64(np.int64(table[row + 1]) + k)
        if back:
            units[np.uint64(there)] = units[here]
        else:
            units[here] = units[np.uint64(there)]

    return copy, move


copy_cpu, move_cpu = make(cpu)
copy_gpu, move_gpu = make(gpu)


@loop
def copy_loop(words, octets, table, n):
    for piece in prange(n):
        target, source, size = table[piece], table[n + piece], table[2 * n + piece]
        for k in range(np.int64((size + U7) >> U3)):
            copy_cpu(words, octets, target, source, size, np.int64(k))


@kernel
def copy_kernel(words, octets, table, n):
    for piece in range(cuda.blockIdx.x, n, cuda.gridDim.x):
        target, source, size = table[piece], table[n + piece], table[2 * n + piece]
        k, step = np.int64(cuda.threadIdx.x), np.int64(cuda.blockDim.x)
        if (target | source) & U7 == U0:
            to, begin, whole = target >> U3, source >> U3, np.int64(size >> U3)
            while k + 3 * step < whole:  # four loads at a time
                a, b = words[begin + np.uint64(k)], words[begin + np.uint64(k + step)]
                c = words[begin + np.uint64(k + 2 * step)]
                d = words[begin + np.uint64(k + 3 * step)]
                words[to + np.uint64(k)] = a
                words[to + np.uint64(k + step)] = b
                words[to + np.uint64(k + 2 * step)] = c
                words[to + np.uint64(k + 3 * step)] = d
                k += 4 * step
        while k < np.int64((size + U7) >> U3):
            copy_gpu(words, octets, target, source, size, k)
            k += step


@loop
def move_loop(units, table, begin, n, back):
    for piece in prange(n):
        row = begin + _MOVE * piece
        for k in range(np.int64(table[row + 3])):
            move_cpu(units, table, row, back, np.int64(k))


@kernel
def move_kernel(units, table, begin, n, back):
    for piece in range(cuda.blockIdx.x, n, cuda.gridDim.x):
        row, k = begin + _MOVE * piece, np.int64(cuda.threadIdx.x)
        while k < np.int64(table[row + 3]):
            move_gpu(units, table, row, back, k)
            k += np.int64(cuda.blockDim.x)


COPY = Program(copy_loop, copy_kernel, block=256)
"""(words, octets, table, n): n pieces of bytes; the table has all targets, all sources, all sizes,
as offsets from `memory.BASE`."""

MOVE = Program(move_loop, move_kernel, block=256)
"""(units, table, begin, n, back): n pieces of strided arrays, whose rows, as `_rows` makes them,
are from `begin` on in the table."""


class Tables:
    """Memory for the tables of one launch after another on one device; kept while they are equal.

    Before the next `put`, what the last one was for must be complete.
    """

    def __init__(self) -> None:
        self._host = np.zeros(0, np.uint64)
        self._room: memory.Array = None
        self._device: memory.Array = None
        self._size = 0

    def put(self, table: HostArray, stream: memory.Stream) -> memory.Array:
        """The table in memory of the current device, in the order of the stream."""
        size = len(table)
        if size == self._size and np.array_equal(self._host[:size], table):
            return self._device
        if size > len(self._host):
            room = 2 * size
            self._host = memory.pinned_if_possible(8 * room).view(np.uint64)
            self._room = memory.empty(8 * room)
        self._host[:size], self._size = table, 0
        address = memory.address_of(self._room)
        memory.to_device(address, self._host[:size], stream)
        self._device = memory.at(address, size, np.uint64, self._room)
        self._size = size
        return self._device


def copy_pieces(
    tables: Tables, targets: Sequence[int], sources: Sequence[int], sizes: Sequence[int],
    stream: memory.Stream,
) -> None:  # fmt: skip
    """Copy packed pieces within the current device, in the order of the stream."""
    counts = np.array(sizes, np.int64)
    alone = (counts >= _LARGE) | (len(counts) == 1)
    for i in np.flatnonzero(alone).tolist():
        memory.copy(targets[i], sources[i], sizes[i], stream)
    counts = counts[~alone]
    if not len(counts):
        return
    pieces = -(-counts // _PIECE)
    ends = np.cumsum(pieces)
    offsets = _PIECE * (np.arange(ends[-1]) - np.repeat(ends - pieces, pieces))
    base, of_piece = np.uint64(memory.BASE), offsets.astype(np.uint64)
    columns = (np.array(addresses, np.uint64)[~alone] for addresses in (targets, sources))
    starts = [np.repeat(addresses - base, pieces) for addresses in columns]
    left = np.repeat(counts, pieces) - offsets
    table = np.concatenate(
        [*(start + of_piece for start in starts), np.minimum(left, _PIECE).astype(np.uint64)]
    )
    n = int(ends[-1])
    on_device = tables.put(table, stream)
    launch(COPY, n * COPY.block, stream, memory.words(), memory.words(1), on_device, n)


def _axes(view: View, *ends: int) -> tuple[int, list[tuple[int, int]]]:
    """The largest unit that an array can be moved in, and its axes: lengths, and strides in bytes.

    Axes that can be walked as one are merged; the last is the fastest. The unit divides `ends`.
    """
    axes: list[tuple[int, int]] = []
    for length, stride in zip(view.shape, view.strides or (), strict=view.strides is not None):
        if axes and axes[-1][1] == length * stride:
            axes[-1] = (axes[-1][0] * length, stride)
        elif length != 1:
            axes.append((length, stride))
    run = view.dtype.itemsize if view.strides is not None else view.nbytes
    if axes and axes[-1][1] == run:
        run *= axes.pop()[0]
    unit = math.gcd(8, run, view.address, *ends, *(stride for _, stride in axes))
    return unit, [*axes, (run // unit, unit)]


def _rows(view: View, address: int, first: int, count: int) -> tuple[int, HostArray]:
    """The unit and the table rows that move `count` elements from `first` on.

    A row has, in units: where the array begins and where it is packed, as offsets from
    `memory.BASE`; the first unit and the number of units; the lengths and the strides of the axes.
    """
    begin, end = first * view.dtype.itemsize, (first + count) * view.dtype.itemsize
    unit, axes = _axes(view, address, begin, end)
    begin, end, base = begin // unit, end // unit, memory.BASE // unit
    outer, inner = axes[:-_AXES], axes[-_AXES:]
    inner = [(1, 0)] * (_AXES - len(inner)) + inner
    shape = [length for length, _ in inner] + [stride // unit for _, stride in inner]
    step = max(_PIECE, (end - begin) * unit // _MOST) // unit
    inner_size, rows = math.prod(length for length, _ in inner), []
    for number, index in enumerate(itertools.product(*(range(length) for length, _ in outer))):
        shift = sum(i * stride for i, (_, stride) in zip(index, outer, strict=True))
        low = max(begin, number * inner_size)
        high = min(end, (number + 1) * inner_size)
        at = np.arange(low, high, step, dtype=np.int64)
        part = np.empty((len(at), _MOVE), np.int64)
        part[:, 0] = (view.address + shift) // unit - base
        part[:, 1] = address // unit - base + at - begin
        part[:, 2] = at - number * inner_size
        part[:, 3] = np.minimum(step, high - at)
        part[:, 4:] = shape
        rows.append(part)
    return unit, np.concatenate(rows)


def move_arrays(
    tables: Tables, views: Sequence[View], addresses: Sequence[int], stream: memory.Stream,
    *, back: bool = False,
) -> None:  # fmt: skip
    """Pack arrays of any strides at addresses, in C order; or unpack them from there, `back`.

    That is in the order of the stream, and on the current device.
    """
    pairs = zip(views, addresses, strict=True)
    _launch(tables, [_rows(v, a, 0, math.prod(v.shape)) for v, a in pairs], stream, back=back)


def prepare(views: Sequence[View], stream: memory.Stream) -> None:
    """Compile what copies such arrays, on the current device."""
    words = memory.words()
    launch(COPY, 0, stream, words, memory.words(1), words, 0)
    for unit in {_axes(view)[0] for view in views if view.strides is not None and view.nbytes}:
        launch(MOVE, 0, stream, memory.words(unit), words, 0, 0, False)


def move_part(
    tables: Tables, view: View, address: int, first: int, count: int, stream: memory.Stream,
    *, back: bool = False,
) -> None:  # fmt: skip
    """As `move_arrays`, but `count` elements of an array from `first` on."""
    _launch(tables, [_rows(view, address, first, count)], stream, back=back)


def _launch(
    tables: Tables, parts: list[tuple[int, HostArray]], stream: memory.Stream, *, back: bool
) -> None:
    if not parts:
        return
    parts.sort(key=itemgetter(0))
    table = tables.put(
        np.concatenate([rows.reshape(-1) for _, rows in parts]).view(np.uint64), stream
    )
    begin = 0
    for unit, group in itertools.groupby(parts, itemgetter(0)):
        n = sum(len(rows) for _, rows in group)
        launch(MOVE, n * MOVE.block, stream, memory.words(unit), table, begin, n, back)
        begin += _MOVE * n
