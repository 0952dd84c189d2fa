"""Which blocks a delta holds itself, and where the others are; no I/O.

A delta refers to each block in the file that holds it, never through another delta, so reading a
block opens one file however long the chain is.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from attrs import frozen

from checkpointable.errors import CorruptCheckpoint
from checkpointable.format import layout
from checkpointable.format.layout import USE_OLDER, Bytes, Extent, Header, Parent

Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Extents: TypeAlias = dict[str, tuple[Extent, ...]]


@frozen(eq=False)
class Base:
    """The checkpoint that a delta is made against: its name, header, digests and seal."""

    name: str
    header: Header
    table: bytes
    seal: bytes


def fits(base: Base, header: Header) -> bool:
    """Whether a delta against the base can have this header: if the arrays are the same."""
    mine, its = header.arrays.values(), base.header.arrays.values()
    return base.header.meta.signed == header.meta.signed and (
        [(a.name, a.dtype, a.shape) for a in mine] == [(a.name, a.dtype, a.shape) for a in its]
    )


def difference(base: Base, table: Bytes) -> tuple[tuple[Parent, ...], Extents]:
    """The parents and extents of a delta whose blocks have the digests in `table`.

    >>> from checkpointable.format.layout import BLOCK, Meta, plan_layout
    >>> meta = Meta({}, {}, step=1, created="", nonce="", tree={})
    >>> full = plan_layout(meta, {"grid": (np.dtype(np.uint8), (2 * BLOCK,))})
    >>> base = Base("step-1", full, table=b"a" * 16 + b"b" * 16, seal=bytes(32))
    >>> parents, extents = difference(base, table=b"a" * 16 + b"x" * 16)
    >>> parents[0].name, extents["grid"]
    ('step-1', (Extent(source=1, first=0, count=1), Extent(source=0, first=0, count=1)))
    """
    old, new = (np.frombuffer(digests, np.uint8) for digests in (base.table, table))
    rows = (base.header.blocks, len(base.table) // max(base.header.blocks, 1))
    changed = (old.reshape(rows) != new.reshape(rows)).any(axis=1)
    source, block = _places(base.header)
    source, block = np.where(changed, 0, source + 1), np.where(changed, 0, block)
    # The base and the files that it refers to, if they are still needed.
    files = [Parent(base.name, base.seal.hex()), *base.header.parents]
    needed = [number for number in np.unique(source).tolist() if number]
    numbers = np.zeros(len(files) + 1, np.int64)
    numbers[needed] = range(1, len(needed) + 1)
    extents = _extents(base.header, numbers[source], block)
    return tuple(files[number - 1] for number in needed), extents


def _extents(header: Header, source: Numbers, block: Numbers) -> Extents:
    """The extents of each array, given the source of each block and its place there."""
    arrays = [placed for placed in header.arrays.values() if placed.blocks]
    begins = np.zeros(len(source) + 1, bool)
    begins[1:-1] = (source[1:] != source[:-1]) | ((source[1:] != 0) & (block[1:] != block[:-1] + 1))
    begins[[placed.first_block for placed in arrays]] = True
    begins[-1] = True
    edges = np.flatnonzero(begins)
    rows = zip(
        edges[:-1].tolist(),
        source[edges[:-1]].tolist(),
        block[edges[:-1]].tolist(),
        np.diff(edges).tolist(),
        strict=True,
    )
    owner = {placed.first_block: placed.name for placed in arrays}
    extents: dict[str, list[Extent]] = {name: [] for name in header.arrays}
    name = ""
    for begin, *row in rows:
        name = owner.get(begin, name)
        extents[name].append(Extent(*row))
    return {name: tuple(listed) for name, listed in extents.items()}


def _places(header: Header) -> tuple[Numbers, Numbers]:
    """For each block the source that holds it, and its index among that file's own blocks."""
    extents = [extent for placed in header.arrays.values() for extent in placed.extents]
    rows = np.array([(e.source, e.first, e.count) for e in extents], np.int64).reshape(-1, 3)
    source, first, count = rows.T
    begin = np.cumsum(count) - count
    return np.repeat(source, count), np.repeat(first - begin, count) + np.arange(count.sum())


def located(files: Sequence[Header]) -> tuple[Numbers, Numbers]:
    """For each block of a checkpoint the number of the file that holds it, and the offset there.

    `files` are the headers of the checkpoint and of its parents. Raises `CorruptCheckpoint` if a
    parent lacks a block.
    """
    header = files[0]
    source, block = _places(header)
    sizes = np.full(header.blocks, layout.BLOCK)
    for placed in header.arrays.values():
        if placed.blocks:
            sizes[placed.first_block + placed.blocks - 1] = placed.size(placed.blocks - 1)
    offsets = np.zeros(header.blocks, np.int64)
    for number, file in enumerate(files):
        here = source == number
        offsets[here], held = _own(file, block[here])
        if (held != sizes[here]).any():
            what = f"its parent {header.parents[number - 1].name!r} lacks its blocks"
            raise CorruptCheckpoint(what, hint=USE_OLDER)
    return source, offsets


def _own(header: Header, blocks: Numbers) -> tuple[Numbers, Numbers]:
    """The offsets and sizes of a file's own blocks; size 0 where it has no such block."""
    arrays = [placed for placed in header.arrays.values() if placed.own_blocks]
    if not arrays:
        return np.zeros_like(blocks), np.zeros_like(blocks)
    first = np.array([placed.first_own for placed in arrays])
    count = np.array([placed.own_blocks for placed in arrays])
    begin = np.array([header.data_offset + placed.offset for placed in arrays])
    # Only the last block of an array may be short; its last own one, if that is it.
    last = np.array(
        [layout.BLOCK if a.extents[-1].source else a.size(a.blocks - 1) for a in arrays]
    )
    owner = np.searchsorted(first, blocks, "right") - 1
    index = blocks - first[owner]
    size = np.where(index == count[owner] - 1, last[owner], layout.BLOCK)
    return begin[owner] + index * layout.BLOCK, np.where(
        (index >= 0) & (index < count[owner]), size, 0
    )
