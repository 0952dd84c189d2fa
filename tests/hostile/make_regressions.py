"""Write `regressions/`: `python -m tests.hostile.make_regressions`.

One file for each hole that readers of this kind have had, ours or others'; its name says what is
wrong, and what has to come of it. They are made anew when a class of `classes` changes.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from tests.hostile.changes import changed
from tests.hostile.forge import Base, assembled, bases, plan_layout, with_text

FOLDER = Path(__file__).parent / "regressions"
_BIG = orjson.Fragment(b"18446744073709551616")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.bin"):
        path.unlink()
    for name, data in regressions():
        (FOLDER / f"{name}.bin").write_bytes(data)


def regressions() -> Iterator[tuple[str, bytes]]:
    """Each file, under what is wrong with it and the verdict that is due."""
    scalars, bag, grid, _, old, _ = bases()
    yield from _headers(grid)
    for name, change in _METADATA.items():
        yield f"{name}.CorruptCheckpoint", with_text(grid, orjson.dumps(grid.about | change))
    for name, (before, after) in _TEXTS.items():
        assert before in grid.text, name
        yield f"{name}.CorruptCheckpoint", with_text(grid, grid.text.replace(before, after, 1))
    for name, parents in _PARENTS.items():
        text = orjson.dumps(grid.about | {"parents": [parents]})
        yield f"parents-{name}.CorruptCheckpoint", with_text(grid, text)
    for name, change in _ARRAYS.items():
        field = grid.about["arrays"]["field"] | change
        about = changed(grid.about, ("arrays", "field"), lambda _, v=field: v)  # type: ignore[misc]
        yield f"{name}.CorruptCheckpoint", plan_layout(grid, about, "extents" not in change)
    for base, trees in ((scalars, _SCALARS), (bag, _BAG), (grid, _GRID)):
        for name, change in trees.items():
            about = base.about | {"tree": base.about["tree"] | change}
            yield f"{name}.InvalidCheckpoint", with_text(base, orjson.dumps(about))
    for name, field in (("int-2-64", "count"), ("fraction-2-64", "ratio")):
        about = scalars.about | {"tree": scalars.about["tree"] | {field: _BIG}}
        yield f"{name}.CorruptCheckpoint", with_text(scalars, orjson.dumps(about))
    for name, change in _SCHEMAS.items():
        about = grid.about | {"schema": grid.about["schema"] | change}
        yield name, with_text(grid, orjson.dumps(about))
    about = old.about | {"tree": [old.about["tree"]]}
    yield "old-tree-is-a-list.InvalidCheckpoint", with_text(old, orjson.dumps(about))
    about = old.about | {"tree": old.about["tree"] | {"log": {"$numpy": [_TEXT, "ff" * 4]}}}
    yield "no-unicode.accepted", with_text(old, orjson.dumps(about))
    text = changed(old.about, ("arrays", "at", "dtype"), lambda _: "|S4")
    yield "old-array-of-text.InvalidCheckpoint", plan_layout(old, text)
    text = changed(
        grid.about, ("arrays", "field"), lambda a: a | {"dtype": "|S0", "shape": [2**60]}
    )
    yield "text-bomb.InvalidCheckpoint", plan_layout(grid, text)
    generic = changed(grid.about, ("arrays", "anything[1]", "dtype"), lambda _: "<M8")
    yield "time-without-a-unit.accepted", plan_layout(grid, generic)


def _headers(grid: Base) -> Iterator[tuple[str, bytes]]:
    data, start = grid.data, len(grid.data) - len(grid.body) - len(grid.table) - 32
    header = data[8:start].rstrip()
    tensor = header[header.index(b'"field":{') : header.index(b',"point":')]
    yield "empty.CorruptCheckpoint", b""
    yield "cut-short.CorruptCheckpoint", data[:-1]
    yield "longer.CorruptCheckpoint", data + b"\0"
    for name, size in (("over-limit", 100_003_832), ("longer-than-file", 8184), ("2-63", 2**63)):
        yield f"header-{name}.CorruptCheckpoint", struct.pack("<Q", size) + data[8:]
    for name, (before, after) in {
        "tensor-twice": (tensor, tensor + b"," + tensor),
        "tensor-missing": (tensor + b",", b""),
        "tensor-overlaps": (b'"data_offsets":[0,', b'"data_offsets":[1,'),
        "tensor-of-lies": (b'"F64"', b'"I64"'),
        "tensor-negative": (b'"data_offsets":[0,', b'"data_offsets":[-1,'),
        "metadata-twice": (b'{"__metadata__":', b'{"__metadata__":{},"__metadata__":'),
        "leading-blank": (b"{", b" {"),
    }.items():
        assert before in header, name
        made = header.replace(before, after, 1)
        yield f"{name}.CorruptCheckpoint", assembled(made, grid.body, grid.table)
    for name, at in (("seal-damaged", -1), ("digests-damaged", -33), ("data-damaged", start)):
        damaged = bytearray(data)
        damaged[at] ^= 1
        yield f"{name}.CorruptCheckpoint", bytes(damaged)
    for name, table in (("short", grid.table[:-16]), ("long", grid.table + bytes(16))):
        yield f"digests-{name}.CorruptCheckpoint", assembled(header, grid.body, table)


_METADATA: dict[str, dict[str, Any]] = {
    "step-true": {"step": True},
    "step-2-64": {"step": _BIG},
    "step-2-63": {"step": 2**63},
    "step-fraction": {"step": 7.0},
    "part-unknown": {"more": 1},
    "parents-null": {"parents": None},
    "nesting-300": {"tree": orjson.Fragment(b"[" * 300 + b"]" * 300)},
    "nesting-3000": {"tree": orjson.Fragment(b"[" * 3000)},
    "not-a-number": {"tree": orjson.Fragment(b"NaN")},
    "infinity": {"tree": orjson.Fragment(b"-Infinity")},
}
_TEXTS = {
    "key-twice": (b'"step":7', b'"step":7,"step":8'),
    "key-twice-alike": (b'"step":7', b'"step":7,"step":7'),
    "array-twice": (b'"none":{', b'"field":{'),
    "name-traversal": (b'"field":{"dtype"', b'"../../etc/x":{"dtype"'),
    "name-absolute": (b'"field":{"dtype"', b'"/etc/passwd":{"dtype"'),
    "name-empty": (b'"field":{"dtype"', b'"":{"dtype"'),
    "name-nul": (b'"field":{"dtype"', b'"a\\u0000b":{"dtype"'),
    "name-of-the-seal": (b'"field":{"dtype"', b'"$seal":{"dtype"'),
}
_PARENTS = {
    "traversal": ["../x", "00" * 16],
    "absolute": "/etc/passwd",
    "device": "/dev/zero",
    "nul": "a\0b",
    "link": {"name": "link"},
}
_PRIME = 2**61 - 1
"""Ints are hashed modulo this one."""

_DEEP: Any = "<f8"
for _ in range(20):
    _DEEP = {"base": _DEEP, "shape": [1]}
_TEXT = {"names": ["a"], "formats": ["<U1"], "offsets": [0], "titles": None, "itemsize": 4}
_TEXT["aligned"] = False
_ARRAYS: dict[str, dict[str, Any]] = {
    "shape-bomb": {"shape": [2**40]},
    "shape-overflow": {"shape": [2**62, 2**62]},
    "shape-overflow-of-nothing": {"shape": [0, 2**62, 2**62]},
    "shape-negative": {"shape": [-2, -3]},
    "shape-2-64": {"shape": [_BIG]},
    "shape-of-text": {"shape": ["2", "3"]},
    "rank-33": {"shape": [1] * 33},
    "rank-70-by-dtype": {"shape": [1] * 30, "dtype": {"base": "<f8", "shape": [1] * 40}},
    "dtype-of-rank-1": {"shape": [2], "dtype": {"base": "<f8", "shape": [3]}},
    "dtype-object": {"dtype": "|O"},
    "dtype-of-a-module": {"dtype": "os.system"},
    "dtype-unknown": {"dtype": "<f3"},
    "dtype-deep": {"dtype": _DEEP},
    "extents-twice": {"extents": [[0, 0, 1], [0, 0, 1]]},
    "extents-of-another": {"extents": [[0, 2, 1]]},
    "extents-of-a-parent": {"extents": [[1, 0, 1]]},
    "extents-without-end": {"extents": [[0, 0, 2**62]]},
    "extents-true": {"extents": [[False, 0, True]]},
}
_SCALARS: dict[str, dict[str, Any]] = {
    "truth-as-text": {"flag": "false"},
    "truth-as-number": {"flag": 1},
    "fraction-as-int": {"count": 1.9},
    "text-as-int": {"count": "3"},
    "none-as-text": {"name": None},
    "class-foreign": {"shape": {"$type": "os.system", "command": "true"}},
    "class-unnamed": {"shape": {"radius": 1.0}},
    "class-null": {"shape": {"$type": None, "radius": 1.0}},
    "enum-without-a-name": {"color": {"$enum": [None, "RED"]}},
    "enum-foreign": {"color": {"$enum": ["os", "system"]}},
    "enum-dunder": {"color": {"$enum": ["Color", "__class__"]}},
    "zone-traversal": {"at": {"$datetime": ["2026-01-02T03:04:00", 0, "../../etc/passwd"]}},
    "zone-of-a-package": {"at": {"$datetime": ["2026-01-02T03:04:00", 0, "hostile_named/x"]}},
    "path-foreign": {"where": {"$path": ["os", "x"]}},
    "numpy-object": {"one": {"$numpy": ["|O", "00" * 8]}},
    "numpy-bomb": {"one": {"$numpy": ["|V2147483647", ""]}},
    "int-spelled-otherwise": {"big": {"$int": " 0x1_0 "}},
    "float-spelled-otherwise": {"odd": {"$float": "3ff0000000000000"}},
    "bytes-spelled-otherwise": {"raw": {"$bytes": "aGl="}},
    "span-spelled-otherwise": {"span": {"$timedelta": [0, 86400, 0]}},
    "date-spelled-otherwise": {"day": {"$date": "2026-W01-1"}},
    "price-spelled-otherwise": {"price": {"$decimal": " 1_5 "}},
    "path-spelled-otherwise": {"where": {"$path": ["PurePosixPath", "a//b"]}},
    "numpy-spelled-otherwise": {"one": {"$numpy": ["<f4", "CDCCCC3D"]}},
    "flag-negative": {"mode": {"$enum": ["Mode", -1]}},
    "field-unknown": {"more": 1},
}
_BAG: dict[str, dict[str, Any]] = {
    "items-as-text": {"items": "123"},
    "set-item-twice": {"tags": {"$set": ["x", "x"]}},
    "tag-among-others": {"tags": {"$set": ["one"], "$uuid": 1}},
    "deque-of-2-63": {"recent": {"$deque": [], "$maxlen": 2**63}},
    "dict-colliding": {
        "pairs": {"$dict": [[{"$int": hex(k * _PRIME)}, ""] for k in range(9, 209)]}
    },
    "deque-negative": {"recent": {"$deque": [], "$maxlen": -1}},
    "dict-key-twice": {"table": {"$dict": [["a", 1.0], ["a", 2.0]]}},
    "dict-key-like-a-tag": {"table": {"$x": 1.0}},
    "dict-of-pairs-for-text": {"table": {"$dict": [["a", 1.0]]}},
    "class-an-array": {"nested": {"$type": {"$array": "field"}}, "field": None},
    "union-member-unknown": {"either": {"$union": [1], "$member": 3}},
    "union-member-negative": {"either": {"$union": [1], "$member": -1}},
    "union-member-needless": {"either": {"$union": {"a": 1}, "$member": 0}},
    "union-member-not-told": {"either": [1]},
    "array-elsewhere": {"field": {"$array": "nowhere"}},
}
_GRID: dict[str, dict[str, Any]] = {
    "array-mentioned-twice": {"none": {"$array": "field"}},
    "array-not-mentioned": {"anything": []},
    "array-with-more": {"field": {"$array": "field", "more": 1}},
    "array-of-another-type": {"none": {"$array": "field"}, "field": {"$array": "none"}},
}
_SCHEMAS: dict[str, dict[str, Any]] = {
    "schema-of-a-module.SchemaMismatch": {"name": "os.system"},
    "schema-of-another-class.SchemaMismatch": {"name": "Scalars"},
    "schema-changed.SchemaMismatch": {"fingerprint": "0" * 16},
    "schema-version-huge.SchemaMismatch": {"version": 2**64 - 1},
    "schema-version-true.InvalidCheckpoint": {"version": True},
    "schema-version-fraction.InvalidCheckpoint": {"version": 1.0},
    "schema-without-text.InvalidCheckpoint": {"classes": {"Grid": {"step": 1}}},
}

if __name__ == "__main__":
    main()
