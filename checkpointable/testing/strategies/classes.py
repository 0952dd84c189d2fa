"""Hypothesis strategies for the types of fields, and for classes that have them."""

import dataclasses
import datetime
import enum
import keyword
from collections import deque
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Annotated, Any, Final, Literal, NamedTuple, NewType, Union
from uuid import UUID

import attrs
import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from checkpointable.schema import Array, type_name
from checkpointable.testing.strategies.leaves import Strategy


class Color(enum.Enum):
    """Members with an alias."""

    RED = "red"
    GREEN = (1, 2)
    CRIMSON = "red"


class Level(enum.IntEnum):
    """Members that are ints, large ones too."""

    LOW = 1
    HIGH = 2**70


class Access(enum.Flag):
    """Members that combine."""

    READ = enum.auto()
    WRITE = enum.auto()
    ROOT = 2**70


Meters = NewType("Meters", float)
_choices: Any = Literal["a", 1, True, b"x", None, Color.RED]

array_types = st.sampled_from(
    [
        Array[Any], npt.NDArray[Any], np.ndarray, Array[np.float32], Array[np.float64],
        Array[np.int8], Array[np.uint64], Array[np.complex128], Array[np.void],
        Array[np.floating[Any]], np.ndarray[tuple[int, int], np.dtype[np.int16]],
    ]
)  # fmt: skip
hashable_types = st.sampled_from(
    [
        int, float, complex, bool, str, bytes, type(None), Color, Level, Access,
        datetime.datetime, datetime.date, datetime.time, datetime.timedelta, UUID, Decimal, Path,
        PurePath, _choices, Meters, Annotated[int, "a note"], np.float32, np.int16, np.uint64,
        np.bool_, np.complex64, np.datetime64, np.str_, np.bytes_,
    ]
)  # fmt: skip
leaf_types = hashable_types | st.just(np.void)


def of(origin: Any, *arguments: Any) -> Any:
    """Subscript a generic type with types that are known at run time only."""
    return origin[arguments]


def _wrapped(inner: Strategy) -> Strategy:
    return st.one_of(
        inner.map(lambda t: of(list, t)),
        inner.map(lambda t: of(tuple, t, ...)),
        inner.map(lambda t: of(deque, t)),
        st.lists(inner, max_size=3).map(lambda types: of(tuple, *types)),
        hashable_types.map(lambda t: of(set, t)),
        hashable_types.map(lambda t: of(frozenset, t)),
        st.builds(lambda key, t: of(dict, key, t), hashable_types, inner),
        inner.map(lambda t: of(dict, str, t)),
        inner.map(lambda t: of(Union, t, None)),
        st.tuples(inner, inner).filter(_can_unite).map(lambda pair: of(Union, *pair)),
        classes(inner),
    )


def _can_unite(pair: tuple[Any, Any]) -> bool:
    """Return whether two types differ in name, as the members of a union must."""
    return pair[0] != pair[1] and type_name(pair[0]) != type_name(pair[1])


_names = st.from_regex(r"_?[a-zé][a-z0-9_]{0,6}", fullmatch=True).filter(
    lambda n: not keyword.iskeyword(n.lstrip("_")) and n.isidentifier()
)


@st.composite
def classes(draw: st.DrawFn, inner: Strategy) -> Any:
    """attrs classes of every kind, dataclasses and named tuples, with fields of these types."""
    types = draw(st.dictionaries(_names, inner, max_size=4))
    types = {n: t for n, t in types.items() if n.lstrip("_") not in types or n[0] != "_"}
    name = f"Made{draw(st.integers(0, 10**6))}"
    make = draw(st.sampled_from([_attrs_class, _attrs_class, _dataclass, _named_tuple]))
    return make(draw, name, types)


def _attrs_class(draw: st.DrawFn, name: str, types: dict[str, Any]) -> Any:
    make_field: Any = attrs.field  # its types do not know Final
    attributes = {
        field: make_field(
            type=draw(st.sampled_from([tp, Final[tp]])),
            init=draw(st.integers(0, 4)) > 0,
            alias=f"{field}_alias" if draw(st.booleans()) else None,
            default=draw(st.sampled_from([attrs.NOTHING, None])),
            converter=draw(st.sampled_from([None, lambda value: value])),
            validator=draw(st.sampled_from([None, lambda self, attribute, value: None])),
        )
        for field, tp in types.items()
    }
    frozen, slots = draw(st.booleans()), draw(st.booleans())
    make: Any = attrs.make_class  # its types lack unsafe_hash
    return make(
        name, attributes, frozen=frozen, slots=slots, kw_only=True,
        cache_hash=frozen, unsafe_hash=True if frozen else None, eq=True,
    )  # fmt: skip


def _dataclass(draw: st.DrawFn, name: str, types: dict[str, Any]) -> Any:
    return dataclasses.make_dataclass(
        name, types.items(), frozen=draw(st.booleans()), slots=draw(st.booleans())
    )


def _named_tuple(draw: st.DrawFn, name: str, types: dict[str, Any]) -> Any:
    public = [(field.lstrip("_"), tp) for field, tp in types.items()]
    return NamedTuple(name, public)


field_types: Strategy = st.recursive(leaf_types | array_types, _wrapped, max_leaves=6)
"""Types of every kind that a field can have."""


def checkpoint_classes() -> st.SearchStrategy[type[Any]]:
    """Checkpoint classes of every kind: attrs, dataclasses, named tuples, with fields of any type.

    >>> from hypothesis import given, settings
    >>> from checkpointable.testing import checkpoints
    >>> @settings(max_examples=5)
    ... @given(checkpoint_classes().flatmap(checkpoints))
    ... def test_any_checkpoint(checkpoint: object) -> None: ...
    >>> test_any_checkpoint()
    """
    return classes(field_types | field_types | classes(field_types))
