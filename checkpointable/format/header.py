"""The header of a file as JSON, written and parsed; nothing in it is trusted unchecked."""

import re
from collections.abc import Mapping
from typing import Any

from checkpointable.arrays import check_boxes, dtype_from_json, dtype_to_json
from checkpointable.errors import CorruptCheckpoint, InvalidCheckpoint
from checkpointable.format import strictjson
from checkpointable.format.layout import (
    BAD_CHARACTER,
    BLOCKS,
    DIGEST_SIZE,
    DIGESTS,
    HMAC,
    METADATA,
    PAGE,
    SEAL,
    SEAL_SIZE,
    USE_OLDER,
    Extent,
    Header,
    Meta,
    Parent,
    Part,
    Spec,
    check_array,
)

_MAX_PARENTS = {
    False: 256,
    True: 1 << 20,
}  # of a delta; of a manifest: its rank files, and their parents
_NATIVE = {
    "|b1": "BOOL", "|i1": "I8", "|u1": "U8", "<i2": "I16", "<u2": "U16", "<i4": "I32",
    "<u4": "U32", "<i8": "I64", "<u8": "U64", "<f2": "F16", "<f4": "F32", "<f8": "F64",
    "<c8": "C64", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip


def check_meta(meta: Meta, error: type[InvalidCheckpoint]) -> None:
    """Raise `error` unless each part, except the tree, is as `Meta` describes it."""
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


def spec_from_json(name: str, value: Any, *, sharded: bool) -> Spec:
    """The dtype and shape of an array in a header; raises `CorruptCheckpoint` if invalid."""
    where = f"array {name!r}"
    keys = {"dtype", "shape", "shards" if sharded else "extents"}
    if type(value) is not dict or value.keys() != keys:
        raise CorruptCheckpoint("not the description of an array", where=where, hint=USE_OLDER)
    dtype, shape = dtype_from_json(value["dtype"], where), value["shape"]
    if type(shape) is not list or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise CorruptCheckpoint("not a shape", where=where, hint=USE_OLDER)
    check_array(name, dtype, tuple(shape), CorruptCheckpoint)
    return dtype, tuple(shape)


def parents_from_json(value: Any, *, sharded: bool) -> tuple[Parent, ...]:
    """The parents in a header; raises `CorruptCheckpoint` unless they are names and seals."""
    pairs: list[Any] = [()]
    if type(value) is list and len(value) <= _MAX_PARENTS[sharded]:
        pairs = value
    for pair in pairs:
        if not (
            type(pair) is list
            and [type(part) for part in pair] == [str, str]
            and 1 <= len(pair[0].encode(errors="replace")) <= 255
            and not pair[0].startswith(".")
            and not BAD_CHARACTER.search(pair[0])
            and re.fullmatch("[0-9a-f]{64}", pair[1])
        ):
            raise CorruptCheckpoint("invalid parents", hint=USE_OLDER)
    parents = tuple(Parent(*pair) for pair in pairs)
    if sharded and len({parent.name for parent in parents}) < len(parents):
        raise CorruptCheckpoint("a rank's file is listed twice", hint=USE_OLDER)
    return parents


def extents_from_json(described: Mapping[str, Any], parents: int) -> dict[str, tuple[Extent, ...]]:
    """The extents of each array, for `plan_layout`; raises `CorruptCheckpoint` if invalid.

    No block of a parent is referred to twice, so reading takes at most what the files hold.
    """
    extents: dict[str, tuple[Extent, ...]] = {}
    least = [0] * (parents + 1)  # the next block of each source that may be referred to
    for name, entry in described.items():
        rows: list[Any] = entry["extents"] if type(entry["extents"]) is list else [None]
        source = -1
        for row in rows:
            if not (
                type(row) is list
                and [type(part) for part in row] == [int, int, int]
                and 0 <= row[0] <= parents
                and least[row[0]] + (row[0] == source)
                <= row[1]
                < 2**43  # adjacent ones would be one
                and 0 < row[2] < 2**43
            ):
                raise CorruptCheckpoint("invalid extents", where=f"array {name!r}", hint=USE_OLDER)
            source = row[0]
            least[source] = row[1] + row[2]
        extents[name] = tuple(Extent(*row) for row in rows)
    if not all(least[1:]):
        raise CorruptCheckpoint("a parent is listed but never used", hint=USE_OLDER)
    return extents


def parts_from_json(
    described: Mapping[str, Any], specs: Mapping[str, Spec], parents: int
) -> dict[str, tuple[Part, ...]]:
    """The parts of each array in a manifest; raises `CorruptCheckpoint` unless they cover it.

    A rank's file has at most one part of an array.
    """
    parts: dict[str, tuple[Part, ...]] = {}
    for name, entry in described.items():
        where, rows = f"array {name!r}", entry["shards"]
        rank, source = len(specs[name][1]), 0
        for row in rows if type(rows) is list else [None]:
            if not (
                type(row) is list
                and [type(part) for part in row] == [int, list, list]
                and source < row[0] <= parents
                and [len(part) for part in row[1:]] == [rank, rank]
                and all(type(n) is int and 0 <= n < 2**62 for part in row[1:] for n in part)
            ):
                raise CorruptCheckpoint("invalid shards", where=where, hint=USE_OLDER)
            source = row[0]
        parts[name] = tuple(Part(n, (tuple(offset), tuple(size))) for n, offset, size in rows)
        check_boxes([p.box for p in parts[name]], specs[name][1], where, CorruptCheckpoint)
    return parts


def arrays_to_json(header: Header) -> dict[str, Any]:
    """The description of the arrays in the metadata."""
    return {
        name: {
            "dtype": dtype_to_json(placed.dtype, f"array {name!r}"),
            "shape": placed.shape,
            **(
                {"shards": [(part.source, *part.box) for part in placed.parts]}
                if header.meta.sharded
                else {"extents": [(e.source, e.first, e.count) for e in placed.extents]}
            ),
        }
        for name, placed in header.arrays.items()
    }


def prefix_of(text: str, draft: Header) -> bytes:
    """Build the length and the header from the metadata and the offsets within the data."""
    tensors: dict[str, Any] = {"__metadata__": {METADATA: text}}
    elsewhere = bool(draft.parents) or draft.meta.sharded
    if elsewhere:
        size = draft.digests_offset
        tensors[BLOCKS] = {"dtype": "U8", "shape": (size,), "data_offsets": (0, size)}
    for name, a in () if elsewhere else draft.arrays.items():
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
