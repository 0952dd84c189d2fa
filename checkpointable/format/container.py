"""The file format: one valid safetensors file per checkpoint, and no I/O.

```
length   u64, little endian: N
header   N bytes of JSON, padded with spaces so that the data begins at a multiple of 4096
data     the arrays, widest alignment first, C order, without holes
         $digests   U8 [blocks, 16]   XXH3-128 (canonical: big endian) of every 1 MiB block
         $seal      U8 [32]           SHA-256 of length, header and digests
```

A signed file has SHA-256 in place of XXH3, `$digests U8 [blocks, 32]`, since data with a given XXH3
is easy to construct; and at the end `$hmac U8 [32]`, the HMAC-SHA-256 of digests and seal.

The one metadata key, "checkpointable", describes the checkpoint and its arrays; everything else in
the header follows from it. So the reader rebuilds the header from that text and demands the same
bytes: no duplicate, unknown or false entry is accepted.

Source: https://github.com/huggingface/safetensors#format (layout, names of dtypes).
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import orjson
from attrs import define, evolve, field, fields_dict

from checkpointable.arrays import in_region, on_host
from checkpointable.errors import CorruptCheckpoint, InvalidCheckpoint
from checkpointable.format import strictjson
from checkpointable.format.blocks import Read, Source, device_digests, read
from checkpointable.format.digests import digest, digests_of, seal, signature
from checkpointable.format.extents import Base, difference, fits
from checkpointable.format.header import (
    arrays_to_json,
    check_meta,
    extents_from_json,
    parents_from_json,
    parts_from_json,
    prefix_of,
    spec_from_json,
)
from checkpointable.format.layout import (
    DIGESTS,
    METADATA,
    PAGE,
    SEAL,
    SEAL_SIZE,
    USE_OLDER,
    Bytes,
    Header,
    Meta,
    Parent,
    Part,
    Spec,
    check_array,
    plan_layout,
    plan_manifest,
    shifted,
)

_FLAGS = ("signed", "sharded")  # of the metadata, there only if they are true

FORMAT = 1
"""The version of the format that this module writes, and the only one that it reads."""


@define(eq=False)
class Packed:
    """A checkpoint ready to be written: `prefix` is the file up to its data.

    `read` yields the bytes of blocks, and `digests` has those of each array whose blocks have been
    digested already. `end` holds the digest table and the seal once all chunks have been yielded.
    """

    header: Header
    prefix: bytes
    read: Read
    digests: Mapping[str, bytes]
    key: bytes | None = field(default=None, repr=False)
    end: tuple[bytes, bytes] | None = field(default=None, init=False, repr=False)

    @property
    def size(self) -> int:
        """Size of the whole file in bytes."""
        return self.header.file_size

    def __iter__(self) -> Iterator[Bytes]:
        """As `chunks()`, which may be called again after a store has failed."""
        return self.chunks()

    def as_full(self) -> "Packed":
        """The same checkpoint as a full one; blocks that are digested are not digested again."""
        header = self.header
        specs = {name: (placed.dtype, placed.shape) for name, placed in header.arrays.items()}
        return _packed(plan_layout(header.meta, specs), self.read, self.key, self.digests)

    def chunks(self) -> Iterator[Bytes]:
        """Yield the whole file, in order, the data in blocks of at most 1 MiB.

        Contiguous arrays are not copied; others are copied block by block, and those on a device
        while the previous blocks are used. The arrays must not change meanwhile. A block is
        digested just before it is yielded, while the cache is warm, unless it was digested on its
        device, or to find out whether it has changed.
        """
        yield self.prefix
        table = bytearray()
        arrays = self.header.arrays.values()
        blocks = self.read((placed, index) for placed in arrays for index in placed.own())
        for placed in arrays:
            known = self.digests.get(placed.name)
            table += known or b""
            for _, block in zip(placed.own(), blocks, strict=False):
                if known is None:
                    table += digest(block, signed=self.header.meta.signed)
                yield block
        yield table
        sealed = seal(self.prefix, table)
        self.end = bytes(table), sealed
        yield sealed
        if self.key is not None:
            yield signature(self.key, table, sealed)


def pack(
    meta: Meta, values: Mapping[str, Any], key: bytes | None = None, base: Base | None = None
) -> Packed:
    """Lay out a checkpoint of arrays, wherever they are; `Packed.chunks()` reads them.

    With a key it will be signed. With a base that has the same arrays it will be a delta, unless
    every block has changed; to find out, host arrays are read now. Arrays in a region of a device
    are digested there now; with a key they are copied to the host, since a device cannot compute
    the digests of a signed file. Raises `InvalidCheckpoint` if a name, dtype, rank (over 32) or the
    metadata cannot be stored, or if the header would exceed 100 MB.

    >>> import numpy as np
    >>> meta = Meta({}, {}, step=7, created="2026-01-01T00:00:00Z", nonce="00", tree={})
    >>> data = b"".join(pack(meta, {"field": np.ones((2, 3), "<f4")}).chunks())
    >>> header = parse(data[: header_size(data[:8], len(data))], len(data))
    >>> header.meta.step, header.arrays["field"].shape, header.data_offset
    (7, (2, 3), 4096)
    """
    stay = key is None
    arrays: dict[str, Source] = {
        name: a if stay and in_region(a) else on_host(a) for name, a in values.items()
    }
    specs = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    for name, (dtype, shape) in specs.items():
        check_array(name, dtype, shape, InvalidCheckpoint)
    meta = _checked(meta, key)
    draft = plan_layout(meta, specs)
    known = {} if meta.signed else device_digests(arrays, draft)
    if base is not None and fits(base, draft):
        others = [placed for name, placed in draft.arrays.items() if name not in known]
        known |= digests_of(others, lambda *place: next(read(arrays, [place])), signed=meta.signed)
        parents, extents = difference(base, b"".join(known[name] for name in draft.arrays))
        if parents:
            draft = plan_layout(meta, specs, parents, extents)
    return _packed(draft, partial(read, arrays), key, known)


def pack_blocks(
    meta: Meta, specs: Mapping[str, Spec], read: Read, key: bytes | None = None
) -> Packed:
    """Lay out a checkpoint of arrays that need not be there at once: `read` yields their blocks."""
    return _packed(plan_layout(_checked(meta, key), specs), read, key, {})


def pack_manifest(
    meta: Meta,
    specs: Mapping[str, Spec],
    parents: tuple[Parent, ...],
    parts: Mapping[str, tuple[Part, ...]],
    key: bytes | None = None,
) -> Packed:
    """Lay out the manifest of a sharded checkpoint; the arrays' `parts` lie in its parents."""
    meta = evolve(_checked(meta, key), sharded=True)
    return _packed(plan_manifest(meta, specs, parents, parts), partial(read, {}), key, {})


