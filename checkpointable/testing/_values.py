"""Strategies for values of any type that a checkpoint can hold."""

import dataclasses
import typing
from collections import deque
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
from hypothesis import strategies as st

from checkpointable.annotations import (
    ArrayType,
    Field,
    array_type,
    fields_of,
    is_enum,
    is_leaf,
    is_literal,
    is_record,
    is_union,
    plain,
    type_name,
)
from checkpointable.convert import hooks
from checkpointable.convert.scalars import Refused
from checkpointable.errors import reason
from checkpointable.testing._arrays import arrays, fitting_shapes
from checkpointable.testing._limits import ANY, Limits, limits_of
from checkpointable.testing._plan import Plan
from checkpointable.testing._scalars import NOTHING, members, scalars

Strategy = st.SearchStrategy[Any]
TRIES = 4  # of a whole record
FIELD_TRIES = 12


def values(tp: Any, plan: Plan, limits: Limits = ANY) -> Strategy:
    """Values of a type; empty, `NOTHING`, if there are none."""
    tp = plain(tp)
    if limits.options is not None:
        return _options(tp, limits)
    array = array_type(tp)
    if array is not None:
        return arrays(array, plan.shapes.strategy(array.ndim))
    if is_leaf(tp):
        found = scalars(typing.get_origin(tp) or tp, limits)
        if tp is int and limits is ANY:
            return found | st.sampled_from(plan.shapes.sides)
        return found
    if is_enum(tp):
        return members(tp)
    if is_literal(tp):
        return st.sampled_from(typing.get_args(tp))
    if is_record(tp):
        return records(tp, plan.deeper())
    if is_union(tp):
        return any_of(*(values(m, plan, limits) for m in plan.choices(tp)))
    return _containers(tp, plan, limits)


def any_of(*strategies: Strategy) -> Strategy:
    """One of those that are not empty."""
    some = [s for s in strategies if s is not NOTHING]
    return st.one_of(*some) if some else NOTHING


def _each(tp: Any, plan: Plan, alternatives: tuple[Limits, ...]) -> Strategy:
    return any_of(*(values(tp, plan, limits) for limits in alternatives or (ANY,)))


def _options(tp: Any, limits: Limits) -> Strategy:
    if isinstance(limits.options, range):
        return st.sampled_from(limits.options) if limits.options else NOTHING
    options = [option for option in limits.options or () if _fits(tp, option)]
    return st.sampled_from(options) if options else NOTHING


def _fits(tp: Any, value: Any) -> bool:
    try:
        hooks(tp)[0](value)
    except Refused:
        return False
    return True


def _containers(tp: Any, plan: Plan, limits: Limits) -> Strategy:
    origin, args = typing.get_origin(tp), typing.get_args(tp)
    sizes = limits.sizes()
    if plan.depth <= 0 and any(map(_mentions_record, args)):
        sizes["max_size"] = sizes["min_size"]
    if origin is tuple and args[-1:] != (Ellipsis,):
        return st.tuples(*(_each(arg, plan, limits.items) for arg in args))
    if origin is dict:
        key = _each(args[0], plan, limits.keys)
        pairs = st.lists(st.tuples(key, _each(args[1], plan, limits.values)), **sizes)
        return _long_enough(pairs.map(lambda ps: {k: v for k, v in ps if _hashable(k)}), limits)
    items = st.lists(_each(args[0], plan, limits.items), **sizes)
    if origin is list:
        return items
    if origin is tuple:
        return items.map(tuple)
    if origin is deque:
        longest = st.none() | st.integers(sizes["max_size"], sizes["max_size"] + 2)
        return st.builds(deque, items, longest)
    return _long_enough(items.map(lambda found: origin(filter(_hashable, found))), limits)


def _mentions_record(tp: Any) -> bool:
    return is_record(tp) or any(_mentions_record(arg) for arg in typing.get_args(tp))


def _long_enough(found: Strategy, limits: Limits) -> Strategy:
    """Of equal items one is left, of those that cannot be hashed none."""
    return found.filter(lambda v: len(v) >= limits.min_len) if limits.min_len else found


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except Exception:  # a signaling NaN, a structured scalar, a record that holds a list
        return False
    return True


# --- records -------------------------------------------------------------------------------------


class _Refused(Exception):
    """What was drawn is refused by the class, or by one of its fields."""


@st.composite
def records(draw: st.DrawFn, tp: Any, plan: Plan) -> Any:
    """Values of a record, built by its own constructor."""
    for _ in range(TRIES):
        try:
            return draw_record(draw, tp, plan, {})
        except Refusal:
            pass
    plan.tally.give_up()
