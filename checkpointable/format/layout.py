"""The layout of a file: its arrays, their blocks, digests, seal and signature."""

import math
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import accumulate, chain
from typing import Any, TypeAlias

import numpy as np
from attrs import field, frozen

from checkpointable.arrays import Numbers, bounds
from checkpointable.arrays.boxes import Box
from checkpointable.errors import CorruptCheckpoint, InvalidCheckpoint

BLOCK = 1 << 20
"""Bytes in a block, the unit of digests; the last block of an array may be shorter."""

PAGE = 4096
"""The header is padded to a multiple of this, so that the data is aligned to a page."""

SEAL_SIZE = 32
"""Bytes of a seal and of a signature."""

DIGEST_SIZE = {False: 16, True: 32}
"""Bytes of a block's digest: XXH3-128, and in a signed file SHA-256."""

METADATA, BLOCKS = "checkpointable", "$blocks"
DIGESTS, SEAL, HMAC = "$digests", "$seal", "$hmac"
"""The names of the tensors other than the arrays; `BLOCKS` replaces those in a delta."""

USE_OLDER = "use an older checkpoint"

Bytes: TypeAlias = bytes | bytearray | memoryview
AnyArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Spec: TypeAlias = tuple[np.dtype[Any], tuple[int, ...]]

_RESERVED = {"", ".", "..", "__metadata__", BLOCKS, DIGESTS, SEAL, HMAC}
BAD_CHARACTER = re.compile("[\x00-\x1f/\x7f-\x9f\ud800-\udfff]")
_MAX_RANK = 32


@frozen
class Meta:
    """The metadata of a checkpoint; every part is JSON.

    `schema` and `kernel` are objects, `step` is 0 to 2^63 - 1, `created` is a time for people,
    `nonce` the writer's random hex digits, and `tree` the checkpoint without its arrays. `writer`
    is an object of strings: the versions of `checkpointable` and of the `package` of the class.
    `signed`, which `pack` sets, means that the file ends with a signature; `sharded` that it is a
    manifest, whose arrays are in the files of ranks.
    """

    schema: dict[str, Any]
    kernel: dict[str, Any]
    step: int
    created: str
    nonce: str
    tree: Any
    writer: dict[str, str] = field(factory=dict)
    signed: bool = False
    sharded: bool = False


@frozen
class Extent:
    """`count` consecutive blocks of an array, which are in `source` from its own block `first`.

    Source 0 is the file itself, n its n-th parent.
    """

    source: int
    first: int
    count: int


@frozen
class Parent:
    """Another file that holds some of the blocks: a sibling's name, and its seal in hex."""

    name: str
    seal: str


@frozen
class Part:
    """The box of an array that a rank's file has, the parent of number `source`."""

    source: int
    box: Box


@frozen
class StoredArray:
    """One array of a file: what it is and where; sizes and offsets in bytes.

    `first_block` is an index among the blocks of all arrays, `first_own` among those in the file
    itself; they are equal in a full checkpoint. The array's own blocks are contiguous from
    `offset`, which is relative to the beginning of the file's data. An array of a manifest has
    `parts` instead, and no own blocks.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    first_block: int
    first_own: int
    extents: tuple[Extent, ...]
    parts: tuple[Part, ...] = ()

    @cached_property
    def bounds(self) -> tuple[Numbers, Numbers]:
        """Where its parts begin and end, a row each; computed once for all boxes that are read."""
        return bounds([part.box for part in self.parts], len(self.shape))

    @property
    def blocks(self) -> int:
        """The number of blocks; 0 if the array has no bytes."""
        return -(-self.nbytes // BLOCK)

    @property
    def own_blocks(self) -> int:
        """The number of blocks in the file itself."""
        return sum(extent.count for extent in self.extents if not extent.source)

    def size(self, index: int) -> int:
        """Size of the array's block `index`, counted from 0."""
        return min(BLOCK, self.nbytes - index * BLOCK)

    def own(self) -> Iterable[int]:
        """The indices of the array's blocks that are in the file itself."""
        if self.own_blocks == self.blocks:
            return range(self.blocks)
        ends = accumulate(extent.count for extent in self.extents)
        spans = zip(self.extents, ends, strict=True)
        return chain.from_iterable(range(end - e.count, end) for e, end in spans if not e.source)


@frozen
class Header:
    """The header of a file; `arrays` are in file order, and `blocks` counts all of theirs.

    A file with `parents` is a delta, some of whose blocks are in those, or a manifest: then its
    first parents are the rank files, and the others are the parents of these.
    """

    meta: Meta
    arrays: dict[str, StoredArray]
    parents: tuple[Parent, ...]
    blocks: int
    data_offset: int
    digests_offset: int
    seal_offset: int
    signature_offset: int
    file_size: int

    @property
    def full_size(self) -> int:
        """Bytes of all arrays, in whichever files."""
        return sum(placed.nbytes for placed in self.arrays.values())


