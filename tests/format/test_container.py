"""The file format: what goes in comes out, and nothing else is ever taken for a checkpoint."""

import hashlib
import math
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any
from unittest import mock

import attrs
import hypothesis.extra.numpy as hnp
import ml_dtypes
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointable.arrays.dtypes import _decode_checked, dtype_from_json, dtype_to_json
from checkpointable.errors import CorruptCheckpoint, InvalidCheckpoint
from checkpointable.format import container, digests, layout, strictjson
from checkpointable.format.container import header_size, pack, parse
from checkpointable.format.digests import check_block, check_seal
from checkpointable.format.layout import BLOCK, AnyArray, Header, Meta
from tests.helpers.small_blocks import small_blocks

META = Meta({"name": "t"}, {"id": "k"}, 7, "2026-01-01T00:00:00Z", "c0ffee", {"x": [1, None, 2.5]})
ML_DTYPES = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float4_e2m1fn", "int4"]


# --- strategies and helpers -------------------------------------------------------------------


def plain_dtypes() -> st.SearchStrategy[np.dtype[Any]]:
    texts = ["S1", "S7", "<U3", ">U2", "V5", "V16", "M8", "m8", "<M8[25us]", ">m8[D]", "g", "G"]
    return st.one_of(
        hnp.scalar_dtypes(),
        st.sampled_from([np.dtype(text) for text in texts]),
        st.sampled_from([np.dtype(getattr(ml_dtypes, name)) for name in ML_DTYPES]),
    )


@st.composite
def records(draw: st.DrawFn, parts: st.SearchStrategy[np.dtype[Any]]) -> np.dtype[Any]:
    """Fields with gaps, titles, an order of their own, a tail; or aligned as C does."""
    formats = draw(st.lists(parts, max_size=4))
    names = [f"f{i}" for i in range(len(formats))]
    if draw(st.booleans()):
        return np.dtype({"names": names, "formats": formats}, align=True)
    offsets, end = [], 0
    for part in formats:
        offsets.append(end + draw(st.integers(0, 9)))
        end = offsets[-1] + part.itemsize
    order = draw(st.permutations(range(len(formats))))
    fields: dict[str, Any] = {
        "names": names,
        "formats": [formats[i] for i in order],
        "offsets": [offsets[i] for i in order],
        "itemsize": end + draw(st.integers(0, 9)),
    }
    if draw(st.booleans()):
        fields["titles"] = [draw(st.sampled_from([None, f"Title of {name}"])) for name in names]
    dtype: np.dtype[Any] = np.dtype(fields)  # type: ignore[call-overload]
    return dtype


def subarrays(parts: st.SearchStrategy[np.dtype[Any]]) -> st.SearchStrategy[np.dtype[Any]]:
    shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3)
    return st.builds(lambda base, shape: np.dtype((base, shape)), parts, shapes)


def dtypes() -> st.SearchStrategy[np.dtype[Any]]:
    return st.one_of(
        st.recursive(plain_dtypes(), lambda p: records(st.one_of(p, subarrays(p))), max_leaves=6),
        hnp.array_dtypes(plain_dtypes(), allow_subarrays=True),
    )


VIEWS: list[Callable[[AnyArray], AnyArray]] = [
    lambda a: a,
    lambda a: a.T,
    lambda a: a[::-1] if a.ndim else a,
    lambda a: a[..., ::2] if a.ndim else a,
    lambda a: a[..., 1:] if a.ndim else a,
    lambda a: np.broadcast_to(a, (3, *a.shape)),
    lambda a: np.asfortranarray(a),
]


@st.composite
def arrays(draw: st.DrawFn) -> AnyArray:
    dtype = draw(dtypes().filter(lambda d: d.subdtype is None))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    noise = np.random.default_rng(draw(st.integers(0, 99))).bytes(math.prod(shape) * dtype.itemsize)
    array: AnyArray = np.ndarray(shape, dtype, noise)
    return draw(st.sampled_from(VIEWS))(array)


def raw(array: AnyArray) -> bytes:
    """The bytes in C order, padding included (which `tobytes` of a structured array is not)."""
    return array.view(f"V{array.itemsize}").tobytes() if array.itemsize else b""


