"""Almost valid checkpoint files, each made from a string of choices.

Every byte of the string is a choice; where it ends, all further ones are 0. So Hypothesis, atheris
and plain random bytes can drive it. A file is changed in its JSON, and then in most cases sealed as
if a writer had meant it so: what is wrong with it lies behind seal and digests.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import orjson

from checkpointable.format import digests
from tests.hostile.changes import Below, changed, hostile, pick
from tests.hostile.forge import Base, assembled, bases, dumps, places, plan_layout, with_text
from tests.hostile.pools import (
    DTYPES,
    EXTENTS,
    NAMES,
    NUMBERS,
    PARENTS,
    PAYLOADS,
    RAW,
    SHAPES,
    VALUES,
)

OFTEN = (0, 0, 0, 1, 1, 1, 2, 3, 3, 4, 5)
"""Which base, how often: that of many arrays takes thrice as long to read."""


def make(choices: bytes) -> bytes:
    """Make one file."""
    below = picker(choices)
    known = bases()
    return WAYS[below(len(WAYS))](known[OFTEN[below(len(OFTEN))]], below)


def picker(choices: bytes) -> Below:
    """Give numbers below what is asked for, from a string."""
    rest = iter(choices)

    def below(limit: int) -> int:
        value = next(rest, 0)
        if limit > 256:
            value = value << 8 | next(rest, 0)
        return value % limit

    return below


def _tree(base: Base, below: Below) -> bytes:
    about = base.about
    for _ in range(1 + below(3)):
        path = base.tree[below(len(base.tree))]
        about = changed(about, path, lambda value: hostile(value, below))
    return with_text(base, dumps(about))


def _one_value(base: Base, below: Below) -> bytes:
    """A tag keeps its name and gets another content: nothing but what is in it is wrong."""
    path = base.tree[below(len(base.tree))]

    def change(value: Any) -> Any:
        if type(value) is dict and len(value) == 1 and next(iter(value)).startswith("$"):
            return dict.fromkeys(value, pick(PAYLOADS, below))
        return hostile(value, below)

    return with_text(base, dumps(changed(base.about, path, change)))


def _about(base: Base, below: Below) -> bytes:
    key = [*base.about][below(len(base.about))]
    pool = {"parents": PARENTS, "format": NUMBERS, "step": NUMBERS}.get(key)
    if pool and below(2):
        return with_text(base, dumps(base.about | {key: pick(pool, below)}))
    inside = places(base.about[key], (key,)) if key != "tree" else [("tree",)]
    path = inside[below(len(inside))]
    return with_text(base, dumps(changed(base.about, path, lambda v: hostile(v, below))))


def _arrays(base: Base, below: Below) -> bytes:
    arrays = base.about["arrays"]
    if not arrays:
        return with_text(base, dumps(base.about | {"arrays": pick(VALUES, below)}))
    name = [*arrays][below(len(arrays))]
    about = base.about
    for _ in range(1 + below(2)):
        way = below(6)
        if way == 5:
            return _renamed(base, about, name, below)
        if way == 4:
            path = base.arrays[below(len(base.arrays))]
            about = changed(about, path, lambda value: hostile(value, below))
        else:
            part = ("dtype", "dtype", "shape", "extents")[way]
            new = pick({"dtype": DTYPES, "shape": SHAPES, "extents": EXTENTS}[part], below)
            about = changed(about, ("arrays", name, part), lambda _, new=new: new)  # type: ignore[misc]
    return plan_layout(base, about, bool(below(4)))


def _renamed(base: Base, about: dict[str, Any], name: str, below: Below) -> bytes:
    """An array of another name, in the tree too, or only where it lies."""
    other = pick(NAMES, below)
    kept = {other if key == name else key: entry for key, entry in base.about["arrays"].items()}
    about = about | {"arrays": kept}
    if below(2):
        tree = dumps(base.about["tree"]).replace(dumps(name), dumps(other))
        about["tree"] = orjson.Fragment(tree)
    return plan_layout(base, about)


def _text(base: Base, below: Below) -> bytes:
    """The metadata's text, changed as text: spellings, duplicates, blanks, brackets."""
    text, at = base.text, below(len(base.text))
    match below(6):
        case 0:
            text = text[:at] + pick(RAW, below) + text[at:]
        case 1:
            at = text.find(b":", at) + 1
            end = text.find(b",", at)
            text = text[:at] + pick(RAW, below) + text[end:]
        case 2:
            at = text.find(b',"', at)
            end = text.find(b",", at + 1)
            text = text[:end] + text[at:end] + text[end:]
        case 3:
            text = text[:at] + bytes([below(256)]) + text[at + below(2) :]
        case 4:
            text = text[:at]
        case _:
            end = at + below(64)
            text = text[:at] + text[at:end] * 2 + text[end:]
    return with_text(base, text)


