"""Hypothesis strategies for checkpoint classes and their values."""

import dataclasses
import datetime
import enum
import keyword
from collections import deque, namedtuple
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Final, Generic, Literal, NamedTuple, NewType, TypeVar, Union
from uuid import UUID

import attrs
import ml_dtypes
import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from checkpointable import Array

Typed = tuple[Any, st.SearchStrategy[Any]]
"""A type, and a strategy for its values."""


class Color(enum.Enum):
    RED = "red"
    GREEN = (1, 2)
    CRIMSON = "red"  # an alias


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2**70


class Access(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()
    ROOT = 2**70


Meters = NewType("Meters", float)

text = st.text(st.characters(exclude_categories=()))  # lone surrogates too
timezones = st.one_of(
    st.none(),
    st.timezones(),
    st.builds(
        datetime.timezone,
        st.timedeltas(datetime.timedelta(hours=-23), datetime.timedelta(hours=23)),
    ),
    st.builds(
        datetime.timezone,
        st.timedeltas(datetime.timedelta(hours=-23), datetime.timedelta(hours=23)),
        text,
    ),
)
path_text = text.map(lambda s: s.replace("\0", ""))

native_scalars = st.one_of(
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
extension_dtypes = st.sampled_from(
    [np.dtype(getattr(ml_dtypes, n)) for n in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "int4")]
)
xoroshiro = np.dtype([("s0", np.uint64), ("s1", np.uint64)], align=True)
dtypes: st.SearchStrategy[np.dtype[Any]] = st.one_of(
    native_scalars,
    extension_dtypes,
    st.just(xoroshiro),
    hnp.array_dtypes(native_scalars, allow_subarrays=True),
    st.integers(0, 40).map(lambda n: np.dtype(f"V{n}")),
    st.sampled_from([np.dtype("S0"), np.dtype("U0")]),
)


@st.composite
def arrays(draw: st.DrawFn, dtype: np.dtype[Any] | None = None) -> npt.NDArray[Any]:
    """Arrays of any dtype and memory layout, filled with any bytes that the dtype allows."""
    dtype = draw(dtypes) if dtype is None else dtype
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    array = np.zeros(shape, dtype)
    if size and dtype.kind not in "U" and not _holds_text(dtype):
        array.reshape(-1).view(np.uint8)[:] = raw & 1 if dtype.kind == "b" else raw
    elif size and dtype.names is None and dtype.subdtype is None:
        array[...] = "é"
    if array.ndim and draw(st.booleans()):
        array = np.asfortranarray(array)
    if array.ndim and draw(st.booleans()):
        array = array[:: draw(st.sampled_from([-1, 2, -2]))]
    if draw(st.booleans()):
        array = array.T
    return array


def _holds_text(dtype: np.dtype[Any]) -> bool:
    """Fields of text or truth, where not any bytes will do."""
    if dtype.subdtype is not None:
        return _holds_text(dtype.subdtype[0])
    if dtype.names is not None:
        return any(_holds_text(dtype[name]) for name in dtype.names)
    return dtype.kind in "Ub"


array_types: st.SearchStrategy[Typed] = st.one_of(
    st.just((Array[Any], arrays())),
    st.just((npt.NDArray[Any], arrays())),
    st.just((np.ndarray, arrays())),
    st.sampled_from([np.float32, np.float64, np.int8, np.uint64, np.complex128]).map(
        lambda scalar: (Array[scalar], arrays(np.dtype(scalar)))  # type: ignore[valid-type]
    ),
    st.just((Array[np.void], arrays(xoroshiro))),
)


def _numpy_scalar(dtype: np.dtype[Any]) -> st.SearchStrategy[Any]:
    return arrays(dtype).filter(lambda a: a.size > 0).map(lambda a: a.reshape(-1)[0])


numpy_scalars: st.SearchStrategy[Typed] = st.one_of(
    st.sampled_from([np.float32, np.int16, np.uint64, np.bool_, np.complex64, ml_dtypes.bfloat16])
    .map(lambda t: (t, _numpy_scalar(np.dtype(t)))),
    st.just((np.datetime64, _numpy_scalar(np.dtype("M8[us]")))),
    st.just((np.void, _numpy_scalar(xoroshiro))),
    st.just((np.str_, text.map(np.str_))),
    st.just((np.bytes_, st.binary().map(np.bytes_))),
)  # fmt: skip

leaves: st.SearchStrategy[Typed] = st.one_of(
    st.sampled_from(
        [
            (int, st.integers() | st.integers(-(2**70), 2**70) | st.booleans()),
            (float, st.floats() | st.integers(-5, 5) | st.floats().map(np.float64)),
            (complex, st.complex_numbers()),
            (bool, st.booleans()),
            (str, text),
            (bytes, st.binary()),
            (type(None), st.none()),
            (Color, st.sampled_from(Color)),
            (Level, st.sampled_from(Level)),
            (Access, st.sampled_from([Access(0), Access.READ | Access.WRITE, Access.ROOT])),
            (datetime.datetime, st.datetimes(timezones=timezones, allow_imaginary=True)),
            (datetime.date, st.dates()),
            (datetime.time, st.times(timezones=timezones)),
            (datetime.timedelta, st.timedeltas()),
            (UUID, st.uuids()),
            (Decimal, st.decimals()),
            (Path, path_text.map(Path)),
            (PurePath, path_text.map(PurePosixPath) | path_text.map(PureWindowsPath)),
            (Literal["a", 1, True, b"x", None, Color.RED],
             st.sampled_from(["a", 1, True, b"x", None, Color.RED])),
            (Meters, st.floats().map(Meters)),
            (Annotated[int, "a note"], st.integers()),
        ]
    ),
    numpy_scalars,
)  # fmt: skip


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:  # a signaling NaN, a structured scalar
        return False
    return True


hashable_leaves = leaves.filter(lambda typed: typed[0] is not np.void).map(
    lambda typed: (typed[0], typed[1].filter(_hashable))
)


def of(origin: Any, *arguments: Any) -> Any:
    """Subscribe a generic type with types that only the test knows."""
    return origin[arguments]


def containers(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    """Lists, tuples, sets, deques, dicts, unions and classes of what `inner` gives."""

    def wrap(make: Callable[[Any], Any], values: Callable[[Any], Any]) -> st.SearchStrategy[Typed]:
        return inner.map(lambda typed: (make(typed[0]), values(typed[1])))

    def of_keys(
        make: Callable[[Any], Any], values: Callable[[Any], Any]
    ) -> st.SearchStrategy[Typed]:
        return hashable_leaves.map(lambda typed: (make(typed[0]), values(typed[1])))

    return st.one_of(
        wrap(lambda t: of(list, t), lambda v: st.lists(v, max_size=3)),
        wrap(lambda t: of(tuple, t, ...), lambda v: st.lists(v, max_size=3).map(tuple)),
        wrap(lambda t: of(deque, t), _deques),
        st.lists(inner, max_size=3).map(
            lambda typed: (of(tuple, *(t for t, _ in typed)), st.tuples(*(v for _, v in typed)))
        ),
        of_keys(lambda t: of(set, t), lambda v: st.lists(v, max_size=3).map(set)),
        of_keys(lambda t: of(frozenset, t), lambda v: st.lists(v, max_size=3).map(frozenset)),
        st.tuples(hashable_leaves, inner).map(
            lambda pair: (
                of(dict, pair[0][0], pair[1][0]),
                st.dictionaries(pair[0][1], pair[1][1], max_size=3),
            )
        ),
        wrap(lambda t: of(dict, str, t), lambda v: st.dictionaries(text, v, max_size=3)),
        wrap(lambda t: of(Union, t, None), lambda v: v | st.none()),
        st.tuples(inner, inner).map(_union).filter(lambda typed: typed is not None),
        classes(inner),
    )


def _deques(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(deque, st.lists(values, max_size=3), st.none() | st.integers(3, 5))


def _union(pair: tuple[Typed, Typed]) -> Any:
    (a, first), (b, second) = pair
    names = [getattr(t, "__name__", None) for t in (a, b)]
    if a == b or names[0] == names[1]:
        return None
    return of(Union, a, b), first | second


names = st.from_regex(r"_?[a-zé][a-z0-9_]{0,6}", fullmatch=True).filter(
    lambda n: not keyword.iskeyword(n.lstrip("_")) and n.isidentifier()
)
_counter = iter(range(10**9))


@st.composite
def classes(draw: st.DrawFn, inner: st.SearchStrategy[Typed]) -> Typed:
    """attrs classes of every make, dataclasses and named tuples, with values that fit."""
    fields = draw(st.dictionaries(names, inner, max_size=4))
    fields = {n: f for n, f in fields.items() if n.lstrip("_") not in fields or n[0] != "_"}
    make = draw(st.sampled_from([_attrs_class, _attrs_class, _dataclass, _named_tuple]))
    cls, build = make(draw, f"Made{next(_counter)}", {n: t for n, (t, _) in fields.items()})
    values = st.fixed_dictionaries({n: v for n, (_, v) in fields.items()})
    return cls, values.map(build)


def _attrs_class(draw: st.DrawFn, name: str, types: dict[str, Any]) -> Any:
    attributes: dict[str, Any] = {}
    late = []
    for field, tp in types.items():
        init = draw(st.integers(0, 4)) > 0
        late += [] if init else [field]
        attributes[field] = attrs.field(
            type=draw(st.sampled_from([tp, Final[tp]])),
            init=init,
            alias=f"{field}_alias" if draw(st.booleans()) else None,
            default=draw(st.sampled_from([attrs.NOTHING, None])),
            converter=draw(st.sampled_from([None, lambda value: value])),
            validator=draw(st.sampled_from([None, lambda self, attribute, value: None])),
        )
    frozen, slots = draw(st.booleans()), draw(st.booleans())
    make: Any = attrs.make_class  # its types lack unsafe_hash
    cls = make(
        name, attributes, frozen=frozen, slots=slots, kw_only=True,
        cache_hash=frozen, unsafe_hash=True if frozen else None, eq=True,
    )  # fmt: skip
    aliases = {a.name: a.alias for a in attrs.fields(cls)}

    def build(values: dict[str, Any]) -> Any:
        made = cls(**{aliases[n]: v for n, v in values.items() if n not in late})
        for n in late:
            object.__setattr__(made, n, values[n])
        return made

    return cls, build


def _dataclass(draw: st.DrawFn, name: str, types: dict[str, Any]) -> Any:
    cls = dataclasses.make_dataclass(
        name, types.items(), frozen=draw(st.booleans()), slots=draw(st.booleans())
    )
    return cls, lambda values: cls(**values)


def _named_tuple(draw: st.DrawFn, name: str, types: dict[str, Any]) -> Any:
    public = {n.lstrip("_"): t for n, t in types.items()}
    cls = NamedTuple(name, list(public.items()))  # type: ignore[misc]
    return cls, lambda values: cls(**{n.lstrip("_"): v for n, v in values.items()})


any_type: st.SearchStrategy[Typed] = st.recursive(leaves | array_types, containers, max_leaves=6)


@st.composite
def checkpoints(draw: st.DrawFn) -> tuple[Any, Any]:
    """A generated checkpoint class, and a value of it."""
    cls, values = draw(classes(any_type))
    return cls, draw(values)


T = TypeVar("T")
U = TypeVar("U")


@attrs.frozen
class Pair(Generic[T, U]):
    first: T
    second: U


@attrs.define
class Narrow(Pair[int, U]):
    third: list[U] = attrs.field(factory=list)


@attrs.frozen
class Chain:
    value: int
    next: "Chain | None" = None
    others: "list[Chain]" = attrs.field(factory=list)


Point = namedtuple("Point", "x y")  # no annotations: refused