def write(arrays: dict[str, AnyArray], meta: Meta = META) -> bytes:
    packed = pack(meta, arrays)
    data = b"".join(packed.chunks())
    assert len(data) == packed.size
    return data


def read(data: bytes) -> tuple[Header, dict[str, bytes]]:
    """A whole, strict reader: raises if anything is amiss."""
    size = header_size(data[:8], len(data))
    header = parse(data[:size], len(data))
    table = data[header.digests_offset : header.seal_offset]
    check_seal(data[:size], table, data[header.seal_offset :])
    result = {}
    for name, placed in header.arrays.items():
        blocks = []
        for index in range(placed.blocks):
            offset, length = (
                header.data_offset + placed.offset + index * layout.BLOCK,
                placed.size(index),
            )
            blocks.append(data[offset : offset + length])
            check_block(placed, index, blocks[-1], table)
        result[name] = b"".join(blocks)
    return header, result


def forge(header: bytes, old: bytes) -> bytes:
    """The file `old` with another header text, which is padded and sealed as it should be."""
    start = header_size(old[:8], len(old))
    size = -(-(8 + len(header)) // 4096) * 4096
    prefix = struct.pack("<Q", size - 8) + header.ljust(size - 8)
    body = old[start:-32]
    table = body[parse(old[:start], len(old)).digests_offset - start :]
    return prefix + body + hashlib.sha256(prefix + table).digest()


def outer(data: bytes) -> dict[str, Any]:
    value: dict[str, Any] = orjson.loads(data[8 : header_size(data[:8], len(data))])
    return value


def about(data: bytes) -> dict[str, Any]:
    value: dict[str, Any] = orjson.loads(outer(data)["__metadata__"]["checkpointable"])
    return value


def forge_about(text: bytes, old: bytes) -> bytes:
    """The file `old` with another metadata text."""
    header_of_old = outer(old)
    header_of_old["__metadata__"]["checkpointable"] = text.decode()
    return forge(orjson.dumps(header_of_old), old)


SMALL = write({"ab": np.arange(3, dtype="<i4"), "c": np.arange(5, dtype=">i2"), "e": np.zeros(0)})


# --- dtypes -----------------------------------------------------------------------------------


@given(dtypes())
def test_a_dtype_survives_json(dtype: np.dtype[Any]) -> None:
    described = dtype_to_json(dtype)
    back = dtype_from_json(orjson.loads(orjson.dumps(described)))
    assert back == dtype
    assert back.fields == dtype.fields
    assert (back.names, back.itemsize) == (dtype.names, dtype.itemsize)
    assert back.isalignedstruct == dtype.isalignedstruct
    assert dtype_to_json(back) == described


@pytest.mark.parametrize(
    "dtype",
    [
        np.dtype(object),
        np.dtypes.StringDType(),
        np.dtype([("a", "i4"), ("b", [("c", object)])]),
        np.dtype((np.int32, {"low": (np.int16, 0), "high": (np.int16, 2)})),
        np.dtype({"names": ["a"], "formats": ["i4"], "titles": [5]}),
    ],
    ids=str,
)
def test_a_dtype_that_json_cannot_say_is_refused(dtype: np.dtype[Any]) -> None:
    with pytest.raises(InvalidCheckpoint, match="cannot be stored") as caught:
        pack(META, {"it": np.zeros(2, dtype)})
    assert "'it'" in caught.value.where
    assert "numeric" in caught.value.hint


def test_a_long_double_of_another_machine_is_refused() -> None:
    described = dtype_to_json(np.dtype("g"))
    assert dtype_from_json(described) == np.dtype("g")
    with pytest.raises(CorruptCheckpoint):
        dtype_from_json(described.partition(":")[0] + ":112")


def test_a_dtype_of_ml_dtypes_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    monkeypatch.setattr("checkpointable.arrays.dtypes._decode_cached", _decode_checked)
    with pytest.raises(InvalidCheckpoint, match="ml_dtypes") as caught:
        dtype_from_json("bfloat16")
    assert "pip install" in caught.value.hint


RECORD = dtype_to_json(np.dtype([("a", "<f4"), ("b", "<f4")]))


def nested(depth: int) -> Any:
    described: Any = "<f4"
    for _ in range(depth):
        described = RECORD | {"names": ["a"], "formats": [described], "offsets": [0], "itemsize": 4}
    return described


@pytest.mark.parametrize(
    "value",
    [
        "f4", "=f4", "<f4 ", "|O", "O", "object", "<f3", "|b2", "int8", "finfo", "T", "", "<M8[x]",
        "|S9999999999", "<f4,<f4", "(2,)<f4", "<f16", "<i4:3", "__class__", None, 4, 1.5, True, [],
        {}, [["a", "<f4"]], {"base": "<f4"}, {"base": "<f4", "shape": []},
        {"base": "<f4", "shape": [True]}, {"base": "<f4", "shape": [-1]},
        {"base": "<f4", "shape": [2**16, 2**16]}, {"base": "<f4", "shape": [1] * 99},
        {"base": "<f4", "shape": [2], "more": 1}, RECORD | {"more": 1}, RECORD | {"aligned": 0},
        RECORD | {"offsets": [0, True]}, RECORD | {"offsets": [0, -4]}, RECORD | {"itemsize": 4},
        RECORD | {"offsets": [0, 2**40]}, RECORD | {"itemsize": 2**40}, RECORD | {"itemsize": 8.0},
        RECORD | {"names": ["a", "a"]}, RECORD | {"names": ["a"]}, RECORD | {"formats": ["|O"] * 2},
        RECORD | {"titles": ["a", "b"]}, RECORD | {"titles": [None, None]},
        RECORD | {"titles": [1, 2]}, RECORD | {"names": [1, 2]}, RECORD | {"titles": 3}, nested(40),
    ],
    ids=lambda described: str(described)[:60],
)  # fmt: skip
def test_a_hostile_dtype_is_refused(value: Any) -> None:
    with pytest.raises(CorruptCheckpoint, match="dtype"):
        dtype_from_json(value)


# --- there and back ---------------------------------------------------------------------------


@given(
    st.dictionaries(st.sampled_from("abcd"), arrays(), max_size=2),
    st.sampled_from([16, 48, 50, BLOCK]),
)
def test_arrays_come_back_bit_for_bit(given: dict[str, AnyArray], block: int) -> None:
    with small_blocks(block):
        header, result = read(write(given))
    assert header.meta == META
    assert {n: (p.dtype, p.shape) for n, p in header.arrays.items()} == {
        n: (a.dtype, a.shape) for n, a in given.items()
    }
    assert result == {name: raw(array) for name, array in given.items()}
    for placed in header.arrays.values():
        width = placed.dtype.itemsize & -placed.dtype.itemsize
        assert placed.offset % max(1, min(width, 4096)) == 0


@pytest.mark.parametrize("view", [lambda a: a, lambda a: a[::-1]], ids=["contiguous", "reversed"])
def test_an_element_may_cross_a_block(view: Callable[[AnyArray], AnyArray]) -> None:
    noise = np.random.default_rng(0).bytes(7 * 400_000)
    array = view(np.frombuffer(noise, "S7").reshape(2, -1))
    header, result = read(write({"s": array}))
    assert header.arrays["s"].blocks == header.blocks == 3
    assert result["s"] == raw(array)


def test_the_file_is_laid_out_as_documented() -> None:
    given = {"b": np.arange(3, dtype="u1"), "d": np.arange(2.0), "s": np.arange(2, dtype="<u2")}
    data = write(given)
    size = header_size(data[:8], len(data))
    assert size == 4096
    assert int.from_bytes(data[:8], "little") == 4088
    assert list(outer(data)) == ["__metadata__", "d", "s", "b", "$digests", "$seal"]
    assert list(outer(data)["__metadata__"]) == ["checkpointable"]
    blocks = [given[name].tobytes() for name in ("d", "s", "b")]
    assert data[4096:].startswith(b"".join(blocks))
    table = b"".join(digests.digest(block) for block in blocks)
    assert data.endswith(table + hashlib.sha256(data[:size] + table).digest())
    assert about(data)["arrays"]["s"] == {"dtype": "<u2", "shape": [2], "extents": [[0, 1, 1]]}
    assert about(data)["parents"] == []


def test_the_digest_is_canonical_xxh3() -> None:
    # From the test vectors of xxHash: XXH3_128bits of nothing, seed 0.
    assert digests.digest(b"").hex() == "99aa06d3014798d86001c324468d497f"


def test_no_second_copy_of_an_array() -> None:
    big = np.zeros((8 << 20, 4), "u1")
    tracemalloc.start()
    try:
        for _ in pack(META, {"whole": big, "part": big[:, :3], "turned": big.T}).chunks():
            pass
        assert tracemalloc.get_traced_memory()[1] < 4 * BLOCK
        for chunk in pack(META, {"whole": big}).chunks():
            if len(chunk) == BLOCK:
                assert isinstance(chunk, memoryview)
                assert np.shares_memory(np.frombuffer(chunk, "u1"), big)
    finally:
        tracemalloc.stop()


def test_a_claim_of_100_gb_costs_only_its_header() -> None:
    packed = pack(META, {"big": np.broadcast_to(np.zeros((), "u1"), 100 << 30)})
    assert packed.size > 100 << 30
    tracemalloc.start()
    try:
        assert parse(packed.prefix, packed.size).blocks == 100 << 10
        with pytest.raises(CorruptCheckpoint, match=str(packed.size)):
            parse(packed.prefix, 5000)
        assert tracemalloc.get_traced_memory()[1] < BLOCK
    finally:
        tracemalloc.stop()


# --- what cannot be written -------------------------------------------------------------------


BAD_NAMES = ["", ".", "..", "a/b", "/", "a\0", "a\n", "\x7f", "\x85", "ü" * 128, "\ud800", "$seal"]


@pytest.mark.parametrize("name", [*BAD_NAMES, "$digests", "__metadata__"], ids=ascii)
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidCheckpoint, match="not a valid name"):
        pack(META, {name: np.zeros(1)})


