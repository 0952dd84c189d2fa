"""The file format: one valid safetensors file per checkpoint, and no I/O.

```
length   u64, little endian: N
header   N bytes of JSON, padded with spaces so that the data begins at a multiple of 4096
data     the arrays, widest alignment first, C order, without holes
         $digests   U8 [blocks, 16]   XXH3-128 (canonical: big endian) of every 1 MiB block
         $seal      U8 [32]           SHA-256 of length, header and digests
```

A signed file has SHA-256 in place of XXH3, `$digests U8 [blocks, 32]`, since other data of the same
XXH3 can be made at will; and in the end `$hmac U8 [32]`, the HMAC-SHA-256 of digests and seal.

The one metadata key, "checkpointable", says what the checkpoint is and which arrays it has; all
else in the header follows from that. So the reader builds the header that the text calls for and
demands the very same bytes: no duplicate, unknown or lying entry survives.

Sources: https://github.com/huggingface/safetensors#format (layout, names of dtypes),
https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md (XXH3, canonical form) and RFC 2104
(HMAC).
"""

import hashlib
import hmac
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import orjson
import xxhash
from attrs import evolve, field, fields_dict, frozen

from checkpointable import strictjson
from checkpointable.dtypes import dtype_from_json, dtype_to_json
from checkpointable.errors import CorruptCheckpoint, InvalidCheckpoint

BLOCK = 1 << 20
"""Bytes in a block, the unit of digests; the last block of an array may be shorter."""

FORMAT = 1
"""The version of the format that this module writes, and the only one that it reads."""

SEAL_SIZE = 32
"""Bytes of a seal, and of a signature."""

Bytes: TypeAlias = bytes | bytearray | memoryview
AnyArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_PAGE = 4096
_XXH3, _SHA = 16, SEAL_SIZE
_KEY, _DIGESTS, _SEAL, _HMAC = "checkpointable", "$digests", "$seal", "$hmac"
_RESERVED = {"", ".", "..", "__metadata__", _DIGESTS, _SEAL, _HMAC}
_LEAST_KEY = 16
_BAD_CHARACTER = re.compile("[\x00-\x1f/\x7f-\x9f\ud800-\udfff]")
_MAX_RANK = 32
_OLDER = "use an older checkpoint"
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


@frozen(eq=False)
class Packed:
    """A checkpoint ready to be written: `prefix` is the file up to its data."""

    header: Header
    prefix: bytes
    arrays: dict[str, AnyArray]
    key: bytes | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        """Size of the whole file in bytes."""
        return self.header.file_size

    def chunks(self) -> Iterator[Bytes]:
        """Yield the whole file, in order, the data by blocks of at most 1 MiB.

        Contiguous arrays are not copied, others by the block. The arrays must not change
        meanwhile: each block is digested just before it is yielded, while the cache is warm.
        """
        yield self.prefix
        table = bytearray()
        for placed in self.header.arrays.values():
            for index in range(placed.blocks):
                block = _gather(self.arrays[placed.name], index)
                table += digest(block, signed=self.key is not None)
                yield block
        yield table
        seal = hashlib.sha256(self.prefix + table).digest()
        yield seal
        if self.key is not None:
            yield _signature(self.key, table, seal)


def check_key(key: bytes | None) -> None:
    """Raise `ValueError` unless it is None, or 16 bytes or more."""
    if key is not None and (type(key) is not bytes or len(key) < _LEAST_KEY):
        raise ValueError(f"a key is at least {_LEAST_KEY} random bytes, such as os.urandom(32)")


