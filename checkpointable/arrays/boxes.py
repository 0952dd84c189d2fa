"""Boxes: parts of an array, given by an offset and a length on each axis."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from checkpointable.errors import InvalidCheckpoint

Box: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]
"""The offset and the length on each axis."""

Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


def check_box(
    box: Box, shape: tuple[int, ...], where: str, error: type[InvalidCheckpoint] = InvalidCheckpoint
) -> None:
    """Raise `error` unless the box lies in an array of this shape."""
    offset, lengths = box
    if not len(offset) == len(lengths) == len(shape) or any(
        begin + length > size for begin, length, size in zip(offset, lengths, shape, strict=True)
    ):
        what = f"a part of shape {lengths} at {offset} is not inside the global array of {shape}"
        raise error(what, where=where, hint="give Shard the global shape, and where it begins")


def check_boxes(
    boxes: Sequence[Box],
    shape: tuple[int, ...],
    where: str,
    error: type[InvalidCheckpoint] = InvalidCheckpoint,
) -> None:
    """Raise `error` unless the boxes cover an array of this shape, each element once.

    >>> check_boxes([((0, 0), (2, 3)), ((2, 0), (1, 3))], (3, 3), "field")
    >>> check_boxes([((0, 0), (2, 3)), ((1, 0), (2, 3))], (3, 3), "field")
    Traceback (most recent call last):
        ...
    checkpointable.errors.InvalidCheckpoint: the shards [0:2, 0:3] and [1:3, 0:3] overlap
      where: field
      hint: each element belongs to one rank
    """
    for box in boxes:
        check_box(box, shape, where, error)
    filled = [box for box in boxes if all(box[1])]
    low, high = bounds(filled, len(shape))
    hint = "each element belongs to one rank"
    if pair := _overlap(low, high):
        one, two = (box_text(filled[i]) for i in sorted(pair))
        raise error(f"the shards {one} and {two} overlap", where=where, hint=hint)
    missing = math.prod(shape) - sum(math.prod(box[1]) for box in filled)
    if missing:
        what = f"the shards leave a gap: {missing} of {math.prod(shape)} elements are in no shard"
        raise error(what, where=where, hint=hint)


def bounds(boxes: Sequence[Box], rank: int) -> tuple[Numbers, Numbers]:
    """Where boxes begin and end, a row each; in column order, which is fast to compare."""
    low, size = (np.array([box[i] for box in boxes], np.int64) for i in (0, 1))
    low = np.asfortranarray(low.reshape(len(boxes), rank))
    return low, low + np.asfortranarray(size.reshape(len(boxes), rank))


def _overlap(low: Numbers, high: Numbers) -> tuple[int, int] | None:
    """The indices of two boxes with a common element, if there are any; no box is empty."""
    if not low.shape[1]:
        return (0, 1) if len(low) > 1 else None
    # Sorted by their begin on one axis, each is compared with those that begin before it ends: with
    # few, on the axis that has the most different begins.
    axis = int(np.argmax([len(np.unique(column)) for column in low.T]))
    order = np.argsort(low[:, axis], kind="stable")
    low, high = low[order], high[order]
    ends = np.searchsorted(low[:, axis], high[:, axis])
    for i, end in enumerate(ends.tolist()):
        others = slice(i + 1, end)
        meet = ((low[others] < high[i]) & (low[i] < high[others])).all(axis=1)
        if meet.any():
            return int(order[i]), int(order[i + 1 + int(np.argmax(meet))])
    return None


def overlapping(box: Box, low: Numbers, high: Numbers) -> list[tuple[int, Box]]:
    """Which of the boxes with these bounds a box overlaps, and the common part of each.

    >>> overlapping(((1,), (3,)), *bounds([((0,), (2,)), ((2,), (5,)), ((7,), (2,))], 1))
    [(0, ((1,), (1,))), (1, ((2,), (2,)))]
    """
    begin = np.array(box[0], np.int64)
    first, last = np.maximum(low, begin), np.minimum(high, begin + np.array(box[1], np.int64))
    indices = np.flatnonzero((first < last).all(axis=1)).tolist()
    return [(i, (tuple(first[i].tolist()), tuple((last[i] - first[i]).tolist()))) for i in indices]


def box_text(box: Box) -> str:
    """A box as text, as it would be indexed.

    >>> box_text(((0, 4), (2, 3)))
    '[0:2, 4:7]'
    """
    parts = [f"{begin}:{begin + length}" for begin, length in zip(*box, strict=True)]
    return f"[{', '.join(parts)}]"