@pytest.mark.parametrize("name", ["ü" * 127, "a.b[3]", "...", "$seal2", "a b", 'q"\\', "日本"])
def test_a_good_name_is_kept(name: str) -> None:
    assert read(write({name: np.ones(2)}))[1] == {name: np.ones(2).tobytes()}


def test_rank_32_is_the_most() -> None:
    read(write({"a": np.zeros((1,) * 32)}))
    with pytest.raises(InvalidCheckpoint, match="33 dimensions"):
        pack(META, {"a": np.zeros((1,) * 33)})


@pytest.mark.parametrize(
    "change",
    [
        {"schema": None}, {"kernel": []}, {"step": True}, {"step": -1}, {"step": 2**63},
        {"step": np.int64(3)}, {"created": 3}, {"nonce": "xyz"}, {"nonce": 5}, {"tree": 2**64},
        {"tree": {1: 2}}, {"tree": object}, {"tree": "\ud800"}, {"writer": []},
        {"writer": {"package": None}},
    ],
    ids=str,
)  # fmt: skip
def test_bad_metadata_is_refused(change: dict[str, Any]) -> None:
    fields = attrs.asdict(META)
    with pytest.raises(InvalidCheckpoint):
        pack(Meta(**(fields | change)), {})


def deep(levels: int) -> Any:
    tree: Any = 0
    for _ in range(levels):
        tree = [tree]
    return tree


