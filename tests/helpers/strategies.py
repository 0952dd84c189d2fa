"""Checkpoint classes that several tests use, and pairs of a type or class and a value."""

from collections import namedtuple
from typing import Any, Generic, TypeVar

import attrs
from hypothesis import strategies as st

from checkpointable.testing import checkpoint_classes
from checkpointable.testing import checkpoints as checkpoints_of
from checkpointable.testing.strategies.classes import Color, field_types, of

__all__ = ["Chain", "Color", "Narrow", "Pair", "Point", "any_type", "checkpoints", "of"]


def _holder(tp: Any) -> Any:
    return attrs.make_class("Holder", {"it": attrs.field(type=tp)})


any_type: st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]] = field_types.map(
    lambda tp: (tp, checkpoints_of(_holder(tp)).map(lambda holder: holder.it))
)
"""A type, and a strategy for its values."""

checkpoints: st.SearchStrategy[tuple[Any, Any]] = checkpoint_classes().flatmap(
    lambda cls: st.tuples(st.just(cls), checkpoints_of(cls))
)
"""A generated checkpoint class, and a value of it."""

T = TypeVar("T")
U = TypeVar("U")


@attrs.frozen
class Pair(Generic[T, U]):
    first: T
    second: U


@attrs.frozen
class Narrow(Pair[int, U]):
    third: list[U] = attrs.field(factory=list)


@attrs.frozen
class Chain:
    value: int
    next: "Chain | None" = None
    others: "list[Chain]" = attrs.field(factory=list)


Point = namedtuple("Point", "x y")  # no annotations: refused
