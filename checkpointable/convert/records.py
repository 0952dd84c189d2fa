"""Hooks for classes with named fields, and for unions, which tell them apart by name."""

import typing
from functools import cache
from typing import Any

import numpy as np

from checkpointable.annotations import (
    SEQUENCES,
    array_type,
    describe,
    fields_of,
    is_named_tuple,
    is_record,
    members_of,
)
from checkpointable.convert.scalars import Refused, expect
from checkpointable.convert.types import Hook, Hooks
from checkpointable.errors import reason


def record(tp: Any, hooks: Hooks) -> tuple[Hook, Hook]:
    """attrs classes, dataclasses and named tuples, field by field."""
    cls = typing.get_origin(tp) or tp
    fields = fields_of(tp)
    names = {f.name for f in fields}
    validated = [f.attribute for f in fields if f.attribute and f.attribute.validator]
    named_tuple = is_named_tuple(cls)
    # attrs keeps a cached hash in a slot that only its own __init__ sets.
    code = getattr(cls.__hash__, "__code__", None)
    caches_hash = code is not None and "_attrs_cached_hash" in code.co_names

    @cache  # on first use, since a record may mention itself
    def steps() -> list[tuple[str, Hook, Hook]]:
        return [(f.name, *hooks(f.type)) for f in fields]

    def unstructure(value: Any) -> Any:
        if type(value) is not cls:
            raise Refused(
                f"a {type(value).__qualname__} where {cls.__qualname__} is declared",
                "declare a union of the classes that can occur",
            )
        wire = {}
        for name, to_wire, _ in steps():
            try:
                wire[name] = to_wire(getattr(value, name))
            except Refused as refused:
                raise refused.under(f".{name}") from None
            except AttributeError as error:
                raise Refused("the field was never set").under(f".{name}") from error
        return wire

    def structure(wire: Any) -> Any:
        if type(wire) is not dict or wire.keys() != names:
            raise Refused(f"the fields are not those of {cls.__qualname__}")
        values = {}
        for name, _, from_wire in steps():
            try:
                values[name] = from_wire(wire[name])
            except Refused as refused:
                raise refused.under(f".{name}") from None
        if named_tuple:
            return tuple.__new__(cls, values.values())
        record = object.__new__(cls)
        for name, value in values.items():
            object.__setattr__(record, name, value)
        if caches_hash:
            object.__setattr__(record, "_attrs_cached_hash", None)
        for attribute in validated:
            _validate(attribute, record, values[attribute.name])
        return record

    return unstructure, structure


def _validate(attribute: Any, record: Any, value: Any) -> None:
    try:
        attribute.validator(record, attribute, value)
    except Exception as error:  # whatever a user's validator raises, it refuses the value
        raise Refused(f"the validator refuses it: {reason(error)}").under(
            f".{attribute.name}"
        ) from error


def union(tp: Any, hooks: Hooks) -> tuple[Hook, Hook]:
    """Unions: the first member that takes the value; records and like containers are tagged."""
    members = [(m, *hooks(m)) for m in members_of(tp)]
    kinds = [_container(m) for m in members_of(tp)]

    def unstructure(value: Any) -> Any:
        inner = None
        for i, (member, to_wire, _) in enumerate(members):
            try:
                wire = to_wire(value)
            except Refused as refused:
                inner = refused if refused.path else inner
                continue
            if is_record(member):
                return {"$type": (typing.get_origin(member) or member).__name__, **wire}
            if kinds[i] is not None and kinds.count(kinds[i]) > 1:
                return {"$union": wire, "$member": i}
            return wire
        raise inner or Refused(f"a {type(value).__qualname__} that fits none of {describe(tp)}")

    def structure(wire: Any) -> Any:
        if type(wire) is dict and wire.keys() == {"$union", "$member"}:
            index = expect(wire["$member"], int)
            if not 0 <= index < len(members):
                raise Refused(f"{describe(tp)} has no member {index}")
            return members[index][2](wire["$union"])
        named = wire.get("$type") if type(wire) is dict else None
        fields = {k: v for k, v in wire.items() if k != "$type"} if named else wire
        for member, _, from_wire in members:
            name = (typing.get_origin(member) or member).__name__ if is_record(member) else None
            if name == named:
                try:
                    return from_wire(fields)
                except Refused:
                    if named:
                        raise
        raise Refused(f"the stored value fits none of {describe(tp)}")

    return unstructure, structure


def _container(tp: Any) -> Any:
    """What tells a union's members apart when several are containers, or arrays."""
    if array_type(tp) is not None:
        return np.ndarray
    origin = typing.get_origin(tp)
    return origin if origin in (*SEQUENCES, tuple, dict) else None