def with_tree(tree: Any) -> Meta:
    return Meta({}, {}, 0, "", "", tree)


def test_a_deep_tree_is_refused_not_overflowed() -> None:
    assert read(write({}, with_tree(deep(250))))[0].meta.tree == deep(250)
    with pytest.raises(InvalidCheckpoint, match="JSON"):
        pack(with_tree(deep(300)), {})


def test_bulk_in_the_tree_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strictjson, "MAX_BYTES", 8192)
    read(write({}, with_tree("x" * 7000)))
    for much in ("x" * 8000, "x" * 9000):
        with pytest.raises(InvalidCheckpoint, match="8192") as caught:
            pack(with_tree(much), {})
        assert "arrays" in caught.value.hint
    monkeypatch.setattr(strictjson, "MAX_TOKENS", 1000)
    with pytest.raises(InvalidCheckpoint, match="1000 values"):
        pack(with_tree([0] * 1000), {})


def test_whatever_is_written_is_within_the_limits_of_the_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(strictjson, "MAX_BYTES", 8192)
    refused = 0
    for size in range(7600, 8000, 3):
        try:
            data = write({}, with_tree("x" * size))
        except InvalidCheckpoint:
            refused += 1
        else:
            assert read(data)[0].meta.tree == "x" * size
    assert 0 < refused < 130


