"""How two checkpoints differ: their trees, and their arrays block by block.

Blocks of equal digests are equal, and are not read; of the others one pair is in memory at a time.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from attrs import define, frozen

from checkpointable.cli.view.statistics import computable, plain
from checkpointable.errors import errors_at
from checkpointable.format import (
    DIGEST_SIZE,
    AnyArray,
    Opened,
    StoredArray,
    digest,
    layout,
    read_block,
)
from checkpointable.tree import container, extended, text_of

Index = tuple[int, ...]


@frozen
class Change:
    """One value of the tree that differs: its path, and its text on either side, None if absent."""

    path: str
    old: str | None
    new: str | None


@define
class ArrayDifference:
    """How an array differs; elements differ if their bytes do.

    `max` and `rms` are of the differences of numbers, over all elements, those left out that are
    NaN on a side; None where the dtype has none. `new_nans` are NaN where they were none.
    """

    name: str
    blocks: int
    changed_blocks: int = 0
    elements: int = 0
    changed_elements: int = 0
    first: Index | None = None
    max: int | float | str | None = None
    rms: int | float | str | None = None
    new_nans: int | None = None


def tree_changes(old: Any, new: Any, path: str = "") -> Iterator[Change]:
    """The differences of two trees, without arrays.

    >>> [*tree_changes({"step": 1, "at": [2, 3]}, {"step": 4, "at": [2, 5], "more": 0})]
    ... # doctest: +NORMALIZE_WHITESPACE
    [Change(path='step', old='1', new='4'), Change(path='at[1]', old='3', new='5'),
     Change(path='more', old=None, new='0')]
    """
    if old == new and type(old) is type(new) and not isinstance(old, list | dict):
        return
    before, after = container(old), container(new)
    if before is None or after is None or _kind(before[0]) != _kind(after[0]):
        if not (_is_array(old) and _is_array(new)) and (old != new or type(old) is not type(new)):
            yield Change(path or "value", _text(old), _text(new))
        return
    olds, news = dict(before[1]), dict(after[1])
    for label in [*olds, *(label for label in news if label not in olds)]:
        place = extended(path, label)
        if label not in news:
            yield Change(place, _text(olds[label]), None)
        elif label not in olds:
            yield Change(place, None, _text(news[label]))
        else:
            yield from tree_changes(olds[label], news[label], place)


def _kind(text: str) -> str:
    return text.partition(" of ")[0]


def _is_array(wire: Any) -> bool:
    return type(wire) is dict and "$array" in wire


def _text(wire: Any) -> str:
    inner = container(wire)
    if _is_array(wire):
        return "an array"
    return inner[0] or "an object" if inner and " of " not in inner[0] else text_of(wire)


def changed_blocks(a: Opened, b: Opened, name: str) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """The indices of an array's blocks that differ, or may, by the digests alone.

    All of them if only one of the two is signed, since their digests are of two kinds.
    """
    placed = a.header.arrays[name]
    if a.header.meta.signed != b.header.meta.signed:
        return np.arange(placed.blocks)
    old, new = digests_in(a, placed), digests_in(b, b.header.arrays[name])
    return np.flatnonzero((old != new).any(axis=1))


def digests_in(checkpoint: Opened, placed: StoredArray) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """The digests of an array's blocks, a row for each.

    They are read from the file; those of a sharded checkpoint are computed.
    """
    signed = checkpoint.header.meta.signed
    size = DIGEST_SIZE[signed]
    if checkpoint.header.meta.sharded:
        buffer = memoryview(bytearray(layout.BLOCK))
        blocks = (read_block(checkpoint, placed, i, buffer) for i in range(placed.blocks))
        table = np.frombuffer(b"".join(digest(b, signed=signed) for b in blocks), np.uint8)
        return table.reshape(placed.blocks, size)
    table = np.frombuffer(checkpoint.table, np.uint8)
    begin = placed.first_block * size
    return table[begin : begin + placed.blocks * size].reshape(placed.blocks, size)


def compare_array(a: Opened, b: Opened, name: str) -> ArrayDifference:
    """Compare an array that both have with the same dtype and shape.

    Raises `CorruptCheckpoint` if a block that has to be read is damaged.
    """
    old, new = a.header.arrays[name], b.header.arrays[name]
    dtype = computable(old.dtype)
    difference = ArrayDifference(name, old.blocks, elements=math.prod(old.shape))
    sums = _Sums(nans=dtype is not None and dtype.kind in "fcmM", numbers=_differs(dtype))
    one, two = (memoryview(bytearray(min(layout.BLOCK, max(old.nbytes, 1)))) for _ in range(2))
    last = -1  # the last element counted, which may continue in the next block
    for index in changed_blocks(a, b, name).tolist():
        with errors_at(a.name):
            x = read_block(a, old, index, one)
        with errors_at(b.name):
            y = read_block(b, new, index, two)
        bytes_differ = np.frombuffer(x, np.uint8) != np.frombuffer(y, np.uint8)
        if not bytes_differ.any():
            continue
        difference.changed_blocks += 1
        elements = _elements(bytes_differ, index * layout.BLOCK, old.dtype.itemsize)
        distinct = elements[np.diff(elements, prepend=last) != 0]
        difference.changed_elements += len(distinct)
        if difference.first is None:
            difference.first = tuple(int(i) for i in np.unravel_index(int(elements[0]), old.shape))
        last = int(elements[-1])
        if dtype is not None:
            here = elements - index * layout.BLOCK // old.dtype.itemsize
            sums.add(
                np.frombuffer(x, old.dtype)[here].astype(dtype, copy=False),
                np.frombuffer(y, old.dtype)[here].astype(dtype, copy=False),
            )
    if sums.nans:
        difference.new_nans = sums.new_nans
    if sums.numbers:
        difference.max = plain(sums.max)
        difference.rms = plain(np.sqrt(sums.squares / max(difference.elements, 1)))
    return difference


def _elements(
    bytes_differ: "np.ndarray[Any, np.dtype[np.bool]]", begin: int, size: int
) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """The elements that contain these bytes; some repeatedly where blocks split elements."""
    if layout.BLOCK % size == 0:
        return np.flatnonzero(bytes_differ.reshape(-1, size).any(axis=1)) + begin // size
    return (np.flatnonzero(bytes_differ) + begin) // size


def _differs(dtype: np.dtype[Any] | None) -> bool:
    return dtype is not None and dtype.kind in "biufc"


@define
class _Sums:
    nans: bool
    numbers: bool
    new_nans: int = 0
    max: Any = 0.0
    squares: Any = 0.0

    def add(self, x: AnyArray, y: AnyArray) -> None:
        """Add elements whose bytes differ."""
        if self.nans:
            was, now = np.isnan(x), np.isnan(y)
            self.new_nans += int(np.count_nonzero(now & ~was))
            x, y = x[~(was | now)], y[~(was | now)]
        if not self.numbers or not x.size:
            return
        wide = np.clongdouble if x.dtype.kind == "c" else np.longdouble
        with np.errstate(invalid="ignore", over="ignore"):
            between = np.where(x == y, 0, np.abs(y.astype(wide) - x.astype(wide)))
            self.max = max(self.max, between.max())
            self.squares += np.square(between).sum()
