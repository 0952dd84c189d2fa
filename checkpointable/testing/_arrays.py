"""Strategies for dtypes and for arrays: any shape, content and memory layout."""

import itertools
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import frozen
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from checkpointable.annotations import ArrayType

AnyArray = npt.NDArray[Any]
Shape = tuple[int, ...]

SCALARS: tuple[type[np.generic], ...] = (
    np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64,
    np.float16, np.float32, np.float64, np.complex64, np.complex128,
    np.datetime64, np.timedelta64, np.str_, np.bytes_, np.void,
)  # fmt: skip
ABSTRACT: tuple[type[np.generic], ...] = (
    np.generic, np.number, np.integer, np.signedinteger, np.unsignedinteger,
    np.inexact, np.floating, np.complexfloating, np.flexible, np.character,
)  # fmt: skip
XOROSHIRO = np.dtype([("s0", np.uint64), ("s1", np.uint64)], align=True)
_PLAIN: st.SearchStrategy[np.dtype[Any]] = st.one_of(
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
_FLEXIBLE: dict[type, st.SearchStrategy[np.dtype[Any]]] = {
    np.datetime64: hnp.datetime64_dtypes(endianness="?"),
    np.timedelta64: hnp.timedelta64_dtypes(endianness="?"),
    np.str_: hnp.unicode_string_dtypes(endianness="?", min_len=0, max_len=5),
    np.bytes_: hnp.byte_string_dtypes(min_len=0, max_len=5),
    np.void: st.one_of(
        st.just(XOROSHIRO),
        st.integers(0, 40).map(lambda n: np.dtype(f"V{n}")),
        hnp.array_dtypes(_PLAIN, allow_subarrays=True).filter(lambda d: d.names is not None),
    ),
}
_TEXT = st.characters(exclude_categories=())  # lone surrogates too


@cache
def ml_scalars() -> tuple[type[np.generic], ...]:
    """Scalar types of ml_dtypes, if it is installed."""
    try:
        import ml_dtypes
    except ImportError:
        return ()
    names = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "int4")
    return tuple(getattr(ml_dtypes, name) for name in names)


@cache
def dtypes_of(scalar: type[np.generic]) -> st.SearchStrategy[np.dtype[Any]]:
    """Dtypes of a scalar type: of either byte order, of any length or unit; of any for `Any`."""
    if scalar is np.generic:
        every = st.one_of(*(dtypes_of(s) for s in (*SCALARS, *ml_scalars())))
        return hnp.array_dtypes(_PLAIN, allow_subarrays=True) | _PLAIN | every
    if scalar in _FLEXIBLE:
        return _FLEXIBLE[scalar]
    below = [s for s in SCALARS if issubclass(s, scalar)]
    if scalar in ABSTRACT:
        return st.one_of(*map(dtypes_of, below))
    dtype: np.dtype[Any] = np.dtype(scalar)
    return st.sampled_from([dtype, dtype, dtype, dtype.newbyteorder("S")])


@frozen
class Shapes:
    """The lengths of the axes in one checkpoint, so that arrays of like shape are met often.

    Where `alike`, all arrays have the first axes of `sides`: `rank` of them, or as many as
    their type says.
    """

    sides: Shape = (0, 0, 0, 0)
    rank: int = 1
    alike: bool = True

    def common(self, ndim: int | None) -> Shape:
        """The shape that most arrays have."""
        return self.sides[: self.rank] if ndim is None else (self.sides * (1 + ndim))[:ndim]

    def strategy(self, ndim: int | None) -> st.SearchStrategy[Shape]:
        """Shapes of an array."""
        common = st.just(self.common(ndim))
        if self.alike:
            return common
        low, high = (0, 4) if ndim is None else (ndim, ndim)
        free = hnp.array_shapes(min_dims=low, max_dims=high, min_side=0, max_side=5)
        ranks = st.integers(low, high).map(self.common)
        return common | ranks | common.flatmap(_staggered) | free


@st.composite
def shapes(draw: st.DrawFn) -> Shapes:
    """Draw the lengths first: one to three of them."""
    lengths = draw(st.lists(st.integers(0, 5), min_size=1, max_size=3))
    alike = draw(st.sampled_from([True, False]))
    return Shapes(tuple(lengths * 4)[:4], draw(st.sampled_from([1, 0, 2, 3, 4])), alike)


def _staggered(shape: Shape) -> st.SearchStrategy[Shape]:
    """The shape with one axis, or all, longer or shorter by one; or the other way round."""
    steps: list[Shape] = [tuple(int(i == j) for j in range(len(shape))) for i in range(len(shape))]
    near = [(*steps, (1,) * len(shape)), [tuple(-s for s in step) for step in steps]]
    changed = [
        tuple(max(0, n + d) for n, d in zip(shape, step, strict=True))
        for step in itertools.chain(*near)
    ]
    return st.sampled_from([*changed, shape[::-1]])


