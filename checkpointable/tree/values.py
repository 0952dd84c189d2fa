"""Hooks for single values: scalars, arrays, enum members, literals."""

import typing
from enum import Enum, Flag
from typing import Any, cast

import numpy as np

from checkpointable.arrays import is_array, layout
from checkpointable.schema import ArrayType, array_type, describe
from checkpointable.tree.scalars import Hook, Hooks, Refused, decode, encode, expect, tagged

_PROMOTED: dict[type, tuple[type, ...]] = {float: (int,), complex: (float, int)}  # PEP 484


def leaf(tp: Any, hooks: Hooks) -> tuple[Hook, Hook]:
    """The hooks of scalars: the declared type, subclasses included, and what PEP 484 promotes."""
    cls = typing.get_origin(tp) or tp
    allowed = (cls, *_PROMOTED.get(cls, ()))

    def check(value: Any) -> Any:
        if not isinstance(value, allowed):
            convertible = cls in (int, float, bool, str)
            hint = f"convert it: {describe(tp)}(value)" if convertible else ""
            raise Refused.got(value, describe(tp), hint)
        return value

    return lambda value: encode(check(value)), lambda wire: check(decode(wire))


def array(tp: Any, hooks: Hooks) -> tuple[Hook, Hook]:
    """The hooks of arrays: both check the dtype and the number of axes, and return the array."""
    expected = cast("ArrayType", array_type(tp))

    def check(value: Any) -> Any:
        if not is_array(value):
            hint = "np.asarray(value) drops the subclass" if isinstance(value, np.ndarray) else ""
            raise Refused.got(value, expected, hint)
        dtype, shape = layout(value)
        if dtype.hasobject:
            raise Refused(
                "an array of Python objects has no bytes to store",
                "use a dtype with a fixed size, or a list of attrs objects",
            )
        if not issubclass(dtype.type, expected.scalars):
            raise Refused(f"expected {expected}, got an array of {dtype}")
        if expected.ndim not in (None, len(shape)):
            raise Refused(f"expected {expected}, got an array of {len(shape)} axes")
        return value

    return check, check


def enum(tp: type[Enum], hooks: Hooks) -> tuple[Hook, Hook]:
    """The hooks of enums: members by name; flags by value, since combinations have no name."""
    name = tp.__name__

    def unstructure(value: Any) -> Any:
        if type(value) is not tp:
            raise Refused.got(value, name)
        return {"$enum": [name, encode(value.value) if isinstance(value, Flag) else value.name]}

    def structure(wire: Any) -> Any:
        stored_name, key = tagged(wire, "$enum", 2)
        if expect(stored_name, str) != name:
            raise Refused(f"expected a member of {name}, got one of {stored_name!r:.60}")
        if issubclass(tp, Flag):
            try:
                member = tp(expect(decode(key), int))
            except ValueError as error:
                raise Refused(str(error)) from error
            if encode(member.value) != key:  # a negative one means all other flags
                raise Refused(f"expected {member.value}, got {key!r:.60}")
            return member
        if type(key) is not str or key not in tp.__members__:
            raise Refused(f"{name} has no member {key!r:.60}")
        return tp.__members__[key]

    return unstructure, structure


def literal(tp: Any, hooks: Hooks) -> tuple[Hook, Hook]:
    """The hooks of literals: one of the listed values, equal in type too."""
    values = typing.get_args(tp)
    pairs = [hooks(type(v)) for v in values]

    def unstructure(value: Any) -> Any:
        for literal, (to_wire, _) in zip(values, pairs, strict=True):
            if type(value) is type(literal) and value == literal:
                return to_wire(value)
        raise Refused(f"expected {describe(tp)}, got {value!r:.60}")

    def structure(wire: Any) -> Any:
        for literal, (_, from_wire) in zip(values, pairs, strict=True):
            try:
                value = from_wire(wire)
            except Refused:
                continue
            if type(value) is type(literal) and value == literal:
                return value
        raise Refused(f"expected {describe(tp)}, got {wire!r:.60}")

    return unstructure, structure
