"""Values of a checkpoint class: each field by its type, its validator, and the other fields."""

import dataclasses
import itertools
import math
import operator
import typing
from collections import deque
from collections.abc import Iterator
from enum import Flag
from functools import cache, reduce
from typing import Any, TypeVar

import attrs
import numpy as np
from attrs import frozen
from hypothesis import reject
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
    schema_of,
    type_name,
)
from checkpointable.testing.strategies.leaves import Strategy, arrays, dtypes_of
from checkpointable.testing.strategies.limits import NONE, Limits, limited_leaves, limits_of
from checkpointable.tree import Refused as CannotConvert
from checkpointable.tree import hooks

C = TypeVar("C")
Shape = tuple[int, ...]

_TRIES = 10
_MAX_DEPTH = 3
_REFUSALS = 40
"""In a row, before they are reported: Hypothesis gives up at 50, and does not know the reason."""


def checkpoints(cls: type[C], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[C]:
    """Values of a checkpoint class, derived from its fields, made by its constructor.

    Hard values on purpose. The limits of attrs' own validators are kept. What other validators or
    the constructor demand, of one field or several (equal shapes, for instance), is met by trying
    again; the arrays of a value have related shapes. Where that finds nothing, give a strategy for
    a field by its name.

    Raises `UnsupportedType` for a class that is not supported; drawing raises `ValueError`, naming
    field and reason, if the class refuses everything.

    >>> import attrs, numpy as np
    >>> from hypothesis import given
    >>> @attrs.frozen
    ... class Walk:
    ...     step: int = attrs.field(validator=attrs.validators.ge(0))
    ...     at: np.ndarray
    >>> @given(checkpoints(Walk))
    ... def test_walks(walk: Walk) -> None:
    ...     assert walk.step >= 0
    >>> test_walks()
    """
    schema_of(cls)
    name, refusals = type_name(cls), 0
    unknown = fields.keys() - {field.name for field in fields_of(cls)}
    if unknown:
        raise ValueError(f"{name} has no field {min(unknown)!r}")

    @st.composite
    def draw_one(draw: st.DrawFn) -> C:
        nonlocal refusals
        try:
            value: C = _Maker(draw, draw(_any_shapes)).record(cls, fields, 0)
        except _Refused as refused:
            refusals += 1
            if refusals >= _REFUSALS:
                raise ValueError(
                    f"no value was found that {name} accepts\n"
                    f"  the last refusal: {refused}\n"
                    f"  hint: give a strategy of your own: checkpoints({name}, {refused.field}=...)"
                ) from None
            reject()
        refusals = 0
        return value

    return draw_one()


class _Refused(Exception):
    """A class refuses a value: which class, or field of it, and why."""

    def __init__(self, where: str, why: str, field: str = "field") -> None:
        super().__init__(f"{where}: {why}")
        self.field = field


@frozen
class _Shapes:
    """How the shapes of one checkpoint's arrays are related, unless its class demands others."""

    rank: int
    sides: tuple[int, int, int, int]
    relation: str  # "equal", "staggered" (n or n + 1), or "free"

    def draw(self, draw: st.DrawFn, rank: int | None) -> Shape:
        """A shape of this rank; of any rank if None."""
        if self.relation == "free":
            rank = draw(st.integers(0, 4)) if rank is None else rank
            return tuple(draw(st.integers(0, 4)) for _ in range(rank))
        sides = (self.sides * 8)[: self.rank if rank is None else rank]
        if self.relation == "staggered":
            return tuple(n + draw(st.integers(0, 1)) for n in sides)
        return sides


_any_shapes = st.builds(
    _Shapes,
    rank=st.integers(0, 3),
    sides=st.tuples(*[st.integers(0, 4)] * 4),
    relation=st.sampled_from(["equal", "equal", "staggered", "free"]),
)


@frozen
class _Maker:
    """Draws the parts of one checkpoint."""

    draw: st.DrawFn
    shapes: _Shapes

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
        """One member of a union; at the maximal depth, one whose values nest least."""
        members = members_of(union)
        if depth >= _MAX_DEPTH:
            least = min(map(_height, members))
            members = tuple(member for member in members if _height(member) == least)
        return self.draw(st.sampled_from(members))

    def container(self, origin: Any, args: Any, limits: Limits, depth: int) -> Any:
        """A list, tuple, set, deque or dict."""
        if origin is tuple and args[-1:] != (Ellipsis,):
            return tuple(self.value(arg, NONE, depth) for arg in args)
        few = limits.min_length + (0 if depth >= _MAX_DEPTH else 3)
        most = few if limits.max_length is None else limits.max_length
        count = self.draw(st.integers(limits.min_length, most))
        items, keys = limits.items or NONE, limits.keys or NONE
        if origin is dict:
            drawn = [self.hashable(args[0], keys, depth) for _ in range(count)]
            return {key: self.value(args[1], items, depth) for key in drawn}
        if origin in (set, frozenset):
            return origin(self.hashable(args[0], items, depth) for _ in range(count))
        values = [self.value(args[0], items, depth) for _ in range(count)]
        if origin is deque:
            return deque(values, self.draw(st.none() | st.integers(max(count, 3), count + 3)))
        return origin(values)

    def hashable(self, tp: Any, limits: Limits, depth: int) -> Any:
        """A value for a set, or for a key: not a signaling NaN, or a structured scalar."""
        for _ in range(_TRIES):
            value = self.value(tp, limits, depth)
            try:
                hash(value)
            except TypeError:
                continue
            return value
        raise _Refused(type_name(tp), "no value was hashable")

    def record(self, tp: Any, given: dict[str, Strategy], depth: int) -> Any:
        """An object of a class, by its constructor."""
        cls: Any = typing.get_origin(tp) or tp
        fields = fields_of(tp)
        values = {field.name: self.field(field, given, depth) for field in fields}
        for field in [*fields, *fields]:  # twice: an earlier one's validator may read a later one
            if field.name not in given:
                self.mend(cls, field, values, depth)
        for field in fields:
            why = _refusal(cls, field, values)
            if why:
                raise _Refused(f"{cls.__name__}.{field.name}", why, field.name)
        try:
            return _construct(tp, values)
        except Exception as error:  # whatever a user's class raises
            shapes = self.search(tp, [f for f in fields if f.name not in given], values)
            if shapes is None:
                raise _Refused(cls.__name__, reason(error)) from error
        for name, shape in shapes.items():
            values[name] = self.draw(arrays(values[name].dtype, shape))
        try:
            return _construct(tp, values)
        except Exception as error:
            raise _Refused(cls.__name__, reason(error)) from error

    def field(self, field: Field, given: dict[str, Strategy], depth: int) -> Any:
        """A value of a field."""
        if field.name in given:
            return self.draw(given[field.name])
        validator = field.attribute.validator if field.attribute else None
        return self.value(field.type, limits_of(validator), depth)

    def mend(self, cls: Any, field: Field, values: dict[str, Any], depth: int) -> None:
        """Draw a field again, given the others' values, until its validator accepts it."""
        array = array_type(field.type)
        if array is not None and _refusal(cls, field, values):
            dtype = values[field.name].dtype
            others = {name: value for name, value in values.items() if name != field.name}
            fits = [
                shape
                for shape in _likely_shapes(others, array.ndim, self.shapes.sides)
                if not _refusal(cls, field, values | {field.name: np.ones(shape, dtype)})
            ]
            if fits:
                shape = self.draw(st.sampled_from(fits))
                values[field.name] = self.draw(arrays(dtype, shape))
                if _refusal(cls, field, values):  # for its elements
                    values[field.name] = np.ones(shape, dtype)
        for _ in range(_TRIES):
            if not _refusal(cls, field, values):
                return
            values[field.name] = self.field(field, {}, depth)

    def search(
        self, tp: Any, fields: list[Field], values: dict[str, Any]
    ) -> dict[str, Shape] | None:
        """Find shapes that the constructor accepts; None if a few hundred tries find none."""
        free = [field for field in fields if isinstance(values[field.name], np.ndarray)]

        def candidates(chosen: dict[str, Any], left: list[Field]) -> Iterator[dict[str, Any]]:
            if not left:
                yield chosen
                return
            name, rank = left[0].name, getattr(array_type(left[0].type), "ndim", None)
            for shape in _likely_shapes(chosen, rank, self.shapes.sides):
                array = np.ones(shape, values[name].dtype)
                yield from candidates(chosen | {name: array}, left[1:])

        fixed = {name: v for name, v in values.items() if name not in {f.name for f in free}}
        for chosen in itertools.islice(candidates(fixed, free), 500 if free else 0):
            try:
                _construct(tp, chosen)
            except Exception:  # whatever a user's class raises
                continue
            return {field.name: chosen[field.name].shape for field in free}
        return None


def _members(enum: Any) -> Strategy:
    if issubclass(enum, Flag):
        members = st.sets(st.sampled_from([*enum]))
        return members.map(lambda some: reduce(operator.or_, some, enum(0)))
    return st.sampled_from([*enum])


@cache
def _height(tp: Any) -> float:
    """How deep the smallest value of a type nests."""
    return _height_below(tp, ())


def _height_below(tp: Any, above: tuple[Any, ...]) -> float:
    tp = plain(tp)
    if tp in above:
        return math.inf
    args = typing.get_args(tp)
    if is_union(tp):
        return min(_height_below(member, above) for member in members_of(tp))
    if is_record(tp):
        types = [field.type for field in fields_of(tp)]
        return 1 + max((_height_below(t, (*above, tp)) for t in types), default=0)
    if typing.get_origin(tp) is tuple and args[-1:] != (Ellipsis,):
        return max((_height_below(t, above) for t in args), default=0)
    return 0


def _refusal(cls: Any, field: Field, values: dict[str, Any]) -> str:
    """Why the field's validator refuses its value, given the others'; empty if it accepts it."""
    attribute = field.attribute
    if attribute is None or attribute.validator is None:
        return ""
    instance = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(instance, name, value)
    convert, value = attribute.converter, values[field.name]
    try:
        if convert is not None and not isinstance(convert, attrs.Converter):
            value = convert(value)
        attribute.validator(instance, attribute, value)
    except Exception as error:  # whatever a user's validator raises
        return reason(error) or type(error).__name__
    return ""


def _construct(tp: Any, values: dict[str, Any]) -> Any:
    """Call the constructor, and set the fields that it neither takes nor sets to a valid value."""
    cls = typing.get_origin(tp) or tp
    if is_named_tuple(cls):
        return cls(**values)
    if attrs.has(cls):
        names = {a.name: a.alias for a in attrs.fields(cls) if a.init}
    else:
        names = {f.name: f.name for f in dataclasses.fields(cls) if f.init}
    instance = cls(**{names[name]: value for name, value in values.items() if name in names})
    for field in fields_of(tp) if len(names) < len(values) else ():
        if field.name not in names and not _is_set(instance, field):
            object.__setattr__(instance, field.name, values[field.name])
    return instance


def _is_set(instance: Any, field: Field) -> bool:
    try:
        hooks(field.type)[0](getattr(instance, field.name))
    except (AttributeError, CannotConvert):
        return False
    return True


def _likely_shapes(others: dict[str, Any], rank: int | None, sides: tuple[int, ...]) -> list[Shape]:
    """Shapes of this rank that a class may demand of an array, by what its other fields hold.

    They are those of the other arrays, an axis more or less, one more or less along the axes; and
    what an int n, or one of `sides`, can mean: (n,), (n, n), (n, n, n).
    """
    shapes: dict[Shape, None] = {}
    for value in others.values():
        if isinstance(value, np.ndarray):
            shapes.update(dict.fromkeys(_variants(value.shape)))
    counts = [v for v in others.values() if type(v) is int and 0 <= v <= 64]
    for count in dict.fromkeys([*counts, *sides]):
        shapes.update(dict.fromkeys([(count,), (count, count), (count,) * 3]))
    shapes[()] = None
    return [
        shape
        for shape in shapes
        if min(shape, default=0) >= 0 and len(shape) == (len(shape) if rank is None else rank)
    ]


def _variants(shape: Shape) -> Iterator[Shape]:
    yield shape
    for step in (1, -1):
        yield tuple(n + step for n in shape)
        for axis in range(len(shape)):
            yield tuple(n + step * (i == axis) for i, n in enumerate(shape))
    yield shape[::-1]
    for axis in range(len(shape)):
        yield shape[:axis] + shape[axis + 1 :]
        yield (shape[axis],)
    for side in (1, 2, 3):
        yield (*shape, side)
        yield (side, *shape)
