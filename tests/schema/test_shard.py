"""`Shard`: a part of a global array, indexed and restored in global coordinates."""

import asyncio
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

from checkpointable import Array, InvalidCheckpoint, InvalidKernel, Shard, capture, reinstate
from checkpointable.schema.shard import shard_fields
from tests.arrays.test_boxes import boxes_in, slices
from tests.helpers.equality import same

SHAPES = st.lists(st.integers(0, 6), min_size=1, max_size=3).map(tuple)


@attrs.frozen
class FieldCheckpoint:
    step: int
    field: Shard[np.float32]
    other: Array[np.float32]


class Field:
    """Rows 2 to 5 of 8."""

    def __init__(self, value: float = 0.0, begin: int = 2) -> None:
        self.step = 0
        self.rows = np.full((3, 4), value, np.float32)
        self.other = np.zeros(1, np.float32)
        self.begin = begin

    @property
    def field(self) -> Shard[np.float32]:
        return Shard(self.rows, (8, 4), (self.begin, 0))


def test_it_marks_a_field() -> None:
    assert shard_fields(FieldCheckpoint) == {"field"}


@given(st.data(), SHAPES)
def test_it_is_indexed_as_the_global_array(data: st.DataObject, shape: tuple[int, ...]) -> None:
    array = np.arange(float(np.prod(shape))).reshape(shape)
    box = data.draw(boxes_in(shape))
    shard = Shard(array[slices(box)], shape, box[0])
    index: Any = data.draw(basic_indices(shape, allow_newaxis=False, allow_ellipsis=False))
    keys = index if isinstance(index, tuple) else (index,)
    wanted = [np.atleast_1d(np.arange(n)[key]) for n, key in zip(shape, keys, strict=False)]
    wanted += [np.arange(n) for n in shape[len(keys) :]]
    held = [np.arange(begin, begin + n) for begin, n in zip(*box, strict=True)]
    if any(set(w) - set(h) for w, h in zip(wanted, held, strict=True)):
        with pytest.raises(IndexError, match="not in this shard"):
            shard[index]
    else:
        assert same(shard[index], array[index])


@pytest.mark.parametrize("index", [8, -9, (0, 0, 0), ..., None, (slice(0, 2), 4)])
def test_an_index_outside_the_shard_is_an_index_error(index: Any) -> None:
    with pytest.raises(IndexError):
        Shard(np.zeros((8, 4), np.float32), (8, 4), (0, 0))[index]


@pytest.mark.parametrize(("shape", "offset"), [((8, 4), (6, 0)), ((8,), (0,)), ((8, 4), (0,))])
def test_it_lies_in_its_global_array(shape: tuple[int, ...], offset: tuple[int, ...]) -> None:
    with pytest.raises(InvalidCheckpoint, match="not inside the global array"):
        Shard(np.zeros((3, 4)), shape, offset)


@pytest.mark.parametrize("offset", [(-1, 0), (1.5, 0), (np.int64(1), 0)])
def test_its_shape_and_offset_are_ints(offset: Any) -> None:
    with pytest.raises(ValueError, match="tuple of non-negative ints"):
        Shard(np.zeros((3, 4)), (8, 4), offset)


def test_it_is_captured_and_reinstated() -> None:
    captured = asyncio.run(capture(FieldCheckpoint, Field(3.0)))
    kernel = Field()
    rows = kernel.rows
    asyncio.run(reinstate(captured, kernel))
    assert kernel.rows is rows
    assert same(rows, np.full((3, 4), 3.0, np.float32))


def test_a_kernel_gets_its_own_box_of_the_array() -> None:
    whole = np.arange(32, dtype=np.float32).reshape(8, 4)
    kernel = Field(begin=4)
    given = FieldCheckpoint(7, Shard(whole, (8, 4), (0, 0)), np.ones(1, np.float32))
    asyncio.run(reinstate(given, kernel))
    assert same(kernel.rows, whole[4:7])
    assert kernel.step == 7


@pytest.mark.parametrize(
    ("field", "what"),
    [
        (Shard(np.zeros((3, 5), np.float32), (8, 5), (2, 0)), r"global shape of \(8, 5\)"),
        (Shard(np.zeros((3, 4), np.float32), (8, 4), (3, 0)), "lacks this rank's part"),
        (Shard(np.zeros((3, 4), np.float64), (8, 4), (2, 0)), "holds float64|where float32"),
    ],
)
def test_what_does_not_fit_changes_nothing(field: Any, what: str) -> None:
    kernel = Field(1.0)
    checkpoint = FieldCheckpoint(7, field, np.ones(1, np.float32))
    with pytest.raises(InvalidCheckpoint, match=what):
        asyncio.run(reinstate(checkpoint, kernel))
    assert (kernel.step, kernel.rows.min(), kernel.other[0]) == (0, 1.0, 0.0)


def test_a_kernel_without_a_shard_is_refused() -> None:
    class Plain(Field):
        field: Any = np.zeros((3, 4), np.float32)

    captured = asyncio.run(capture(FieldCheckpoint, Field()))
    with pytest.raises(InvalidKernel, match="is not a Shard"):
        asyncio.run(reinstate(captured, Plain()))


def test_a_shard_of_a_copy_is_refused() -> None:
    class Copies(Field):
        @property
        def field(self) -> Shard[np.float32]:
            return Shard(self.rows.copy(), (8, 4), (2, 0))

    captured = asyncio.run(capture(FieldCheckpoint, Field()))
    with pytest.raises(InvalidKernel, match="a new array each time"):
        asyncio.run(reinstate(captured, Copies()))
