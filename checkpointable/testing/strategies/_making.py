"""Making one checkpoint: a value for each field, by its type, its validator, and its neighbours."""

import dataclasses
import itertools
import math
import typing
from collections import deque
from collections.abc import Iterator
from enum import Flag
from functools import cache
from typing import Any

import attrs
import numpy as np
from attrs import frozen
from hypothesis import strategies as st

from checkpointable.errors import reason
from checkpointable.schema import (
    Field,
    array_type,
    fields_of,
    is_enum,
    is_leaf,
    is_literal,
    is_named_tuple,
    is_record,
    is_union,
    members_of,
    plain,
    type_name,
)
from checkpointable.testing.strategies._limits import NONE, Limits, limited_leaves, limits_of
from checkpointable.testing.strategies._scalars import Strategy, arrays, dtypes_of, is_hashable
from checkpointable.testing.strategies._shapes import Shapes, likely_shapes
from checkpointable.tree import Refused as CannotConvert
from checkpointable.tree import hooks

_TRIES = 10
_DEEP = 3


class Refused(Exception):
    """A class refuses a value: which class, or field of it, and why."""

    def __init__(self, where: str, why: str, field: str = "field") -> None:
        super().__init__(f"{where}: {why}")
        self.field = field


@frozen
class Maker:
    """Draws the parts of one checkpoint."""

    draw: st.DrawFn
    shapes: Shapes

    def value(self, tp: Any, limits: Limits, depth: int) -> Any:
        """A value of any supported type."""
        tp = plain(tp)
        origin, args = typing.get_origin(tp) or tp, typing.get_args(tp)
        array = array_type(tp)
        if array is not None:
            dtype = self.draw(dtypes_of(array.scalars).filter(lambda d: d.subdtype is None))
            return self.draw(arrays(dtype, self.shapes.draw(self.draw, array.ndim)))
        if is_union(tp):
            return self.value(self.member(tp, depth), limits, depth)
        if limits.options is not None and tp is not type(None):
            return self.draw(st.sampled_from(limits.options))
        if is_leaf(tp):
            return self.draw(limited_leaves(origin, limits))
        if is_enum(tp):
            return self.draw(_members(tp))
        if is_literal(tp):
            return self.draw(st.sampled_from(args))
        if is_record(tp):
            return self.record(tp, {}, depth + 1)
        return self.container(origin, args, limits, depth)

    def member(self, union: Any, depth: int) -> Any:
        """One member of a union; deep down one that leads to an end soonest."""
        members = members_of(union)
        if depth >= _DEEP:
            least = min(map(_height, members))
            members = tuple(member for member in members if _height(member) == least)
        return self.draw(st.sampled_from(members))

    def container(self, origin: Any, args: Any, limits: Limits, depth: int) -> Any:
        """A list, tuple, set, deque or dict."""
        if origin is tuple and args[-1:] != (Ellipsis,):
            return tuple(self.value(arg, NONE, depth) for arg in args)
        few = limits.least + (0 if depth >= _DEEP else 3)
        count = self.draw(st.integers(limits.least, few if limits.most is None else limits.most))
        items, keys = limits.items or NONE, limits.keys or NONE
        if origin is dict:
            made = [self.hashable(args[0], keys, depth) for _ in range(count)]
            return {key: self.value(args[1], items, depth) for key in made}
        if origin in (set, frozenset):
            return origin(self.hashable(args[0], items, depth) for _ in range(count))
        values = [self.value(args[0], items, depth) for _ in range(count)]
        if origin is deque:
            return deque(values, self.draw(st.none() | st.integers(max(count, 3), count + 3)))
        return origin(values)

    def hashable(self, tp: Any, limits: Limits, depth: int) -> Any:
        """A value for a set, or for a key."""
        for _ in range(_TRIES):
            value = self.value(tp, limits, depth)
            if is_hashable(value):
                return value
        raise Refused(type_name(tp), "no value was hashable")

    def record(self, tp: Any, given: dict[str, Strategy], depth: int) -> Any:
        """An object of a class, by its constructor."""
        cls: Any = typing.get_origin(tp) or tp
        fields = fields_of(tp)
        values = {field.name: self.field(field, given, depth) for field in fields}
        for field in [*fields, *fields]:  # twice, since a later field may be seen by an earlier one
            if field.name not in given:
                self.mend(cls, field, values, depth)
        for field in fields:
            why = _refusal(cls, field, values)
            if why:
                raise Refused(f"{cls.__name__}.{field.name}", why, field.name)
        try:
            return _construct(tp, values)
        except Exception as error:  # whatever a user's class raises
            shapes = self.search(tp, [f for f in fields if f.name not in given], values)
            if shapes is None:
                raise Refused(cls.__name__, reason(error)) from error
        for name, shape in shapes.items():
            values[name] = self.draw(arrays(values[name].dtype, shape))
        try:
            return _construct(tp, values)
        except Exception as error:
            raise Refused(cls.__name__, reason(error)) from error

    def field(self, field: Field, given: dict[str, Strategy], depth: int) -> Any:
        """A value of a field."""
        if field.name in given:
            return self.draw(given[field.name])
        validator = field.attribute.validator if field.attribute else None
        return self.value(field.type, limits_of(validator), depth)

    def mend(self, cls: Any, field: Field, values: dict[str, Any], depth: int) -> None:
        """Draw a field again, seen beside the others, until its validator takes it."""
        array = array_type(field.type)
        if array is not None and _refusal(cls, field, values):
            dtype = values[field.name].dtype
            others = {name: value for name, value in values.items() if name != field.name}
            fits = [
                shape
                for shape in likely_shapes(others, array.ndim, self.shapes.sides)
                if not _refusal(cls, field, values | {field.name: np.ones(shape, dtype)})
            ]
            if fits:
                shape = self.draw(st.sampled_from(fits))
                values[field.name] = self.draw(arrays(dtype, shape))
                if _refusal(cls, field, values):  # of what is in it
                    values[field.name] = np.ones(shape, dtype)
        for _ in range(_TRIES):
            if not _refusal(cls, field, values):
                return
            values[field.name] = self.field(field, {}, depth)

    def search(
        self, tp: Any, fields: list[Field], values: dict[str, Any]
    ) -> dict[str, tuple[int, ...]] | None:
        """Find shapes that the constructor takes; None if a few hundred tries find none."""
        free = [field for field in fields if isinstance(values[field.name], np.ndarray)]

        def candidates(chosen: dict[str, Any], left: list[Field]) -> Iterator[dict[str, Any]]:
            if not left:
                yield chosen
                return
            name, rank = left[0].name, getattr(array_type(left[0].type), "ndim", None)
            for shape in likely_shapes(chosen, rank, self.shapes.sides):
                array = np.ones(shape, values[name].dtype)
                yield from candidates(chosen | {name: array}, left[1:])

        fixed = {name: v for name, v in values.items() if name not in {f.name for f in free}}
        for chosen in itertools.islice(candidates(fixed, free), 500 if free else 0):
            try:
                _construct(tp, chosen)
            except Exception:  # the next one, then
                continue
            return {field.name: chosen[field.name].shape for field in free}
        return None