def fitting_shapes(
    ndim: int | None, common: Shape, also: Iterable[int], accepts: Callable[[Shape], bool]
) -> list[Shape]:
    """The small shapes that are accepted, those first that are most like the common one."""
    sides = sorted({*range(8), *common, *(n + 1 for n in common), *also})
    ranks = (*range(4),) if ndim is None else (ndim,)
    candidates = itertools.chain(*(itertools.product(sides, repeat=rank) for rank in ranks))
    small = (s for s in itertools.islice(candidates, 2000) if np.prod(s, dtype=float) <= 4096)
    found = [shape for shape in small if accepts(shape)]
    return sorted(found, key=lambda s: (_difference(s, common), s))


def _difference(a: Shape, b: Shape) -> int:
    return abs(len(a) - len(b)) + sum(n != m for n, m in zip(a, b, strict=False))


@st.composite
def arrays(
    draw: st.DrawFn, expected: ArrayType, shapes: st.SearchStrategy[Shape]
) -> npt.NDArray[Any]:
    """Arrays of a type, of any content that the dtype allows, in any memory layout."""
    dtype = draw(st.sampled_from(expected.scalars).flatmap(dtypes_of))
    shape = draw(shapes)
    array = np.zeros(shape, dtype)
    fill = draw(st.sampled_from(["zeros", "small", "hard", "bytes", "bytes"]))
    if array.nbytes and array.dtype.kind == "U":
        size = array.dtype.itemsize // 4
        texts = draw(st.lists(st.text(_TEXT, max_size=size), min_size=1, max_size=3))
        array.reshape(-1)[:] = np.resize(np.array(texts, array.dtype), array.size)
    elif array.nbytes and fill != "zeros" and (array.dtype.kind == "b" or _any_bytes(array.dtype)):
        size = array.nbytes if fill == "bytes" else array.size
        drawn = draw(st.binary(min_size=min(size, 512), max_size=min(size, 512)))
        raw = np.resize(np.frombuffer(drawn, np.uint8), size)
        _fill(array, raw, fill)
    if array.ndim and draw(st.booleans()):
        array = np.asfortranarray(array)
    step = draw(st.sampled_from([1, -1, 2])) if array.ndim else 1
    if step == 2:
        axis = draw(st.integers(0, array.ndim - 1))
        wide = np.repeat(array, 2, axis=axis)
        return wide[(slice(None),) * axis + (slice(None, None, 2),)]
    return array[::step] if step < 0 else array


def _fill(array: AnyArray, raw: npt.NDArray[np.uint8], fill: str) -> None:
    flat, kind = array.reshape(-1), array.dtype.kind
    if kind == "b":
        flat[:] = np.resize(raw & 1, array.size)
    elif fill == "small" and kind in "iufc":
        flat[:] = (raw % 3).astype(array.dtype)
    elif fill == "hard" and kind in "iufcmM" and array.dtype.type.__module__ == "numpy":
        table = _hard(array.dtype)
        flat[:] = table[raw % len(table)]
    else:
        flat.view(np.uint8)[:] = np.resize(raw, array.nbytes)


def _hard(dtype: np.dtype[Any]) -> AnyArray:
    """Values at the edge: NaN with a payload, infinities, -0.0, the extremes, NaT."""
    native: Any = dtype.newbyteorder("=")
    if dtype.kind in "fc":
        top = np.finfo(native).max
        found = np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, top, -top], native)
    elif dtype.kind in "mM":
        ends = [-(2**63), 1 - 2**63, -1, 0, 1, 2**63 - 1]
        found = np.array(ends, np.int64).view(native)
    else:
        ends = [np.iinfo(native).min, np.iinfo(native).max, 1]
        found = np.array(ends, native)
    ones = np.frombuffer(b"\xff" * dtype.itemsize, native)
    return np.concatenate([found, ones]).astype(dtype)


def _any_bytes(dtype: np.dtype[Any]) -> bool:
    """Say whether any bytes will do: not for text or truth."""
    if dtype.subdtype is not None:
        return _any_bytes(dtype.subdtype[0])
    if dtype.names is not None:
        return all(_any_bytes(dtype[name]) for name in dtype.names)
    return dtype.kind not in "Ub"


def numpy_scalars(tp: type[np.generic]) -> st.SearchStrategy[Any]:
    """Values of a NumPy scalar type."""
    if tp is np.str_:
        return st.text(_TEXT).map(np.str_)
    if tp is np.bytes_:
        return st.binary().map(np.bytes_)
    one = arrays(ArrayType((tp,)), st.just((1,)))
    return one.map(lambda array: array[0]).filter(lambda value: isinstance(value, tp))