def check_array(
    name: str, dtype: np.dtype[Any], shape: tuple[int, ...], error: type[InvalidCheckpoint]
) -> None:
    """Raise `error` unless an array of this dtype and shape can be stored under this name."""
    where = f"array {name!r}"
    if name in _RESERVED or BAD_CHARACTER.search(name) or len(name.encode()) > 255:
        hint = "use 1 to 255 bytes, without slash or control characters"
        raise error("not a valid name for an array", where=where, hint=hint)
    if dtype.subdtype is not None:  # NumPy turns it into more axes
        raise error("an array's dtype cannot have a shape", where=where)
    if len(shape) > _MAX_RANK:
        what = f"{len(shape)} dimensions, but at most {_MAX_RANK} can be stored"
        raise error(what, where=where, hint="reshape the array")
    # Zeros are left out, as in NumPy, which refuses the shape (0, 2**40, 2**40), too.
    if math.prod(n for n in shape if n) * max(dtype.itemsize, 1) >= 2**63:
        raise error("larger than any memory", where=where)


def in_order(specs: Mapping[str, Spec]) -> list[str]:
    """The names of arrays in file order: the widest power of two in the itemsize first.

    In this order each array is aligned without gaps.
    """
    sizes = {name: dtype.itemsize for name, (dtype, _) in specs.items()}
    return sorted(specs, key=lambda name: -(sizes[name] & -sizes[name]))


def plan_layout(
    meta: Meta,
    specs: Mapping[str, Spec],
    parents: tuple[Parent, ...] = (),
    extents: Mapping[str, tuple[Extent, ...]] | None = None,
) -> Header:
    """Lay out the arrays, with offsets as if the data began at 0.

    `extents` are those of a delta; their `first` in the file itself is computed here. Raises
    `CorruptCheckpoint` if they do not have as many blocks as the array.
    """
    arrays: dict[str, StoredArray] = {}
    offset = blocks = own = 0
    for name in in_order(specs):
        dtype, shape = specs[name]
        nbytes = math.prod(shape) * dtype.itemsize
        count = -(-nbytes // BLOCK)
        places: tuple[Extent, ...] = (Extent(0, own, count),) if count else ()
        here, size = count, nbytes
        if extents is not None:
            places, here, size = _own(name, extents[name], own, nbytes)
        arrays[name] = StoredArray(name, dtype, shape, offset, nbytes, blocks, own, places)
        offset += size
        blocks += count
        own += here
    return _header(meta, arrays, parents, blocks, offset)


def plan_manifest(
    meta: Meta,
    specs: Mapping[str, Spec],
    parents: tuple[Parent, ...],
    parts: Mapping[str, tuple[Part, ...]],
) -> Header:
    """Lay out a manifest, which has no data of its own; the parts are not checked."""
    arrays: dict[str, StoredArray] = {}
    for name in in_order(specs):
        dtype, shape = specs[name]
        nbytes = math.prod(shape) * dtype.itemsize
        arrays[name] = StoredArray(name, dtype, shape, 0, nbytes, 0, 0, (), parts[name])
    return _header(meta, arrays, parents, 0, 0)


def _header(
    meta: Meta, arrays: dict[str, StoredArray], parents: tuple[Parent, ...], blocks: int, size: int
) -> Header:
    """The header of a file with `size` bytes of data, which digests, seal and signature follow."""
    seal = size + blocks * DIGEST_SIZE[meta.signed]
    signature = seal + SEAL_SIZE
    end = signature + SEAL_SIZE * meta.signed
    return Header(meta, arrays, parents, blocks, 0, size, seal, signature, end)


def _own(
    name: str, extents: tuple[Extent, ...], first: int, nbytes: int
) -> tuple[tuple[Extent, ...], int, int]:
    """Number an array's own blocks from `first`; return also their number and their bytes."""
    places: list[Extent] = []
    blocks = here = 0
    for extent in extents:
        place = extent if extent.source else Extent(0, first + here, extent.count)
        here += 0 if extent.source else extent.count
        blocks += extent.count
        places.append(place)
    if blocks != -(-nbytes // BLOCK):
        what = f"its extents have {blocks} blocks, which do not fit its shape"
        raise CorruptCheckpoint(what, where=f"array {name!r}", hint=USE_OLDER)
    ends_here = bool(places) and not places[-1].source
    return tuple(places), here, here * BLOCK - (-nbytes % BLOCK if ends_here else 0)


def shifted(draft: Header, data_offset: int) -> Header:
    """The header with all offsets moved, so that the data begins at `data_offset`."""
    d, by = draft, data_offset - draft.data_offset
    offsets = (d.digests_offset + by, d.seal_offset + by, d.signature_offset + by, d.file_size + by)
    return Header(d.meta, d.arrays, d.parents, d.blocks, data_offset, *offsets)


def gather(array: AnyArray, index: int) -> memoryview:
    """The bytes of one block: a view if the array is contiguous, else a copy."""
    begin, end = index * BLOCK, min((index + 1) * BLOCK, array.nbytes)
    if array.flags.c_contiguous:
        return array.reshape(-1).view(np.uint8).data[begin:end]
    size = array.itemsize
    first, last = begin // size, -(-end // size)  # the elements that the block touches
    # As plain bytes: a copy of structured elements would leave their padding uninitialized.
    part = array.view(f"V{size}").flat[first:last].view(np.uint8)
    return part.data[begin - first * size : end - first * size]
