"""Kernels that gather bytes: of strided arrays, and of blocks that are not adjacent."""

# mypy: allow-untyped-defs, allow-untyped-calls
# Numba infers the types of what it compiles.

# Numba describes what is used within kernels as classes, not as what it becomes there.
# pyright: reportCallIssue=false

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import cuda, prange

from checkpointable.arrays.cuda import memory
from checkpointable.arrays.cuda.programs import Jit, Program, cpu, gpu, kernel, launch, loop

U0, U3, U7, U8, U64 = (np.uint64(k) for k in (0, 3, 7, 8, 64))


def make(jit: Jit) -> tuple[Any, Any]:
    """Return the element functions (move, gather)."""

    @jit
    def move(everything, strided, packed, shape, strides, first, size, back, i):
        """Copy element `first` + i, of `size` bytes, from the array to place i, or back."""
        rest = np.int64(first + i)
        there = np.int64(strided)
        for axis in range(shape.size - 1, -1, -1):
            there += (rest % shape[axis]) * strides[axis]
            rest //= shape[axis]
        here = np.int64(packed) + np.int64(i) * size
        for k in range(size):
            if back:
                everything[np.uint64(there + k)] = everything[np.uint64(here + k)]
            else:
                everything[np.uint64(here + k)] = everything[np.uint64(there + k)]

    @jit
    def gather(words, at, size, k):
        """Return word k of a block; bytes beyond its end are 0, and not read."""
        begin = at + (np.uint64(k) << U3)
        left = size - (np.uint64(k) << U3)
        shift = (begin & U7) << U3
        word = words[begin >> U3] >> shift
        if shift != U0 and (left << U3) > U64 - shift:
            word |= words[(begin + U7) >> U3] << (U64 - shift)
        if left < U8:
            word &= (np.uint64(1) << (left << U3)) - np.uint64(1)
        return word

    return move, gather


move_cpu, gather_cpu = make(cpu)
move_gpu, gather_gpu = make(gpu)


@loop
def move_loop(everything, strided, packed, shape, strides, first, count, size, back):
    for i in prange(count):
        move_cpu(everything, strided, packed, shape, strides, first, size, back, i)


@kernel
def move_kernel(everything, strided, packed, shape, strides, first, count, size, back):
    i = cuda.grid(1)
    if i < count:
        move_gpu(everything, strided, packed, shape, strides, first, size, back, i)


MOVE = Program(move_loop, move_kernel)
"""(everything, strided, packed, shape, strides, first, count, size, back): a thread per element."""


def copy(array: memory.Array, address: int, stream: memory.Stream, *, back: bool = False,
         first: int = 0, count: int | None = None) -> object:  # fmt: skip
    """Copy an array to an address in C order, or `back` from there; in the order of the stream.

    An array in C order is copied whole; of any other, `count` elements from `first` on. Keep the
    returned object alive until the copy is done.
    """
    begin, size = memory.address_of(array), array.dtype.itemsize
    count = math.prod(array.shape) - first if count is None else count
    if array.is_c_contiguous():
        target, source = (begin, address) if back else (address, begin)
        memory.copy(target, source, count * size, stream)
        return None
    shape = memory.to_device(np.array(array.shape, np.int64), stream)
    strides = memory.to_device(np.array(array.strides, np.int64), stream)
    everything = memory.at(memory.BASE, 2**60, np.uint8)
    launch(
        MOVE, count, stream, everything, begin - memory.BASE, address - memory.BASE, shape, strides,
        first, count, size, back,
    )  # fmt: skip
    return shape, strides


@loop
def gather_loop(words, at, sizes, places, longest, out):
    for i in prange(at.size * longest):
        block, k = i // longest, i % longest
        if np.uint64(8 * k) < sizes[block]:
            out[places[block] + np.uint64(k)] = gather_cpu(words, at[block], sizes[block], k)


@kernel
def gather_kernel(words, at, sizes, places, longest, out):
    i = cuda.grid(1)
    block, k = i // longest, i % longest
    if block < at.size and np.uint64(8 * k) < sizes[block]:
        out[places[block] + np.uint64(k)] = gather_gpu(words, at[block], sizes[block], k)


GATHER = Program(gather_loop, gather_kernel)
"""(words, at, sizes, places, longest, out): each block to its place in `out`, in words; the longest
block has `longest` of them."""


def gather(
    addresses: Sequence[int],
    sizes: Sequence[int],
    places: Sequence[int],
    scratch: memory.Array,
    stream: memory.Stream,
) -> None:
    """Copy blocks to their places in `scratch`, in words; in the order of the stream.

    The last words of `scratch`, three per block, hold the table of blocks.
    """
    n, at = len(sizes), np.array(addresses, np.uint64) - np.uint64(memory.BASE)
    table = np.concatenate([at, np.array(sizes, np.uint64), np.array(places, np.uint64)])
    parts = scratch[len(scratch) - 3 * n :]
    parts.copy_to_device(table, stream=stream)
    longest = -(-max(sizes) // 8)
    launch(
        GATHER, n * longest, stream, memory.words(), parts[:n], parts[n : 2 * n], parts[2 * n :],
        longest, scratch,
    )  # fmt: skip
