"""The digest of each block, the seal over them, and the signature.

Sources: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md (XXH3, canonical form), FIPS
180-4 (SHA-256) and RFC 2104 (HMAC).
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable

import xxhash

from checkpointable.errors import CorruptCheckpoint
from checkpointable.format.layout import USE_OLDER, Bytes, Header, StoredArray
from checkpointable.threads import THREADS, parallel_map

_LEAST_KEY = 16
_SHARE = 16  # blocks


def digest(block: Bytes, *, signed: bool = False) -> bytes:
    """XXH3-128 of a block: 16 bytes, big endian; in a signed file SHA-256, 32 bytes.

    >>> digest(b"").hex()
    '99aa06d3014798d86001c324468d497f'
    """
    return hashlib.sha256(block).digest() if signed else xxhash.xxh3_128_digest(block)


def digests_of(
    arrays: Iterable[StoredArray], block: Callable[[StoredArray, int], Bytes], *, signed: bool
) -> dict[str, bytes]:
    """The digests of arrays by name, computed by threads; `block` returns a block's bytes."""
    shares = [
        (placed, range(begin, min(begin + _SHARE, placed.blocks)))
        for placed in arrays
        for begin in range(0, max(placed.blocks, 1), _SHARE)
    ]

    def table(share: tuple[StoredArray, range]) -> bytes:
        placed, indices = share
        return b"".join(digest(block(placed, index), signed=signed) for index in indices)

    digests: dict[str, bytes] = {}
    tables = parallel_map(table, shares, THREADS, "digest")
    for (placed, _), part in zip(shares, tables, strict=True):
        digests[placed.name] = digests.get(placed.name, b"") + part
    return digests


def seal(prefix: Bytes, table: Bytes) -> bytes:
    """SHA-256 of a file's length word, header and digest table: 32 bytes."""
    sha = hashlib.sha256(prefix)
    sha.update(table)
    return sha.digest()


def signature(key: bytes, table: Bytes, seal: Bytes) -> bytes:
    """HMAC-SHA-256 of the digest table and the seal: 32 bytes."""
    return hmac.digest(key, bytes(table) + bytes(seal), "sha256")


def check_block(
    placed: StoredArray,
    index: int,
    block: Bytes,
    table: Bytes,
    *,
    signed: bool = False,
    source: str = "",
) -> None:
    """Raise `CorruptCheckpoint`, naming the array and block, unless the table has its digest.

    `source` is the name of the parent that the block comes from, if any.
    """
    check_digest(placed, index, digest(block, signed=signed), table, source)


def check_digest(
    placed: StoredArray, index: int, digest: bytes, table: Bytes, source: str = ""
) -> None:
    """Raise as `check_block` does, for a block whose digest is known."""
    begin = (placed.first_block + index) * len(digest)
    if digest != table[begin : begin + len(digest)]:
        where = f"array {placed.name!r}, block {index} of {placed.blocks}"
        where += f", in {source!r}" if source else ""
        raise CorruptCheckpoint("the data is damaged", where=where, hint=USE_OLDER)


def check_seal(prefix: Bytes, table: Bytes, stored: Bytes) -> None:
    """Raise `CorruptCheckpoint` unless `stored` is the seal of the header and the digest table."""
    if seal(prefix, table) != stored:
        raise CorruptCheckpoint("the seal does not match: the header is damaged", hint=USE_OLDER)


def check_signature(key: bytes, header: Header, table: Bytes, seal: Bytes, stored: Bytes) -> None:
    """Raise `CorruptCheckpoint` unless the file is signed with this key."""
    if not header.meta.signed:
        hint = "use one that was saved with the key, or load it without a key if you trust it"
        raise CorruptCheckpoint("it is not signed, but a key was given", hint=hint)
    if not hmac.compare_digest(signature(key, table, seal), stored):
        what = "the signature does not match: it is by another key, or the file was altered"
        raise CorruptCheckpoint(what, hint=USE_OLDER)


def check_key(key: bytes | None) -> None:
    """Raise `ValueError` unless it is None, or 16 bytes or more."""
    if key is not None and (type(key) is not bytes or len(key) < _LEAST_KEY):
        raise ValueError(f"a key is at least {_LEAST_KEY} random bytes, such as os.urandom(32)")
