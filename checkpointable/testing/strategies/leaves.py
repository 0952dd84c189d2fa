"""Hypothesis strategies for the leaves of a checkpoint: scalars and arrays.

Hard values on purpose: NaN with payloads, -0.0, ints beyond 64 bits, lone surrogates, odd time
zones, empty and 0-d arrays, strides, Fortran order, padding.
"""

import datetime
import importlib.util
from decimal import Decimal
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

Strategy = st.SearchStrategy[Any]

_text = st.text(st.characters(exclude_categories=()))  # lone surrogates too
_offsets = st.timedeltas(datetime.timedelta(hours=-23), datetime.timedelta(hours=23))
_zones = st.one_of(
    st.none(),
    st.timezones(),
    st.builds(datetime.timezone, _offsets),
    st.builds(datetime.timezone, _offsets, _text),
)
_path_text = _text.map(lambda s: s.replace("\0", ""))

_xoroshiro = np.dtype([("s0", np.uint64), ("s1", np.uint64)], align=True)
"""The state of Numba's random numbers."""

_plain_dtypes: st.SearchStrategy[np.dtype[Any]] = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?"),
    hnp.complex_number_dtypes(endianness="?"),
    hnp.datetime64_dtypes(endianness="?"),
    hnp.timedelta64_dtypes(endianness="?"),
    hnp.byte_string_dtypes(min_len=1),
    hnp.unicode_string_dtypes(min_len=1, endianness="?"),
)


def _extension_dtypes() -> st.SearchStrategy[np.dtype[Any]]:
    """Dtypes of ml_dtypes, if it is installed."""
    if not importlib.util.find_spec("ml_dtypes"):
        return st.nothing()
    import ml_dtypes

    names = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "int4")
    return st.sampled_from([np.dtype(getattr(ml_dtypes, name)) for name in names])


_dtypes: st.SearchStrategy[np.dtype[Any]] = st.one_of(
    _plain_dtypes,
    st.deferred(_extension_dtypes),
    st.just(_xoroshiro),
    hnp.array_dtypes(_plain_dtypes, allow_subarrays=True),
    st.integers(0, 40).map(lambda n: np.dtype(f"V{n}")),
    st.sampled_from([np.dtype("S0"), np.dtype("U0")]),
)


def dtypes_of(scalars: tuple[type[np.generic], ...]) -> st.SearchStrategy[np.dtype[Any]]:
    """Dtypes of these scalar types, which may be abstract."""
    return st.one_of([_dtypes_of(scalar) for scalar in scalars])


def _dtypes_of(scalar: type[np.generic]) -> st.SearchStrategy[np.dtype[Any]]:
    if scalar is np.generic:
        return _dtypes
    if scalar is np.void:
        return st.just(_xoroshiro)
    if scalar is np.datetime64:
        return st.sampled_from([np.dtype("M8[us]"), np.dtype("M8[D]")])
    if scalar is np.timedelta64:
        return st.sampled_from([np.dtype("m8[us]"), np.dtype("m8[D]")])
    if scalar in (np.str_, np.bytes_):
        return st.integers(1, 5).map(lambda n: np.dtype((scalar, n)))
    kinds = [np.dtype(char).type for char in np.typecodes["All"] if char not in "OVMmSU"]
    concrete = [kind for kind in dict.fromkeys(kinds) if issubclass(kind, scalar)]
    return st.sampled_from([np.dtype(kind) for kind in concrete or [scalar]])


_SPECIAL: dict[str, list[Any]] = {
    "f": [np.nan, np.inf, -np.inf, -0.0],
    "c": [complex(np.nan, -0.0), complex(np.inf, 1)],
    "M": ["NaT"],
    "m": ["NaT"],
}


@st.composite
def arrays(draw: st.DrawFn, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Arrays of a dtype and shape, in any memory layout, of any bytes that are valid for it."""
    size = int(np.prod(shape)) * dtype.itemsize
    array = np.zeros(shape, dtype)
    if size and dtype.kind == "U":
        array[...] = "é"
    elif size and not _holds_text(dtype):
        raw = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
        array.reshape(-1).view(np.uint8)[:] = raw & 1 if dtype.kind == "b" else raw
        if dtype.kind in _SPECIAL and draw(st.booleans()):
            at = draw(st.integers(0, array.size - 1))
            array.reshape(-1)[at] = draw(st.sampled_from(_SPECIAL[dtype.kind]))
    if array.ndim and draw(st.booleans()):
        array = np.asfortranarray(array)
    if array.ndim and draw(st.booleans()):
        wide = np.zeros((2 * shape[0], *shape[1:]), dtype)
        wide[:: draw(st.sampled_from([2, -2]))] = array
        array = wide[::2] if draw(st.booleans()) else wide[::-2]
        array = array if array.shape == shape else np.zeros(shape, dtype)
    return array


def _holds_text(dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype has text in it, of which not all bytes are valid."""
    if dtype.subdtype is not None:
        return _holds_text(dtype.subdtype[0])
    if dtype.names is not None:
        return any(_holds_text(dtype[name]) for name in dtype.names)
    return dtype.kind == "U"


_LEAVES: dict[type, Strategy] = {
    int: st.integers() | st.integers(-(2**70), 2**70) | st.booleans(),
    float: st.floats() | st.integers(-5, 5) | st.floats().map(np.float64),
    complex: st.complex_numbers(),
    bool: st.booleans(),
    str: _text,
    bytes: st.binary(),
    type(None): st.none(),
    datetime.datetime: st.datetimes(timezones=_zones, allow_imaginary=True),
    datetime.date: st.dates(),
    datetime.time: st.times(timezones=_zones),
    datetime.timedelta: st.timedeltas(),
    UUID: st.uuids(),
    Decimal: st.decimals(),
    PurePosixPath: _path_text.map(PurePosixPath),
    PureWindowsPath: _path_text.map(PureWindowsPath),
    PurePath: _path_text.map(PurePosixPath) | _path_text.map(PureWindowsPath),
    Path: _path_text.map(Path),
    np.str_: _text.map(np.str_),
    np.bytes_: st.binary().map(np.bytes_),
}


def leaf_values(cls: type) -> Strategy:
    """Values of a scalar type, and of the types that PEP 484 promotes to it."""
    if cls in _LEAVES:
        return _LEAVES[cls]
    if issubclass(cls, np.generic):
        of_one = _dtypes_of(cls).flatmap(lambda dtype: arrays(dtype, (1,)))
        return of_one.map(lambda array: array[0])
    return _path_text.map(cls)  # PosixPath or WindowsPath, whichever this machine has