def test_too_many_values_are_not_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = write({}, with_tree([0] * 1000))
    read(data)
    monkeypatch.setattr(strictjson, "MAX_TOKENS", 1000)
    with pytest.raises(CorruptCheckpoint, match="not JSON"):
        read(data)


# --- what must not be read --------------------------------------------------------------------


def test_every_flipped_bit_is_noticed() -> None:
    read(SMALL)
    for bit in range(len(SMALL) * 8):
        data = bytearray(SMALL)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidCheckpoint):
            read(bytes(data))


def test_every_truncation_is_noticed() -> None:
    for size in range(len(SMALL)):
        with pytest.raises(CorruptCheckpoint):
            read(SMALL[:size])
    with pytest.raises(CorruptCheckpoint, match="calls for"):
        read(SMALL + b"\0")


def test_a_damaged_block_is_named() -> None:
    data = bytearray(write({"a": np.zeros(3 * BLOCK, "u1"), "b": np.zeros(9)}))
    header = parse(bytes(data[:4096]), len(data))
    data[header.data_offset + header.arrays["a"].offset + BLOCK] ^= 1
    with pytest.raises(CorruptCheckpoint) as caught:
        read(bytes(data))
    assert caught.value.where == "array 'a', block 1 of 3"


def test_a_block_of_the_wrong_length_is_refused() -> None:
    header, _ = read(SMALL)
    table = SMALL[header.digests_offset : header.seal_offset]
    placed = header.arrays["ab"]
    check_block(placed, 0, np.arange(3, dtype="<i4").tobytes(), table)
    with pytest.raises(CorruptCheckpoint):
        check_block(placed, 0, b"", table)


@given(st.binary(max_size=300), st.integers(0, 2**64 - 1))
def test_arbitrary_bytes_raise_only_our_errors(data: bytes, file_size: int) -> None:
    page = struct.pack("<Q", 4088) + data.ljust(4088)
    for prefix in (data, data.ljust(4096, b"\0"), page, page[:100]):
        with pytest.raises(InvalidCheckpoint):
            parse(prefix, file_size)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(), part, max_size=3),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner: Any = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    return [path] + [place for key, part in inner for place in places(part, (*path, key))]


@given(st.data())
def test_forged_metadata_raises_only_our_errors(data: st.DataObject) -> None:
    root = [about(SMALL)]
    path = data.draw(st.sampled_from(places(root)[1:]))
    at: Any = root
    for key in path[:-1]:
        at = at[key]
    replacement = data.draw(JSON | st.sampled_from(["|V0", "<f8", 0, 1, 2**63, [], {}, [0], [[0]]]))
    changed = orjson.dumps(at[path[-1]]) != orjson.dumps(replacement)
    at[path[-1]] = replacement
    forged = forge_about(orjson.dumps(root[0]), SMALL)
    try:
        header, result = read(forged)
    except InvalidCheckpoint:
        assert changed
    else:
        assert not changed or path[1] in (
            "schema",
            "kernel",
            "step",
            "created",
            "nonce",
            "tree",
            "writer",
        )
        assert orjson.dumps(header.meta.tree) == orjson.dumps(root[0]["tree"])
        assert result == read(SMALL)[1]


