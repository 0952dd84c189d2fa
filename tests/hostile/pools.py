"""What is put in the places of a file: each value has broken some reader, or might break ours."""

from typing import Any

import orjson

NAMES = [
    "", ".", "..", "../x", "/etc/passwd", "a/b", "a\0b", "\n", "$seal", "$digests", "__metadata__",
    "x" * 256, "ü", "/dev/zero", "a b", "C:\\x", "field", "at", "#0", "constructor", "\x1b[2J",
]  # fmt: skip

FOREIGN = [
    "os.system", "os:system", "antigravity", "this", "hostile_named", "hostile_named.Thing",
    "hostile_named:Thing", "builtins.eval", "posix", "tests.hostile.classes", "object", "Circle",
    "Scalars", "Color", "Circle2", "NoneType",
]  # fmt: skip

RAW = [
    b"18446744073709551615", b"18446744073709551616", b"9223372036854775808",
    b"-9223372036854775809",
    b"1" * 400, b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-0", b"0e0", b"1E5", b"1.0", b"007",
    b"0x10", b"+1", b".5", b"'x'", b"tru", b"undefined", b"", b",", b"1,2", b"[" * 300 + b"]" * 300,
    b"[" * 240 + b"]" * 240, b'{"a":' * 300 + b"0" + b"}" * 300, b"[" * 3000, b'{"a":1,"a":2}',
    b'{"a":1,"a":1}', b'"\\ud800"', b'"\\u0000"', b'"\xff"', b"[0,]", b"[" + b"0," * 500 + b"0]",
    b"/* */ 1", b'"' + b"y" * 5000 + b'"', b" 1", b"1 ", b"\xef\xbb\xbf1",
]  # fmt: skip
"""Spellings, some of them JSON, that no writer of ours uses."""

NUMBERS = [
    0, 1, -1, 2, 255, 4096, 2**31, 2**31 - 1, 2**32, 2**53 + 1, 2**61 - 1, 2**62, 2**63 - 1, 2**63,
    2**64 - 1, -(2**63), 0.0, -0.0, 1.0, 1.9, -1.5, 5e-324, 1.7976931348623157e308, True, False,
]  # fmt: skip

_DTYPE = {
    "names": ["a", "b"], "formats": ["<i4", "<f8"], "offsets": [0, 8], "titles": None,
    "itemsize": 16, "aligned": True,
}  # fmt: skip

_DEEP: Any = "<f4"
for _ in range(18):
    _DEEP = {"base": _DEEP, "shape": [1]}

DTYPES: list[Any] = [
    "|b1", "|i1", "|u1", "<i2", ">i2", "<i8", ">f8", "<f2", "<f4", "<f8", "<c8", "<c16", "|S0",
    "|S3",
    "<U0", "<U2", "|V0", "|V5", "<M8[s]", "<M8", "<m8[25us]", "bfloat16", "float8_e4m3fn", "int4",
    "<f16:63", "<f16:112", "|O", "O", "object", "f4", "<f3", "|V2147483647", "|V9999999999", "T",
    "<U999999999", "os.system", "", None, 4, {"base": "<f4", "shape": [2]}, _DEEP,
    {"base": "<f4", "shape": []}, {"base": "<f4", "shape": [0, 2**31 - 1]},
    {"base": "<f4", "shape": [1] * 40}, {"base": "<f4", "shape": [2**16, 2**16]}, _DTYPE,
    _DTYPE | {"offsets": [0, 0]}, _DTYPE | {"itemsize": 4}, _DTYPE | {"names": ["a", "a"]},
    _DTYPE | {"formats": ["|O", "<f8"]}, _DTYPE | {"titles": ["t", None]}, _DTYPE | {"aligned": 1},
    _DTYPE | {"formats": ["<U1", "<f8"]}, _DTYPE | {"itemsize": 2**31 - 1},
]  # fmt: skip

SHAPES: list[Any] = [
    [], [0], [1], [3], [4], [2, 3], [3, 2], [0, 4], [4, 0], [2**40], [2**62], [2**63 - 1], [2**63],
    [2**31, 2**31], [0, 2**62], [2**62, 0, 2**62], [1] * 32, [1] * 33, [1] * 65, [0] * 32, [-1],
    [True], [3.0], ["3"], "3", 3, None, [[3]], {},
]  # fmt: skip

EXTENTS: list[Any] = [
    [], [[0, 0, 1]], [[0, 1, 1]], [[0, 0, 0]], [[0, 0, 2**62]], [[0, 0, 1], [0, 0, 1]], [[1, 0, 1]],
    [[0, -1, 1]], [[0, 0.0, 1]], [[0, 0]], [[True, 0, 1]], [[0, 2**64 - 1, 1]], {}, None, 1,
]  # fmt: skip

