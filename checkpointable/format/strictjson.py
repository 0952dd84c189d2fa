"""JSON within bounds, whose only accepted spelling is the one that is written."""

import re
from typing import Any

import orjson

from checkpointable.errors import CorruptCheckpoint, InvalidCheckpoint

MAX_BYTES = 100_000_000
"""The longest text: the bound of safetensors for its header."""

MAX_TOKENS = 5_000_000
"""The most values: without this bound parsed JSON takes up to 28 times the memory of its text."""

_NUMBER = re.compile(rb"[0-9+\-.eE]+")

BULK = "put bulk data in arrays: everything else of a checkpoint goes into its header"


def dumps(value: Any) -> bytes:
    """Write a value; raises `InvalidCheckpoint` if it nests too deeply or exceeds the limits."""
    try:
        text = orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        what = f"the checkpoint cannot be written as JSON: {error}"
        raise InvalidCheckpoint(
            what, hint="nest it less deep, or put the data in arrays"
        ) from error
    if len(text) > MAX_BYTES or _tokens(text) > MAX_TOKENS:
        what = f"{len(text)} bytes of JSON are over {MAX_BYTES}, or over {MAX_TOKENS} values"
        raise InvalidCheckpoint(what, hint=BULK)
    return text


def loads(text: bytes, what: str) -> dict[str, Any]:
    """Parse an object, which must be spelled as orjson spells it, so that no key occurs twice.

    The spelling of floats is not checked, since versions of orjson differ in it.
    """
    try:
        value = orjson.loads(text) if _tokens(text) <= MAX_TOKENS else None
        again = orjson.dumps(value)  # which refuses what nests deeper than 254
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        value, again = None, b""
    if type(value) is not dict or not (again == text or _alike(again, text)):
        raise CorruptCheckpoint(
            f"{what} is not JSON as a checkpoint has it", hint="use an older checkpoint"
        )
    return value


def _alike(again: bytes, text: bytes) -> bool:
    """Whether only floats are spelled differently; no integer became one, as 2^64 would."""
    if _NUMBER.sub(b"0", again) != _NUMBER.sub(b"0", text):
        return False
    pairs = zip(_NUMBER.finditer(again), _NUMBER.finditer(text), strict=True)
    return all(a[0] == b[0] or re.search(rb"[.eE]", b[0]) for a, b in pairs)


def _tokens(text: bytes) -> int:
    return sum(map(text.count, (b",", b"[", b"{")))