def pack(meta: Meta, arrays: Mapping[str, AnyArray], key: bytes | None = None) -> Packed:
    """Lay out a checkpoint; the arrays are kept by reference, and read by `Packed.chunks()`.

    With a key it will be signed. Raises `InvalidCheckpoint` if a name, dtype, rank (over 32) or
    the metadata cannot be stored, or if the header would exceed 100 MB.

    >>> meta = Meta({}, {}, step=7, created="2026-01-01T00:00:00Z", nonce="00", tree={})
    >>> data = b"".join(pack(meta, {"field": np.ones((2, 3), "<f4")}).chunks())
    >>> header = parse(data[: header_size(data[:8], len(data))], len(data))
    >>> header.meta.step, header.arrays["field"].shape, header.arrays["field"].offset
    (7, (2, 3), 4096)
    """
    _check_meta(meta, InvalidCheckpoint)
    for name, array in arrays.items():
        _check_array(name, array.dtype, array.shape, InvalidCheckpoint)
    meta = evolve(meta, signed=key is not None)
    draft = _layout(meta, {name: (array.dtype, array.shape) for name, array in arrays.items()})
    about = {"format": FORMAT} | {part: getattr(meta, part) for part in fields_dict(Meta)}
    if not meta.signed:
        del about["signed"]
    text = strictjson.dumps(about | {"arrays": _describe(draft), "parents": []})
    prefix = _prefix(text.decode(), draft)
    return Packed(
        _shifted(draft, len(prefix)),
        prefix,
        dict(arrays),
        key,
    )


def header_size(start: Bytes, file_size: int) -> int:
    """Bytes from the beginning of the file to its data, by the file's first 8 bytes.

    At most 100 MB and `file_size`; whatever asks for more raises `CorruptCheckpoint`.
    """
    size = 8 + int.from_bytes(start[:8], "little")
    if len(start) < 8 or size % _PAGE or size > min(file_size, strictjson.MAX_BYTES):
        what = f"not a checkpoint, or cut short: {file_size} bytes do not hold its header"
        raise CorruptCheckpoint(what, hint=_OLDER)
    return size


def parse(prefix: Bytes, file_size: int) -> Header:
    """Read the header from the file's first `header_size()` bytes, in memory bounded by theirs.

    Whatever the bytes, it raises only `CorruptCheckpoint`, or `InvalidCheckpoint` if they need
    another version or ml_dtypes. Believe either when `check_seal` passes too.
    """
    prefix = bytes(prefix)
    if header_size(prefix, file_size) != len(prefix):
        raise CorruptCheckpoint("the header is cut short", hint=_OLDER)
    outer = strictjson.loads(prefix[8:].rstrip(b" "), "the header")
    kept = outer.get("__metadata__")
    text = kept.get(_KEY) if type(kept) is dict else None
    if type(text) is not str:
        raise CorruptCheckpoint("a safetensors file, but not a checkpoint", hint=_OLDER)
    about = strictjson.loads(text.encode(), "the metadata")
    version = about.pop("format", None)
    if type(version) is int and version != FORMAT:
        what = f"the file has format {version}, and this version reads only format {FORMAT}"
        raise InvalidCheckpoint(what, hint=_upgrade(about.get("writer")))
    described, parents = about.pop("arrays", None), about.pop("parents", None)
    if type(parents) is list and parents:
        what = "the file continues others, which this version cannot read"
        raise InvalidCheckpoint(what, hint=_upgrade(about.get("writer")))
    if (
        type(version) is not int
        or about.get("signed", True) is not True
        or about.keys() | {"signed"} != fields_dict(Meta).keys()
        or type(described) is not dict
    ):
        raise CorruptCheckpoint("the metadata lacks a part, or has one too many", hint=_OLDER)
    meta = Meta(**about)
    _check_meta(meta, CorruptCheckpoint)
    draft = _layout(meta, {name: _read_array(name, said) for name, said in described.items()})
    if parents != [] or orjson.dumps(described) != orjson.dumps(_describe(draft)):
        what = "the arrays lie otherwise than in a full checkpoint"
        raise CorruptCheckpoint(what, hint=f"{_OLDER}, or upgrade checkpointable")
    header = _shifted(draft, len(prefix))
    if header.file_size != file_size:
        what = f"the header calls for {header.file_size} bytes, the file has {file_size}"
        raise CorruptCheckpoint(what, hint=_OLDER)
    if _prefix(text, draft) != prefix:
        raise CorruptCheckpoint("the header contradicts its own metadata", hint=_OLDER)
    return header