def _checked(meta: Meta, key: bytes | None) -> Meta:
    check_meta(meta, InvalidCheckpoint)
    return meta if meta.signed == (key is not None) else evolve(meta, signed=key is not None)


def _packed(draft: Header, read: Read, key: bytes | None, digests: Mapping[str, bytes]) -> Packed:
    meta = draft.meta
    about = {"format": FORMAT} | {part: getattr(meta, part) for part in fields_dict(Meta)}
    for flag in _FLAGS:
        if not about[flag]:
            del about[flag]
    parts = {
        "arrays": arrays_to_json(draft),
        "parents": [(parent.name, parent.seal) for parent in draft.parents],
    }
    prefix = prefix_of(strictjson.dumps(about | parts).decode(), draft)
    return Packed(shifted(draft, len(prefix)), prefix, read, digests, key)


def header_size(start: Bytes, file_size: int) -> int:
    """The offset of the data, from the file's first 8 bytes.

    At most 100 MB and `file_size`; anything larger raises `CorruptCheckpoint`.
    """
    size = 8 + int.from_bytes(start[:8], "little")
    if len(start) < 8 or size % PAGE or size > min(file_size, strictjson.MAX_BYTES):
        what = f"not a checkpoint, or cut short: {file_size} bytes do not hold its header"
        raise CorruptCheckpoint(what, hint=USE_OLDER)
    return size