@given(st.data())
def test_a_forged_header_raises_only_our_errors(data: st.DataObject) -> None:
    root = [outer(SMALL)]
    path = data.draw(st.sampled_from([p for p in places(root)[1:] if "__metadata__" not in p]))
    at: Any = root
    for key in path[:-1]:
        at = at[key]
    replacement = data.draw(JSON)
    if orjson.dumps(at[path[-1]]) != orjson.dumps(replacement):
        at[path[-1]] = replacement
        with pytest.raises(CorruptCheckpoint):
            read(forge(orjson.dumps(root[0]), SMALL))


@given(st.integers(0, 4000), st.sampled_from([b"\0", b"[", b'"', b"}", b"\xff", b"9", b" ", b"\\"]))
def test_a_byte_put_into_the_header_raises_only_our_errors(at: int, byte: bytes) -> None:
    text = SMALL[8:4096].rstrip()
    at %= len(text)
    forged = text[:at] + byte + text[at:]
    try:
        header, result = read(forge(forged, SMALL))
    except InvalidCheckpoint:
        return
    # It went into what is free: the step's digits, a name in the schema, the padding.
    assert result == read(SMALL)[1]
    assert header.meta != META or forged.rstrip() == text


def about_with(**change: Any) -> bytes:
    return orjson.dumps(about(SMALL) | change)


def array_said(**change: Any) -> bytes:
    arrays = about(SMALL)["arrays"]
    return about_with(arrays=arrays | {"ab": arrays["ab"] | change})


TEXT = about_with()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (about_with(format=True), "lacks"),
        (about_with(format="1"), "lacks"),
        (about_with(more=1), "an unknown one"),
        (about_with(arrays=[]), "lacks"),
        (about_with(parents={}), "invalid parents"),
        (about_with(step=True), "not that of"),
        (about_with(step=1.0), "not that of"),
        (about_with(nonce="NO"), "not that of"),
        (array_said(shape=[3.0]), "shape"),
        (array_said(shape=[True]), "shape"),
        (array_said(shape=[-3]), "shape"),
        (array_said(shape=[2**64 - 1]), "shape"),
        (array_said(shape="3"), "shape"),
        (array_said(shape=[1] * 33), "33 dimensions"),
        (array_said(shape=[2**31, 2**31]), "memory"),
        (array_said(shape=[0, 2**62, 2**62]), "memory"),
        (
            TEXT.replace(b"[5]", b"[1099511627776]").replace(b"[[0,1,1]]", b"[[0,1,2097152]]"),
            "calls for",
        ),
        (array_said(shape=[1, 3]), "contradicts"),
        (array_said(dtype="<f4"), "contradicts"),
        (array_said(dtype="|O"), "dtype"),
        (array_said(extents=[]), "not laid out"),
        (array_said(extents=[[0, 1, 1]]), "not laid out"),
        (array_said(extents=[[False, 0, 1]]), "not laid out"),
        (array_said(more=1), "description"),
        (TEXT.replace(b'"format":1', b'"format":1,"format":1'), "not JSON"),
        (TEXT.replace(b'"step":7', b'"step":6,"step":7'), "not JSON"),
        (TEXT.replace(b'"step":7', b'"step": 7'), "not JSON"),
        (TEXT + b" ", "not JSON"),
        (TEXT[:-1], "not JSON"),
        (TEXT.replace(b"2.5", b"NaN"), "not JSON"),
        (TEXT.replace(b"2.5", b"[" * 300 + b"]" * 300), "not JSON"),
        (TEXT.replace(b"2.5", b"[" * 2000 + b"]" * 2000), "not JSON"),
        (b"[]", "not JSON"),
        (b"{}", "lacks"),
        (b"", "not JSON"),
    ],
    ids=lambda part: ascii(part)[-60:],
)
def test_lying_metadata_is_refused(text: bytes, match: str) -> None:
    with pytest.raises(CorruptCheckpoint, match=match):
        read(forge_about(text, SMALL))


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_bad_name_in_a_file_is_refused(name: str) -> None:
    with mock.patch.object(container, "check_array"), mock.patch.object(layout, "check_array"):
        try:
            data = write({name: np.zeros(1)})
        except InvalidCheckpoint:
            return  # orjson will not write it
    with pytest.raises(CorruptCheckpoint):
        read(data)


