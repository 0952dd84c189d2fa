"""The digests that a device computes are those of the xxhash library."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from numba import cuda

from checkpointable.arrays.cuda import memory
from checkpointable.arrays.cuda.digest import digests_of
from checkpointable.arrays.cuda.xxh3 import DIGEST
from checkpointable.arrays.lazy import Region
from tests.helpers.depth import NARROW

BYTES = np.random.default_rng(1).integers(0, 256, 1 << 20, np.uint8)
FORMS = [0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 32, 33, 64, 65, 96, 97, 128, 129, 159, 160, 191, 192]
FORMS += [193, 223, 224, 239, 240, 241, 1025]


def of_library(data: np.ndarray[Any, Any]) -> bytes:
    return xxhash.xxh3_128_digest(data.tobytes())


WHOLE = 1 << 40  # so that each region is one block


def blocks(array: memory.Array, begins: Sequence[int], sizes: Sequence[int]) -> list[Region]:
    whole = Region(0, memory.address_of(array), array.size, array)
    return [whole.part(begin, size) for begin, size in zip(begins, sizes, strict=True)]


def test_every_length_of_all_forms() -> None:
    """Each length up to a stripe block into the long form, and some longer ones."""
    sizes = [*range(1, 1400), 2047, 2048, 2049, 4096, 65_537, len(BYTES)]
    digests = digests_of(0, blocks(cuda.to_device(BYTES), [0] * len(sizes), sizes), WHOLE)
    assert digests == b"".join(of_library(BYTES[:size]) for size in sizes)


@NARROW
@given(
    st.lists(st.tuples(st.integers(0, 70), st.integers(1, 3000)), min_size=1, max_size=20),
    st.integers(0, 2**32),
)
def test_any_content_at_any_alignment_all_at_once(places: list[tuple[int, int]], seed: int) -> None:
    data = np.random.default_rng(seed).integers(0, 256, 4000, np.uint8)
    begins, sizes = zip(*places, strict=True)
    digests = digests_of(0, blocks(cuda.to_device(data), begins, sizes), WHOLE)
    assert digests == b"".join(of_library(data[begin : begin + size]) for begin, size in places)


@NARROW
@given(st.binary(min_size=1, max_size=1000), st.integers(0, 9))
def test_few_bits_set(data: bytes, begin: int) -> None:
    """Random bytes never have long runs of zeros or ones; these do."""
    array = np.frombuffer(bytes(begin) + data, np.uint8)
    (block,) = blocks(cuda.to_device(array), [begin], [len(data)])
    assert digests_of(0, [block], WHOLE) == xxhash.xxh3_128_digest(data)


@pytest.mark.parametrize("begin", range(8))
def test_no_word_outside_the_block_is_read(begin: int) -> None:
    """Words beyond may not be in the device's memory: here, not in the array."""
    for size in FORMS[1:]:
        words = np.zeros(-(-(begin + size) // 8), np.uint64)
        words.view(np.uint8)[begin : begin + size] = BYTES[:size]
        table, out = np.array([begin, size], np.uint64), np.zeros(2, np.uint64)
        DIGEST.loop(words, table, 1, out)
        assert out.astype(">u8").tobytes() == of_library(BYTES[:size])


@NARROW
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 900)), max_size=5), st.integers(1, 99))
def test_regions_are_cut_into_blocks(places: list[tuple[int, int]], block: int) -> None:
    begins, sizes = zip(*places, strict=True) if places else ((), ())
    digests = digests_of(0, blocks(cuda.to_device(BYTES), begins, sizes), block)
    parts = [BYTES[b + i : b + min(i + block, n)] for b, n in places for i in range(0, n, block)]
    assert digests == b"".join(map(of_library, parts))
