"""Boxes: parts of an array, with an offset and a length on each axis."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from checkpointable.errors import InvalidCheckpoint

Box: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]
"""The offset and the length of a part, on each axis."""

_ONE = "each element belongs to one rank"

Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


def check_box(
    box: Box, shape: tuple[int, ...], where: str, error: type[InvalidCheckpoint] = InvalidCheckpoint
) -> None:
    """Raise `error` unless the box lies in an array of this shape."""
    offset, lengths = box
    if not len(offset) == len(lengths) == len(shape) or any(
        begin + length > size for begin, length, size in zip(offset, lengths, shape, strict=True)
    ):
        what = (
            f"a part of shape {lengths} at {offset} is not inside of the global array, of {shape}"
        )
        raise error(what, where=where, hint="give Shard the global shape, and where it begins")


def check_boxes(
    boxes: Sequence[Box],
    shape: tuple[int, ...],
    where: str,
    error: type[InvalidCheckpoint] = InvalidCheckpoint,
) -> None:
    """Raise `error` unless the boxes lie in an array of this shape, and have each element once.

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
    held = [box for box in boxes if all(box[1])]
    low, high = bounds(held, len(shape))
    if found := _overlap(low, high):
        one, two = (box_text(held[i]) for i in sorted(found))
        raise error(f"the shards {one} and {two} overlap", where=where, hint=_ONE)
    missing = math.prod(shape) - sum(math.prod(box[1]) for box in held)
    if missing:
        what = f"the shards leave a gap: {missing} of {math.prod(shape)} elements are nobody's"
        raise error(what, where=where, hint=_ONE)


def bounds(boxes: Sequence[Box], rank: int) -> tuple[Numbers, Numbers]:
    """Where boxes begin and end, a row each; by columns in memory: fast to compare."""
    low, size = (np.array([box[i] for box in boxes], np.int64) for i in (0, 1))
    low = np.asfortranarray(low.reshape(len(boxes), rank))
    return low, low + np.asfortranarray(size.reshape(len(boxes), rank))


def _overlap(low: Numbers, high: Numbers) -> tuple[int, int] | None:
    """Two boxes that have an element in common, if any do; all have some elements."""
    if not low.shape[1]:
        return (0, 1) if len(low) > 1 else None
    # In the order in which they begin on one axis, each is compared with those that begin before it
    # ends: with few, if the axis is that on which most begin at another place.
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
    """Which of the boxes with these bounds a box meets, and in which part of the global array.

    >>> overlapping(((1,), (3,)), *bounds([((0,), (2,)), ((2,), (5,)), ((7,), (2,))], 1))
    [(0, ((1,), (1,))), (1, ((2,), (2,)))]
    """
    begin = np.array(box[0], np.int64)
    first, last = np.maximum(low, begin), np.minimum(high, begin + np.array(box[1], np.int64))
    found = np.flatnonzero((first < last).all(axis=1)).tolist()
    return [(i, (tuple(first[i].tolist()), tuple((last[i] - first[i]).tolist()))) for i in found]


def box_text(box: Box) -> str:
    """Say a box as it would be indexed.

    >>> box_text(((0, 4), (2, 3)))
    '[0:2, 4:7]'
    """
    parts = [f"{begin}:{begin + length}" for begin, length in zip(*box, strict=True)]
    return f"[{', '.join(parts)}]"