def parse(prefix: Bytes, file_size: int) -> Header:
    """Parse the header in a file's first `header_size()` bytes, in memory bounded by their size.

    Whatever the bytes, this raises only `CorruptCheckpoint`, or `InvalidCheckpoint` if they need
    another version or ml_dtypes. Trust the result only if `check_seal` passes too.
    """
    prefix = bytes(prefix)
    if header_size(prefix, file_size) != len(prefix):
        raise CorruptCheckpoint("the header is cut short", hint=USE_OLDER)
    outer = strictjson.loads(prefix[8:].rstrip(b" "), "the header")
    kept = outer.get("__metadata__")
    text = kept.get(METADATA) if type(kept) is dict else None
    if type(text) is not str:
        raise CorruptCheckpoint("a safetensors file, but not a checkpoint", hint=USE_OLDER)
    about = strictjson.loads(text.encode(), "the metadata")
    version = about.pop("format", None)
    if type(version) is int and version != FORMAT:
        what = f"the file has format {version}, and this version reads only format {FORMAT}"
        raise InvalidCheckpoint(what, hint=_upgrade(about.get("writer")))
    described, parents = about.pop("arrays", None), about.pop("parents", None)
    if (
        type(version) is not int
        or any(about.get(flag, True) is not True for flag in _FLAGS)
        or about.keys() | {*_FLAGS} != fields_dict(Meta).keys()
        or type(described) is not dict
    ):
        raise CorruptCheckpoint("the metadata lacks a part, or has an unknown one", hint=USE_OLDER)
    meta = Meta(**about)
    check_meta(meta, CorruptCheckpoint)
    sharded = meta.sharded
    specs = {n: spec_from_json(n, entry, sharded=sharded) for n, entry in described.items()}
    named = parents_from_json(parents, sharded=sharded)
    if sharded:
        draft = plan_manifest(meta, specs, named, parts_from_json(described, specs, len(named)))
    else:
        extents = extents_from_json(described, len(named)) if named else None
        draft = plan_layout(meta, specs, named, extents)
    if orjson.dumps(described) != orjson.dumps(arrays_to_json(draft)):
        what = "the arrays are not laid out as the format requires"
        raise CorruptCheckpoint(what, hint=f"{USE_OLDER}, or upgrade checkpointable")
    header = shifted(draft, len(prefix))
    if header.file_size != file_size:
        what = f"the header calls for {header.file_size} bytes, the file has {file_size}"
        raise CorruptCheckpoint(what, hint=USE_OLDER)
    if prefix_of(text, draft) != prefix:
        raise CorruptCheckpoint("the header contradicts its own metadata", hint=USE_OLDER)
    return header


def find_seal(prefix: Bytes, file_size: int) -> tuple[int, int]:
    """The offsets of digests and seal in a file of any version.

    Every version has both, with the same meaning, so that a damaged version number can be told from
    a newer version. Raises `CorruptCheckpoint` if the header, which `parse` refused, lacks them.
    """
    outer = strictjson.loads(bytes(prefix[8:]).rstrip(b" "), "the header")
    try:
        begin, end = outer[DIGESTS]["data_offsets"]
        seal_begin, seal_end = outer[SEAL]["data_offsets"]
    except (KeyError, TypeError, ValueError):
        begin = end = seal_begin = seal_end = -1
    if not (
        all(type(offset) is int for offset in (begin, end, seal_begin, seal_end))
        and 0 <= begin <= end == seal_begin == seal_end - SEAL_SIZE
        and len(prefix) + seal_end <= file_size
        and end - begin <= max(strictjson.MAX_BYTES, file_size // 2**15)
    ):
        raise CorruptCheckpoint("the header does not say where its seal is", hint=USE_OLDER)
    return len(prefix) + begin, len(prefix) + seal_begin


def _upgrade(writer: Any) -> str:
    """What to install; `writer` is from a newer format, so it may be anything."""
    version = version_text(writer.get("checkpointable") if type(writer) is dict else None)
    return f"install checkpointable{f'>={version}' if version else ' in the version that wrote it'}"


def version_text(version: Any) -> str:
    """A version in a file if it looks like one, else empty, since a hint may show it."""
    known = type(version) is str and re.fullmatch(r"[0-9a-z.+!]{1,40}", version)
    return version if known else ""