def find_seal(prefix: Bytes, file_size: int) -> tuple[int, int]:
    """Offsets in the file of digests and seal, of whatever version the file is.

    Every version has both, with this meaning: so damage to its number is told from a newer one.
    Raises `CorruptCheckpoint` if the header, which `parse` refused, does not say where they are.
    """
    outer = strictjson.loads(bytes(prefix[8:]).rstrip(b" "), "the header")
    try:
        begin, end = outer[_DIGESTS]["data_offsets"]
        seal, seal_end = outer[_SEAL]["data_offsets"]
    except (KeyError, TypeError, ValueError):
        begin = end = seal = seal_end = -1
    if not (
        all(type(offset) is int for offset in (begin, end, seal, seal_end))
        and 0 <= begin <= end == seal == seal_end - SEAL_SIZE
        and len(prefix) + seal_end <= file_size
        and end - begin <= max(strictjson.MAX_BYTES, file_size // 2**15)
    ):
        raise CorruptCheckpoint("the header does not say where its seal is", hint=_OLDER)
    return len(prefix) + begin, len(prefix) + seal


def check_seal(prefix: Bytes, table: Bytes, seal: Bytes) -> None:
    """Raise `CorruptCheckpoint` unless `seal` covers these header bytes and digests."""
    sha = hashlib.sha256(prefix)
    sha.update(table)
    if sha.digest() != seal:
        raise CorruptCheckpoint("the seal does not match: the header is damaged", hint=_OLDER)


def check_signature(key: bytes, header: Header, table: Bytes, seal: Bytes, said: Bytes) -> None:
    """Raise `CorruptCheckpoint` unless the file is signed with this key."""
    if not header.meta.signed:
        hint = "use one that was saved with the key, or load it without a key if you trust it"
        raise CorruptCheckpoint("it is not signed, and a key was given", hint=hint)
    if not hmac.compare_digest(_signature(key, table, seal), said):
        what = "the signature does not match: another key, or someone altered the file"
        raise CorruptCheckpoint(what, hint=_OLDER)


def check_block(
    placed: Placed, index: int, block: Bytes, table: Bytes, *, signed: bool = False
) -> None:
    """Raise `CorruptCheckpoint`, naming array and block, unless the table has this digest."""
    size = _SHA if signed else _XXH3
    begin = (placed.first_block + index) * size
    if digest(block, signed=signed) != table[begin : begin + size]:
        where = f"array {placed.name!r}, block {index} of {placed.blocks}"
        raise CorruptCheckpoint("the data is damaged", where=where, hint=_OLDER)


def digest(block: Bytes, *, signed: bool = False) -> bytes:
    """XXH3-128 of a block: 16 bytes, big endian; in a signed file SHA-256, 32 bytes.

    >>> digest(b"").hex()
    '99aa06d3014798d86001c324468d497f'
    """
    return hashlib.sha256(block).digest() if signed else xxhash.xxh3_128_digest(block)


def _signature(key: bytes, table: Bytes, seal: Bytes) -> bytes:
    return hmac.digest(key, bytes(table) + bytes(seal), "sha256")


def _read_array(name: str, said: Any) -> tuple[np.dtype[Any], tuple[int, ...]]:
    where = f"array {name!r}"
    if type(said) is not dict or said.keys() != {"dtype", "shape", "extents"}:
        raise CorruptCheckpoint("not the description of an array", where=where, hint=_OLDER)
    dtype, shape = dtype_from_json(said["dtype"], where), said["shape"]
    if type(shape) is not list or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise CorruptCheckpoint("not a shape", where=where, hint=_OLDER)
    _check_array(name, dtype, tuple(shape), CorruptCheckpoint)
    return dtype, tuple(shape)


def _check_array(
    name: str, dtype: np.dtype[Any], shape: tuple[int, ...], error: type[InvalidCheckpoint]
) -> None:
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


def _check_meta(meta: Meta, error: type[InvalidCheckpoint]) -> None:
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


def _upgrade(writer: Any) -> str:
    """What to install; `writer` is as a newer format has it, so nothing is known of it."""
    version = version_text(writer.get("checkpointable") if type(writer) is dict else None)
    return f"install checkpointable{f'>={version}' if version else ' in the version that wrote it'}"


def version_text(version: Any) -> str:
    """A version as a file tells it, if it can be one; else empty, since a hint may repeat it."""
    known = type(version) is str and re.fullmatch(r"[0-9a-z.+!]{1,40}", version)
    return version if known else ""


def _layout(meta: Meta, specs: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> Header:
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
    seal = offset + blocks * (_SHA if meta.signed else _XXH3)
    signature = seal + _SHA
    end = signature + _SHA * meta.signed
    return Header(meta, arrays, blocks, offset, seal, signature, end)


def _shifted(header: Header, by: int) -> Header:
    return evolve(
        header,
        arrays={name: evolve(a, offset=a.offset + by) for name, a in header.arrays.items()},
        digests_offset=header.digests_offset + by,
        seal_offset=header.seal_offset + by,
        signature_offset=header.signature_offset + by,
        file_size=header.file_size + by,
    )


def _describe(header: Header) -> dict[str, Any]:
    return {
        name: {
            "dtype": dtype_to_json(placed.dtype, f"array {name!r}"),
            "shape": placed.shape,
            "extents": [[0, placed.first_block, placed.blocks]] if placed.blocks else [],
        }
        for name, placed in header.arrays.items()
    }


def _prefix(text: str, draft: Header) -> bytes:
    """Build length and header from the metadata's text and offsets that begin at the data."""
    tensors: dict[str, Any] = {"__metadata__": {_KEY: text}}
    for name, a in draft.arrays.items():
        native, shape = _NATIVE.get(str(dtype_to_json(a.dtype))), a.shape
        tensors[name] = {
            "dtype": native or "U8",
            "shape": shape if native else (*shape, a.dtype.itemsize),
            "data_offsets": (a.offset, a.offset + a.nbytes),
        }
    digest_size = _SHA if draft.meta.signed else _XXH3
    for name, begin, end, shape in (
        (_DIGESTS, draft.digests_offset, draft.seal_offset, (draft.blocks, digest_size)),
        (_SEAL, draft.seal_offset, draft.signature_offset, (_SHA,)),
        (_HMAC, draft.signature_offset, draft.file_size, (_SHA,)),
    ):
        if name != _HMAC or draft.meta.signed:
            tensors[name] = {"dtype": "U8", "shape": shape, "data_offsets": (begin, end)}
    header = strictjson.dumps(tensors)
    size = -(-(8 + len(header)) // _PAGE) * _PAGE
    if size > strictjson.MAX_BYTES:
        raise InvalidCheckpoint(
            f"a header of {size} bytes is over {strictjson.MAX_BYTES}", hint=strictjson.BULK
        )
    return (size - 8).to_bytes(8, "little") + header.ljust(size - 8)


def _gather(array: AnyArray, index: int) -> memoryview:
    """Give the bytes of one block: a view if the array is contiguous, else a copy."""
    begin, end = index * BLOCK, min((index + 1) * BLOCK, array.nbytes)
    if array.flags.c_contiguous:
        return array.reshape(-1).view(np.uint8).data[begin:end]
    size = array.itemsize
    first, last = begin // size, -(-end // size)  # the elements that the block touches
    # As plain bytes: a copy of structured elements would leave their padding uninitialised.
    part = array.view(f"V{size}").flat[first:last].view(np.uint8)
    return part.data[begin - first * size : end - first * size]