def _header(base: Base, below: Below) -> bytes:
    """The header around the metadata: tensors that overlap, are missing, huge or of lies."""
    outer = base.outer
    for _ in range(1 + below(2)):
        path = base.header[below(len(base.header))]
        pool = NUMBERS if path[-2:-1] in (("data_offsets",), ("shape",)) else None
        outer = changed(
            outer,
            path,
            lambda v, p=pool: pick(p, below) if p else hostile(v, below),  # type: ignore[misc]
        )
    header = dumps(outer)
    if not below(4):
        at = below(len(header))
        header = header[:at] + pick(RAW, below) + header[at:]
    return assembled(header, base.body, base.table)


def _data(base: Base, below: Below) -> bytes:
    """Data, digests or seal that do not belong together, or do."""
    start = len(base.data) - 32 - len(base.table) - len(base.body)
    prefix, body, table = base.data[:start], bytearray(base.body), base.table
    if body:
        body[below(len(body))] ^= 1 << below(8)
    match below(5):
        case 0:
            blocks = ((p.offset, p.nbytes) for p in base.placed if p.nbytes)
            table = b"".join(digests.digest(body[at : at + size]) for at, size in blocks)
        case 1:
            table = table[:-16] or bytes(16)
        case 2:
            table += bytes(16)
        case 3:
            table = table[::-1]
    return b"".join((prefix, body, table, hashlib.sha256(prefix + table).digest()))


def _bytes(base: Base, below: Below) -> bytes:
    """Nothing but bytes: flipped, put in, taken out, cut off, repeated, from another file."""
    data = bytearray(base.data)
    for _ in range(1 + below(3)):
        at = below(2048) if below(2) else len(data) - 1 - below(max(1, min(300, len(data))))
        at = max(0, min(at, len(data) - 1))
        count = 1 + below(32)
        match below(8):
            case 0 | 1:
                data[at : at + 1] = bytes([(data[at] if data else 0) ^ 1 << below(8)])
            case 2:
                data[at:at] = bytes(below(256) for _ in range(count))
            case 3:
                del data[at : at + count]
            case 4:
                del data[at:]
            case 5:
                data[at:at] = data[at : at + count] * (1 + below(8))
            case 6:
                other = bases()[below(len(bases()))].data
                data[at:] = other[at:]
            case _:
                data[:8] = (int(pick(NUMBERS, below)) % 2**64).to_bytes(8, "little")
    return bytes(data)


def _wrong_seal(base: Base, below: Below) -> bytes:
    made = bytearray(_one_value(base, below))
    made[-1 - below(32)] ^= 1 << below(8)
    return bytes(made)


def _whole(base: Base, below: Below) -> bytes:
    return base.data


WAYS: list[Callable[[Base, Below], bytes]] = [
    _whole, _bytes, _bytes, _bytes, _text, _text, _header, _data, _about, _wrong_seal,
    _arrays, _arrays, _tree, _tree, _tree, _tree, _one_value, _one_value, _one_value, _one_value,
]  # fmt: skip
