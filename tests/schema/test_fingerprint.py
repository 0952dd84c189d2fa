"""A schema's fingerprint changes if and only if what the class stores changes."""

import enum
import typing
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import attrs
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from checkpointable import Array, checkpoint
from checkpointable.schema.fields import fields_of
from checkpointable.schema.schema import schema_of
from checkpointable.schema.types import describe, is_record, is_union, members_of
from tests.helpers.strategies import Chain, Color, any_type, of


def fingerprint(cls: Any) -> str:
    return schema_of(cls).fingerprint


def made(name: str, **types: Any) -> Any:
    return attrs.make_class(name, {n: attrs.field(type=t) for n, t in types.items()})


def rebuilt(tp: Any, keep_name: bool = False) -> Any:
    """A copy of the type: classes renamed where a file has no names, fields in reverse order."""
    if is_record(tp):
        types = {f.name: rebuilt(f.type, keep_name) for f in reversed(fields_of(tp))}
        name = (typing.get_origin(tp) or tp).__name__
        return made(name if keep_name else f"{name}Renamed", **types)
    if is_union(tp):
        return of(typing.Union, *(rebuilt(m, keep_name=True) for m in members_of(tp)))
    origin, args = typing.get_origin(tp), typing.get_args(tp)
    if origin in (list, tuple, dict):
        return of(origin, *(a if a is ... else rebuilt(a, keep_name) for a in args))
    return tp


@given(any_type)
def test_names_of_classes_and_the_order_of_fields_do_not_matter(typed: Any) -> None:
    one = made("One", before=int, it=typed[0])
    other = made("Other", it=rebuilt(typed[0]), before=int)
    assert fingerprint(one) == fingerprint(other)


def mentioned(tp: Any) -> list[Any]:
    return [tp, *(inner for arg in typing.get_args(tp) for inner in mentioned(arg))]


@given(any_type, any_type)
def test_types_that_differ_in_description_differ(one: Any, other: Any) -> None:
    assume(describe(one[0]) != describe(other[0]))
    assume(not any(is_record(c) for tp in (one[0], other[0]) for c in mentioned(tp)))
    assert fingerprint(made("A", x=one[0])) != fingerprint(made("A", x=other[0]))


@given(any_type, st.data())
def test_a_change_deep_inside_shows(typed: Any, data: Any) -> None:
    depth = data.draw(st.integers(1, 4))
    wraps = [lambda t: made("B", y=t), lambda t: of(list, t), lambda t: of(typing.Union, t, None)]
    chosen = data.draw(st.lists(st.sampled_from(wraps), min_size=depth, max_size=depth))

    def wrapped(tp: Any) -> Any:
        for wrap in chosen:
            tp = wrap(tp)
        return made("A", x=tp)

    inner = [made("C", it=typed[0]), made("C", renamed=typed[0]), made("C", it=typed[0], more=int)]
    assert len({fingerprint(wrapped(tp)) for tp in inner}) == 3


class Values(NamedTuple):
    x: int


@attrs.frozen
class Unrolled:
    value: int
    next: "Chain | None"
    others: list[Chain]


def test_a_recursive_class_unrolled_is_the_same() -> None:
    # Both unions name their class Chain, so that a file of one can be read as the other.
    assert fingerprint(Unrolled) == fingerprint(Chain)


def members(make: Callable[..., Any], name: str, members: dict[str, Any]) -> Any:
    return made("A", x=make(name, members))


FLAG: Any = enum.Flag
ONE, TWO = FLAG("F", {"A": 1}), FLAG("F", {"A": 2})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (made("A", x=Values), made("A", x=made("Values", x=int)), True),  # a file tells no kinds
        (made("A", x=int | str), made("A", x=str | int), True),
        (made("A", x=Color | int), made("A", x=Color | str), False),
        (made("A", x=int | made("B", y=int)), made("A", x=int | made("C", y=int)), False),
        (members(enum.Enum, "E", {"a": 1}), members(enum.Enum, "E", {"a": 2}), True),
        (members(enum.Enum, "E", {"a": 1}), members(enum.Enum, "E", {"b": 1}), False),
        (members(enum.Enum, "E", {"a": 1}), members(enum.Enum, "F", {"a": 1}), False),
        (members(enum.Flag, "E", {"a": 1}), members(enum.Flag, "E", {"a": 2}), False),
        (members(enum.Flag, "E", {"a": 1}), members(enum.Flag, "E", {"b": 1}), False),
        (made("A", x=of(Literal, ONE.A)), made("A", x=of(Literal, TWO.A)), False),
        (made("A", x=int), checkpoint("wave", version=3)(made("A", x=int)), True),
    ],
)  # fmt: skip
def test_which_changes_matter(one: Any, other: Any, same: bool) -> None:
    assert (fingerprint(one) == fingerprint(other)) is same


def test_it_is_the_same_everywhere() -> None:
    array = Array[np.float32]
    cls = made("Any", x=array, y=dict[str, list[int | None]], z=Color, c=Chain, v=tuple[float, ...])
    assert fingerprint(cls) == "420f0ae0f68d6576"