HEADER = SMALL[8:4096].rstrip()
TENSOR = HEADER[HEADER.index(b'"ab":{"dtype"') : HEADER.index(b',"c":{"dtype"')]


@pytest.mark.parametrize(
    "header",
    [
        b" " + HEADER,
        HEADER + b"\n",
        HEADER.replace(TENSOR, TENSOR + b"," + TENSOR),
        HEADER.replace(b'"dtype":"I32"', b'"dtype":"U32"'),
        HEADER.replace(b'"dtype":"I32"', b'"dtype":"I32","more":1'),
        HEADER.replace(b'"shape":[3],', b'"shape":[3.0],'),
        HEADER.replace(b'"shape":[3],', b'"shape":[1,3],'),
        HEADER.replace(b"[0,12]", b"[0,8]"),
        HEADER.replace(b"[0,12]", b"[-0,12]"),
        HEADER.replace(TENSOR + b",", b""),
        HEADER.replace(b'{"checkpointable":', b'{"x":"","checkpointable":'),
        HEADER.replace(b'{"checkpointable":', b'{"checkpointed":'),
        HEADER.replace(b'"$seal":', b'"$sea1":'),
        HEADER + b" " * 4096,
        b"{}",
        b"[]",
        b'{"__metadata__":[]}',
        b'{"__metadata__":{"checkpointable":1}}',
        b"\xef\xbb\xbf" + HEADER,
        HEADER.replace(b"c0ffee", b"c0ffe\xff"),
    ],
    ids=lambda header: ascii(header)[-60:],
)
def test_a_lying_header_is_refused(header: bytes) -> None:
    assert header != HEADER
    with pytest.raises(CorruptCheckpoint):
        read(forge(header, SMALL))
    read(forge(HEADER, SMALL))


IN_THAT_VERSION = "install checkpointable in the version that wrote it"


@pytest.mark.parametrize(
    ("writer", "hint"),
    [
        ({"checkpointable": "2.0.1rc1", "news": 1}, "install checkpointable>=2.0.1rc1"),
        *(
            (writer, IN_THAT_VERSION)
            for writer in (None, "", 2, {"checkpointable": 2}, {"checkpointable": "\x1b; rm"})
        ),
    ],
    ids=str,
)
def test_a_newer_format_says_what_to_install(writer: Any, hint: str) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"format 2.* format 1") as caught:
        read(forge_about(about_with(format=2, news={}, writer=writer), SMALL))
    assert not isinstance(caught.value, CorruptCheckpoint)
    assert caught.value.hint == hint


OFFSETS = st.lists(st.integers(-1, 9000) | st.floats() | st.booleans(), min_size=1, max_size=3)


@given(OFFSETS, OFFSETS, st.integers(4096, 9000))
def test_a_seal_is_found_within_the_file_or_not_at_all(
    digests: list[Any], seal: list[Any], file_size: int
) -> None:
    tensors = {"$digests": {"data_offsets": digests}, "$seal": {"data_offsets": seal}}
    prefix = struct.pack("<Q", 4088) + orjson.dumps(tensors).ljust(4088)
    try:
        begin, end = container.find_seal(prefix, file_size)
    except CorruptCheckpoint:
        return
    assert 4096 <= begin <= end <= file_size - 32


def test_a_seal_is_found_where_it_is() -> None:
    header = parse(SMALL[:4096], len(SMALL))
    result = container.find_seal(SMALL[:4096], len(SMALL))
    assert result == (header.digests_offset, header.seal_offset)


@pytest.mark.parametrize("size", [0, 1, 4087, 4089, 24415 * 4096 - 8, 2**63, 2**64 - 8])
def test_the_header_is_bounded_before_it_is_read(size: int) -> None:
    with pytest.raises(CorruptCheckpoint, match="not a checkpoint"):
        header_size(struct.pack("<Q", size), 2**63)


def test_a_header_longer_than_the_file_is_refused() -> None:
    assert header_size(struct.pack("<Q", 8184), 8192) == 8192
    with pytest.raises(CorruptCheckpoint):
        header_size(struct.pack("<Q", 8184), 8191)
    with pytest.raises(CorruptCheckpoint):
        header_size(b"\xf8\x0f", 4096)
