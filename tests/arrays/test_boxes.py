"""Boxes, and what is read of an array for one, compared with NumPy element by element."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointable import InvalidCheckpoint
from checkpointable.arrays.boxes import Box, bounds, check_boxes, overlapping
from checkpointable.format import selection
from checkpointable.format.layout import StoredArray
from tests.helpers.small_blocks import small_blocks

SHAPES = st.lists(st.integers(0, 6), max_size=3).map(tuple)


def slices(box: Box) -> Any:
    return tuple(slice(begin, begin + n) for begin, n in zip(*box, strict=True))


@st.composite
def boxes_in(draw: st.DrawFn, shape: tuple[int, ...]) -> Box:
    begins = [draw(st.integers(0, n)) for n in shape]
    lengths = [draw(st.integers(0, n - b)) for n, b in zip(shape, begins, strict=True)]
    return tuple(begins), tuple(lengths)


@st.composite
def partitions(draw: st.DrawFn, shape: tuple[int, ...], size: int) -> list[Box]:
    """Draw that many boxes that cover the array; some may be empty."""
    boxes: list[Box] = [((0,) * len(shape), shape)]
    while len(boxes) < size:
        offset, lengths = boxes.pop(draw(st.integers(0, len(boxes) - 1)))
        axis = draw(st.integers(0, len(shape) - 1))
        cut = draw(st.integers(0, lengths[axis]))
        for begin, n in ((0, cut), (cut, lengths[axis] - cut)):
            here = list(offset), list(lengths)
            here[0][axis] += begin
            here[1][axis] = n
            boxes.append((tuple(here[0]), tuple(here[1])))
    return draw(st.permutations(boxes))


def whole(boxes: list[Box], shape: tuple[int, ...]) -> bool:
    count = np.zeros(shape, int)
    for offset, lengths in boxes:
        if any(b + n > size for b, n, size in zip(offset, lengths, shape, strict=True)):
            return False
        count[slices((offset, lengths))] += 1
    return bool((count == 1).all())


@given(st.data(), st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple))
def test_only_boxes_that_cover_the_array_are_accepted(
    data: st.DataObject, shape: tuple[int, ...]
) -> None:
    boxes = data.draw(partitions(shape, data.draw(st.integers(1, 6))))
    if data.draw(st.booleans()):  # spoil it, or perhaps not
        larger = tuple(n + 1 for n in shape)
        boxes[data.draw(st.integers(0, len(boxes) - 1))] = data.draw(boxes_in(larger))
    if whole(boxes, shape):
        check_boxes(boxes, shape, "field")
    else:
        with pytest.raises(InvalidCheckpoint) as caught:
            check_boxes(boxes, shape, "field")
        assert caught.value.where == "field"


def test_many_boxes_that_cover_the_array_are_accepted() -> None:
    grid = [((i * 3, j * 5), (3, 5)) for i in range(64) for j in range(64)]
    check_boxes(grid, (192, 320), "field")
    with pytest.raises(InvalidCheckpoint, match=r"\[0:3, 0:5\] and \[0:3, 4:9\] overlap"):
        check_boxes([*grid[:1], ((0, 4), (3, 5)), *grid[2:]], (192, 320), "field")


@given(st.data(), SHAPES)
def test_the_common_part_of_boxes(data: st.DataObject, shape: tuple[int, ...]) -> None:
    wanted = data.draw(boxes_in(shape))
    others = data.draw(st.lists(boxes_in(shape), max_size=5))
    parts = dict(overlapping(wanted, *bounds(others, len(shape))))
    for number, other in enumerate(others):
        both = np.zeros(shape, int)
        both[slices(wanted)] += 1
        both[slices(other)] += 1
        if number in parts:
            both[slices(parts[number])] -= 2
        assert not (both == 2).any()
        assert number not in parts or np.prod(parts[number][1]) > 0


@given(st.data(), SHAPES, st.sampled_from(["i1", "<i4", "<f8", "i1,<f4"]), st.integers(1, 40),
       st.integers(1, 200))  # fmt: skip
def test_a_box_is_read_by_the_blocks_that_it_touches(
    data: st.DataObject, shape: tuple[int, ...], name: str, block: int, slab: int
) -> None:
    dtype = np.dtype(name, align=True)
    size = math.prod(shape) * dtype.itemsize
    raw = np.random.default_rng(0).bytes(size)
    box = data.draw(boxes_in(shape))
    read: list[int] = []

    def fill(blocks: range, buffer: memoryview) -> None:
        part = raw[blocks.start * block : blocks.stop * block]
        buffer[: len(part)] = part
        read.extend(blocks)

    out = np.zeros(box[1], dtype)
    with small_blocks(block, slab=slab):
        selection.read_box(StoredArray("a", dtype, shape, 0, size, 0, 0, ()), box, out, fill)
    due = np.arange(size).reshape(*shape, dtype.itemsize)[slices(box)].reshape(-1)
    assert out.tobytes() == bytes(raw[place] for place in due)
    assert set(read) == set((due // block).tolist())


@given(st.data(), SHAPES)
def test_a_range_of_elements_is_boxes(data: st.DataObject, shape: tuple[int, ...]) -> None:
    array = np.arange(math.prod(shape)).reshape(shape)
    begin = data.draw(st.integers(0, array.size))
    end = data.draw(st.integers(begin, array.size))
    parts = [array[slices(box)].reshape(-1) for box in selection.boxes_of(shape, begin, end)]
    assert [n for part in parts for n in part.tolist()] == [*range(begin, end)]