def _members(enum: Any) -> Strategy:
    if issubclass(enum, Flag):
        return st.sets(st.sampled_from([*enum])).map(lambda some: _combined(enum, some))
    return st.sampled_from([*enum])


def _combined(enum: Any, members: set[Any]) -> Any:
    combined = enum(0)
    for member in members:
        combined |= member
    return combined


@cache
def _height(tp: Any) -> float:
    """How deep the least value of a type nests."""
    return _least_height(tp, ())


def _least_height(tp: Any, above: tuple[Any, ...]) -> float:
    tp = plain(tp)
    if tp in above:
        return math.inf
    args = typing.get_args(tp)
    if is_union(tp):
        return min(_least_height(member, above) for member in members_of(tp))
    if is_record(tp):
        types = [field.type for field in fields_of(tp)]
        return 1 + max((_least_height(t, (*above, tp)) for t in types), default=0)
    if typing.get_origin(tp) is tuple and args[-1:] != (Ellipsis,):
        return max((_least_height(t, above) for t in args), default=0)
    return 0


def _refusal(cls: Any, field: Field, values: dict[str, Any]) -> str:
    """Why the field's validator refuses its value, seen beside the others; empty if it does not."""
    attribute = field.attribute
    if attribute is None or attribute.validator is None:
        return ""
    seen = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(seen, name, value)
    convert, value = attribute.converter, values[field.name]
    try:
        if convert is not None and not isinstance(convert, attrs.Converter):
            value = convert(value)
        attribute.validator(seen, attribute, value)
    except Exception as error:  # whatever a user's validator raises
        return reason(error) or type(error).__name__
    return ""


def _construct(tp: Any, values: dict[str, Any]) -> Any:
    """Call the constructor, and set what it does not take and has not set rightly itself."""
    cls = typing.get_origin(tp) or tp
    if is_named_tuple(cls):
        return cls(**values)
    if attrs.has(cls):
        names = {a.name: a.alias for a in attrs.fields(cls) if a.init}
    else:
        names = {f.name: f.name for f in dataclasses.fields(cls) if f.init}
    made = cls(**{names[name]: value for name, value in values.items() if name in names})
    for field in fields_of(tp) if len(names) < len(values) else ():
        if field.name not in names and not _is_set(made, field):
            object.__setattr__(made, field.name, values[field.name])
    return made


def _is_set(made: Any, field: Field) -> bool:
    try:
        hooks(field.type)[0](getattr(made, field.name))
    except (AttributeError, CannotConvert):
        return False
    return True
