"""A checkpoint is a safetensors file: the reference library opens each and sees the arrays."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import orjson
import pytest
import safetensors
import safetensors.numpy

from checkpointable.format.container import pack, parse
from checkpointable.format.layout import AnyArray, Meta

NATIVE = {
    "?": "BOOL", "i1": "I8", "u1": "U8", "<i2": "I16", "<u2": "U16", "<i4": "I32", "<u4": "U32",
    "<i8": "I64", "<u8": "U64", "<f2": "F16", "<f4": "F32", "<f8": "F64", "<c8": "C64",
}  # fmt: skip
SMALL_FLOATS = {
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
}
RAW = [
    ">i2",
    ">f8",
    "<c16",
    "<M8[ns]",
    "<m8",
    "S5",
    "<U3",
    "V7",
    "g",
    "<i4,<f8",
    "float8_e4m3",
    "int4",
]


def noise(dtype: np.dtype[Any], shape: tuple[int, ...]) -> AnyArray:
    size = int(np.prod(shape)) * dtype.itemsize
    data = np.random.default_rng(0).bytes(size)
    if dtype.kind == "b":
        data = bytes(byte % 2 for byte in data)
    return np.ndarray(shape, dtype, data)


def write(**arrays: AnyArray) -> bytes:
    meta = Meta({"name": "it"}, {}, 3, "", "00", {"loss": 0.5})
    return b"".join(pack(meta, arrays).chunks())


def seen(data: bytes) -> dict[str, Any]:
    """What the library's own parser says of each tensor: dtype, shape, bytes."""
    return dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("text", NATIVE)
@pytest.mark.parametrize("shape", [(), (0,), (3, 4)])
def test_native_dtypes_are_tensors(text: str, shape: tuple[int, ...]) -> None:
    array = noise(np.dtype(text), shape)
    loaded = safetensors.numpy.load(write(it=array, turned=array.T))
    for name, wanted in {"it": array, "turned": array.T}.items():
        assert loaded[name].dtype == wanted.dtype
        assert loaded[name].shape == wanted.shape
        assert loaded[name].tobytes() == wanted.tobytes()
    assert seen(write(it=array))["it"]["dtype"] == NATIVE[text]


@pytest.mark.parametrize("name", SMALL_FLOATS)
def test_small_floats_are_tensors(name: str) -> None:
    array = noise(np.dtype(getattr(ml_dtypes, name)), (5, 3))
    tensor = seen(write(it=array))["it"]
    assert (tensor["dtype"], tensor["shape"]) == (SMALL_FLOATS[name], [5, 3])
    assert bytes(tensor["data"]) == array.tobytes()


@pytest.mark.parametrize("text", RAW)
@pytest.mark.parametrize("shape", [(), (0, 2), (3, 4)])
def test_other_dtypes_are_raw_bytes(text: str, shape: tuple[int, ...]) -> None:
    dtype = np.dtype(getattr(ml_dtypes, text, text))
    array = noise(dtype, shape)
    loaded = safetensors.numpy.load(write(it=array))["it"]
    assert (loaded.dtype.str, loaded.shape) == ("|u1", (*shape, dtype.itemsize))
    assert loaded.tobytes() == array.view(f"V{dtype.itemsize}").tobytes()


def test_a_file_opens_lazily_with_its_metadata(tmp_path: Path) -> None:
    data = write(field=np.arange(6.0).reshape(2, 3), flags=np.array([True, False]))
    (tmp_path / "step-3").write_bytes(data)
    with safetensors.safe_open(tmp_path / "step-3", framework="numpy") as file:
        assert sorted(file.keys()) == ["$digests", "$seal", "field", "flags"]
        assert file.get_tensor("field").tolist() == [[0, 1, 2], [3, 4, 5]]
        assert file.get_slice("field")[1:].tolist() == [[3, 4, 5]]
        assert file.get_tensor("$digests").shape == (2, 16)
        assert file.get_tensor("$seal").tobytes() == data[-32:]
        assert list(file.metadata()) == ["checkpointable"]
        assert orjson.loads(file.metadata()["checkpointable"])["tree"] == {"loss": 0.5}


def test_a_checkpoint_without_arrays_is_a_file_too() -> None:
    assert seen(write())["$digests"]["shape"] == [0, 16]


def test_our_limits_are_within_its_limits() -> None:
    arrays = {"ü" * 127: np.zeros((1,) * 32), "none": np.zeros((0, 2**40), "V5")}
    data = write(**arrays)
    assert seen(data)["none"]["shape"] == [0, 2**40, 5]
    assert list(parse(data[:4096], len(data)).arrays) == list(arrays)
