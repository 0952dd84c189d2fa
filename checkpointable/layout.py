"""What the header of a file says, and where by that the parts of the file lie."""

import math
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from attrs import evolve, field, frozen

from checkpointable import strictjson
from checkpointable.dtypes import dtype_from_json, dtype_to_json
from checkpointable.errors import CorruptCheckpoint, InvalidCheckpoint

BLOCK = 1 << 20
"""Bytes in a block, the unit of digests; the last block of an array may be shorter."""

PAGE = 4096
"""Bytes of which the header has a multiple, so that the data is aligned to a page."""

SEAL_SIZE = 32
"""Bytes of a seal, and of a signature."""

DIGEST_SIZE = {False: 16, True: 32}
"""Bytes of a block's digest: XXH3-128, and in a signed file SHA-256."""

METADATA, DIGESTS, SEAL, HMAC = "checkpointable", "$digests", "$seal", "$hmac"
"""The names of what a header has beside the arrays."""

OLDER = "use an older checkpoint"

Bytes: TypeAlias = bytes | bytearray | memoryview
AnyArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_RESERVED = {"", ".", "..", "__metadata__", DIGESTS, SEAL, HMAC}
_BAD_CHARACTER = re.compile("[\x00-\x1f/\x7f-\x9f\ud800-\udfff]")
_MAX_RANK = 32
_NATIVE = {
    "|b1": "BOOL", "|i1": "I8", "|u1": "U8", "<i2": "I16", "<u2": "U16", "<i4": "I32",
    "<u4": "U32", "<i8": "I64", "<u8": "U64", "<f2": "F16", "<f4": "F32", "<f8": "F64",
    "<c8": "C64", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip


@frozen
class Meta:
    """What a checkpoint says of itself; every part is JSON as orjson takes it.

    `schema` and `kernel` are objects, `step` is 0 to 2^63 - 1, `created` a time for people,
    `nonce` the writer's random hex digits, `tree` the checkpoint without its arrays. `writer` is
    an object of texts: the versions of `checkpointable` and of the `package` of the class.
    `signed` says that the file ends with a signature, and is set by `pack`.
    """

    schema: dict[str, Any]
    kernel: dict[str, Any]
    step: int
    created: str
    nonce: str
    tree: Any
    writer: dict[str, str] = field(factory=dict)
    signed: bool = False


@frozen
class Placed:
    """One array of a file: what it is, and where; sizes and offsets in bytes.

    `offset` counts from the beginning of the file, `first_block` among all blocks of the file.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    first_block: int

    @property
    def blocks(self) -> int:
        """How many blocks the array has: none if it has no bytes."""
        return -(-self.nbytes // BLOCK)

    def block(self, index: int) -> tuple[int, int]:
        """Offset in the file, and size, of the array's block `index`, counted from 0."""
        return self.offset + index * BLOCK, min(BLOCK, self.nbytes - index * BLOCK)


@frozen
class Header:
    """What the header of a file says. `arrays` is in file order; `blocks` counts all of theirs."""

    meta: Meta
    arrays: dict[str, Placed]
    blocks: int
    digests_offset: int
    seal_offset: int
    signature_offset: int
    file_size: int


def check_array(
    name: str, dtype: np.dtype[Any], shape: tuple[int, ...], error: type[InvalidCheckpoint]
) -> None:
    """Raise `error` unless an array of this kind can be stored under this name."""
    where = f"array {name!r}"
    if name in _RESERVED or _BAD_CHARACTER.search(name) or len(name.encode()) > 255:
        hint = "use 1 to 255 bytes, without slash or control characters"
        raise error("not a name for an array", where=where, hint=hint)
    if dtype.subdtype is not None:  # NumPy makes more axes of it
        raise error("an array's dtype cannot have a shape", where=where)
    if len(shape) > _MAX_RANK:
        what = f"{len(shape)} dimensions, and at most {_MAX_RANK} can be stored"
        raise error(what, where=where, hint="reshape the array")
    # Zeros are left out, as NumPy does: it refuses the shape (0, 2**40, 2**40), too.
    if math.prod(n for n in shape if n) * max(dtype.itemsize, 1) >= 2**63:
        raise error("larger than any memory", where=where)


def check_meta(meta: Meta, error: type[InvalidCheckpoint]) -> None:
    """Raise `error` unless each part is what `Meta` says, but for the tree."""
    if not (
        type(meta.schema) is dict
        and type(meta.kernel) is dict
        and type(meta.step) is int
        and 0 <= meta.step < 2**63
        and type(meta.created) is str
        and type(meta.nonce) is str
        and re.fullmatch("[0-9a-f]*", meta.nonce)
        and type(meta.writer) is dict
        and all(type(text) is str for text in meta.writer.values())
    ):
        raise error("the metadata is not that of a checkpoint", where=f"step {meta.step!r}")


def spec_from_json(name: str, said: Any) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Dtype and shape of an array as a file says them; `CorruptCheckpoint` if it does not."""
    where = f"array {name!r}"
    if type(said) is not dict or said.keys() != {"dtype", "shape", "extents"}:
        raise CorruptCheckpoint("not the description of an array", where=where, hint=OLDER)
    dtype, shape = dtype_from_json(said["dtype"], where), said["shape"]
    if type(shape) is not list or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise CorruptCheckpoint("not a shape", where=where, hint=OLDER)
    check_array(name, dtype, tuple(shape), CorruptCheckpoint)
    return dtype, tuple(shape)


def laid_out(meta: Meta, specs: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> Header:
    """Place the arrays, offsets counted from the beginning of the data."""
    arrays: dict[str, Placed] = {}
    offset = blocks = 0
    # Widest power of two in the itemsize first: then each array is aligned without holes.
    for name in sorted(
        specs, key=lambda name: -(specs[name][0].itemsize & -specs[name][0].itemsize)
    ):
        dtype, shape = specs[name]
        placed = Placed(name, dtype, shape, offset, math.prod(shape) * dtype.itemsize, blocks)
        arrays[name] = placed
        offset += placed.nbytes
        blocks += placed.blocks
    seal = offset + blocks * DIGEST_SIZE[meta.signed]
    signature = seal + SEAL_SIZE
    end = signature + SEAL_SIZE * meta.signed
    return Header(meta, arrays, blocks, offset, seal, signature, end)


def shifted(header: Header, by: int) -> Header:
    """The same with all offsets moved by so many bytes."""
    return evolve(
        header,
        arrays={name: evolve(a, offset=a.offset + by) for name, a in header.arrays.items()},
        digests_offset=header.digests_offset + by,
        seal_offset=header.seal_offset + by,
        signature_offset=header.signature_offset + by,
        file_size=header.file_size + by,
    )


def arrays_to_json(header: Header) -> dict[str, Any]:
    """What the metadata says of the arrays; their extents are those of a full checkpoint."""
    return {
        name: {
            "dtype": dtype_to_json(placed.dtype, f"array {name!r}"),
            "shape": placed.shape,
            "extents": [[0, placed.first_block, placed.blocks]] if placed.blocks else [],
        }
        for name, placed in header.arrays.items()
    }


def prefix_of(text: str, draft: Header) -> bytes:
    """Build length and header from the metadata's text and offsets that begin at the data."""
    tensors: dict[str, Any] = {"__metadata__": {METADATA: text}}
    for name, a in draft.arrays.items():
        native, shape = _NATIVE.get(str(dtype_to_json(a.dtype))), a.shape
        tensors[name] = {
            "dtype": native or "U8",
            "shape": shape if native else (*shape, a.dtype.itemsize),
            "data_offsets": (a.offset, a.offset + a.nbytes),
        }
    digest_size = DIGEST_SIZE[draft.meta.signed]
    for name, begin, end, shape in (
        (DIGESTS, draft.digests_offset, draft.seal_offset, (draft.blocks, digest_size)),
        (SEAL, draft.seal_offset, draft.signature_offset, (SEAL_SIZE,)),
        (HMAC, draft.signature_offset, draft.file_size, (SEAL_SIZE,)),
    ):
        if name != HMAC or draft.meta.signed:
            tensors[name] = {"dtype": "U8", "shape": shape, "data_offsets": (begin, end)}
    header = strictjson.dumps(tensors)
    size = -(-(8 + len(header)) // PAGE) * PAGE
    if size > strictjson.MAX_BYTES:
        raise InvalidCheckpoint(
            f"a header of {size} bytes is over {strictjson.MAX_BYTES}", hint=strictjson.BULK
        )
    return (size - 8).to_bytes(8, "little") + header.ljust(size - 8)


def gather(array: AnyArray, index: int) -> memoryview:
    """Give the bytes of one block: a view if the array is contiguous, else a copy."""
    begin, end = index * BLOCK, min((index + 1) * BLOCK, array.nbytes)
    if array.flags.c_contiguous:
        return array.reshape(-1).view(np.uint8).data[begin:end]
    size = array.itemsize
    first, last = begin // size, -(-end // size)  # the elements that the block touches
    # As plain bytes: a copy of structured elements would leave their padding uninitialised.
    part = array.view(f"V{size}").flat[first:last].view(np.uint8)
    return part.data[begin - first * size : end - first * size]