PARENTS: list[Any] = [
    [["../x", "00" * 16]], ["/etc/passwd"], ["/dev/zero"], ["a\0b"], ["link"], [{"name": "../x"}],
    [[]], [None], {}, None, 0, "", "../x", [["step-000000000007.safetensors", "00" * 32]] * 500,
]  # fmt: skip

PAYLOADS: list[Any] = [
    "", "0", "0x5", "-0x1", "0b1", " 0x5 ", "0x" + "f" * 2000, "inf", "-inf", "nan",
    "7ff8000000000000",
    "7FF8000000000000", "3ff0000000000000", "aGk=", "aGl=", "7aCA", "a", "\u0661", "1e9", "1_000",
    "sNaN", "1E+999999999999999999", "2026-01-02", "20260102", "2026-W01-1", "2026-01-02T03:04:00",
    "2026-01-02T03:04:00+05:00", "{00000000-0000-0000-0000-000000000007}", "UTC", "Europe/Berlin",
    "../../etc/passwd", "tzdata/x", "Europe", "posixrules", "a" * 64,
    [1, 2, 3], [0, 86400, 0], [10**9, 0, 0], [0, 0, 2**63], ["2026-01-02T03:04:00", 0, None],
    ["2026-01-02T03:04:00", 1, "UTC"], ["2026-01-02T03:04:00", 2, None], ["0001-01-01T00:00:00", 0,
    "Asia/Tokyo"], ["9999-12-31T23:59:59", 0, [-86399000000]], ["2026-01-02T03:04:00", 0, [0, "x"]],
    ["2026-01-02T03:04:00", 0, "hostile_named/Zone"], ["2026-01-02T03:04:00", 0, "Europe/hostile"],
    ["Path", "a//b"], ["PurePosixPath", "a/./b"], ["PurePosixPath", "a\0b"],
    ["Path", "/etc/passwd"],
    ["os", "x"], ["__class__", "x"], [0.5, 1], [0.5, 1.0], ["<f4", "0000c03f"], ["<f4", "0000"],
    [">f4", "3fc00000"], ["<f8", "000000000000f03f"], ["|O", "00" * 8], ["str", "x"],
    ["bytes", "eA=="],
    ["|V2147483647", ""], ["|V0", ""], ["<M8[s]", "00" * 8], ["Color", "RED"], ["Color", "GREEN"],
    ["Color", "__class__"], ["Mode", 3], ["Mode", 8], ["Mode", -1], ["Mode", {"$int": "0x1"}],
    ["os.system", "x"], [[1, "a"]], [["a", 1]], [["a", 1.0], ["a", 2.0]], [[{"$int": "0x1"}, "a"]],
    [1, 1], [[1]], ["x", "x"], [{}],
    [[_DTYPE | {"formats": ["<U1", "<f8"]}, "00001100" + "00" * 12]],
    [_DTYPE | {"formats": ["<U1", "<f8"]}, "00001100" + "00" * 12], [True], [2**64 - 1],
]  # fmt: skip

TAGS = [
    "$int", "$float", "$complex", "$str", "$bytes", "$datetime", "$date", "$time", "$timedelta",
    "$uuid", "$decimal", "$path", "$numpy", "$tuple", "$set", "$frozenset", "$deque", "$dict",
    "$enum", "$array", "$type", "$union", "$member", "$maxlen", "$", "$object", "py/object",
    "__class__", "__reduce__",
]  # fmt: skip

VALUES: list[Any] = [
    *NUMBERS, *NAMES, *FOREIGN, None, [], {}, "false", "1", [0], [[]], [None] * 300, {"": 0},
    {"$array": "field"}, {"$array": "at"}, {"$array": "nowhere"}, {"$array": ["field"]},
    {"$array": "field", "x": 1}, {"$deque": [], "$maxlen": 2**63}, {"$deque": [1], "$maxlen": -1},
    {"$deque": [], "$maxlen": True}, {"$union": [1], "$member": 0}, {"$union": [1], "$member": 1},
    {"$union": ["a"], "$member": 2}, {"$union": {"$union": [], "$member": 0}, "$member": 0},
    {"$union": 1, "$member": -1}, {"$type": "Circle", "radius": 1.0},
    {"$type": "Square", "side": 1, "corner": {"$tuple": [1, 2.0]}}, {"$type": None, "radius": 1.0},
    {"$type": "os.system", "command": "true"}, {"$type": ["Circle"], "radius": 1.0}, {"$type": ""},
    {"radius": 1.0}, {"$x": 1.0}, {"$dict": {}}, {"$dict": [[{"$float": "nan"}, 1]]},
    *map(orjson.Fragment, RAW),
]  # fmt: skip
