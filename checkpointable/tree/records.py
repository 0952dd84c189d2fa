"""Hooks for classes with named fields, and for unions, which tell these classes apart by name."""

import inspect
import keyword
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from checkpointable.errors import reason
from checkpointable.schema import (
    SEQUENCES,
    Field,
    array_type,
    describe,
    fields_of,
    is_named_tuple,
    is_record,
    members_of,
)
from checkpointable.tree.codegen import FROM_WIRE, TO_WIRE, compiled, converted, late_hook
from checkpointable.tree.scalars import Hook, Hooks, Refused, expect


def record(tp: Any, hooks: Hooks) -> tuple[Hook, Hook]:
    """The hooks of attrs classes, dataclasses and named tuples: generated code, field by field."""
    return _unstructure(tp, hooks), _structure(tp, hooks)


def _unstructure(tp: Any, hooks: Hooks) -> Hook:
    cls = typing.get_origin(tp) or tp
    fields = fields_of(tp)

    def refuse(value: Any) -> Any:
        hint = "declare a union of the classes that can occur"
        raise Refused.got(value, cls.__qualname__, hint)

    names: dict[str, Any] = {"cls": cls, "refuse": refuse, "at_line": _at_line(fields, 4)}
    lines = ["def function(value):", "    if value.__class__ is not cls:", "        refuse(value)"]
    lines += ["    try:"]
    for i, field in enumerate(fields):
        late_hook(names, f"hook{i}", field.type, hooks, TO_WIRE)
        # One line for each field, since `at_line` finds the field by it.
        get = f"value.{field.name}" if _is_plain(field.name) else f"getattr(value, {field.name!r})"
        made = converted(field.type, f"v{i}", f"hook{i}", TO_WIRE)
        lines += [f"        v{i} = {get}; w{i} = {made}"]
    wire = ", ".join(f"{field.name!r}: w{i}" for i, field in enumerate(fields))
    lines += [f"        return {{{wire}}}", "    except (Refused, AttributeError) as error:"]
    lines += ["        raise at_line(error) from error.__cause__"]
    return compiled("\n".join(lines), names | {"Refused": Refused}, cls.__qualname__)


def _structure(tp: Any, hooks: Hooks) -> Hook:
    cls = typing.get_origin(tp) or tp
    fields = fields_of(tp)

    def refuse() -> Any:
        raise Refused(f"the fields are not those of {cls.__qualname__}")

    names: dict[str, Any] = {"cls": cls, "refuse": refuse, "at_line": _at_line(fields, 8)}
    names |= {"new": object.__new__, "new_tuple": tuple.__new__, "set": object.__setattr__}
    lines = ["def function(wire):"]
    lines += [f"    if wire.__class__ is not dict or len(wire) != {len(fields)}:"]
    lines += ["        refuse()", "    try:"]
    gets = "".join(f"wire[{field.name!r}], " for field in fields)
    lines += [f"        {''.join(f'w{i}, ' for i in range(len(fields))) or '()'} = {gets or '()'}"]
    lines += ["    except KeyError:", "        refuse()", "    try:"]
    for i, field in enumerate(fields):
        late_hook(names, f"hook{i}", field.type, hooks, FROM_WIRE)
        lines += [f"        v{i} = {converted(field.type, f'w{i}', f'hook{i}', FROM_WIRE)}"]
    lines += ["        pass", "    except Refused as error:"]
    lines += ["        raise at_line(error) from error.__cause__"]
    if is_named_tuple(cls):
        lines += [f"    return new_tuple(cls, ({''.join(f'v{i}, ' for i in range(len(fields)))}))"]
    else:
        lines += ["    made = new(cls)", *_setting(cls, fields, names)]
        lines += ["    return made"]
    return compiled("\n".join(lines), names | {"Refused": Refused}, cls.__qualname__)


def _setting(cls: Any, fields: tuple[Field, ...], names: dict[str, Any]) -> Iterator[str]:
    """Lines that set the fields of `made`, bypassing the __setattr__ of the class."""
    for i, field in enumerate(fields):
        slot = inspect.getattr_static(cls, field.name, None)
        if isinstance(slot, types.MemberDescriptorType):
            names[f"set{i}"] = slot.__set__
            yield f"    set{i}(made, v{i})"
        else:
            yield f"    set(made, {field.name!r}, v{i})"
    # attrs keeps a cached hash in a slot that only its generated __init__ sets.
    code = getattr(cls.__hash__, "__code__", None)
    if code is not None and "_attrs_cached_hash" in code.co_names:
        yield "    set(made, '_attrs_cached_hash', None)"
    for i, field in enumerate(fields):
        if field.attribute and field.attribute.validator:
            names |= {f"attribute{i}": field.attribute, "validate": _validate}
            yield f"    validate(attribute{i}, made, v{i})"


def _is_plain(name: str) -> bool:
    """Whether the name can be written into source as it is; NFKC would change some."""
    return name.isascii() and name.isidentifier() and not keyword.iskeyword(name)


def _at_line(fields: tuple[Field, ...], first: int) -> Callable[[Exception], Refused]:
    """Return a function that adds the field's name, found by the line, to a refusal's path."""

    def at_line(error: Exception) -> Refused:
        assert error.__traceback__ is not None
        name = fields[error.__traceback__.tb_lineno - first - 1].name
        refused = error if isinstance(error, Refused) else Refused("the field was never set")
        return refused.under(f".{name}")

    return at_line


def _validate(attribute: Any, record: Any, value: Any) -> None:
    try:
        attribute.validator(record, attribute, value)
    except Exception as error:  # a user's validator may raise anything
        raise Refused(f"the validator refuses it: {reason(error)}").under(
            f".{attribute.name}"
        ) from error


def union(tp: Any, hooks: Hooks) -> tuple[Hook, Hook]:
    """The hooks of unions: the first member that accepts the value.

    Records are tagged by name, and members by number if several are containers of one kind.
    """
    members = [(m, *hooks(m)) for m in members_of(tp)]
    kinds = [_container(m) for m in members_of(tp)]
    numbered = [kind is not None and kinds.count(kind) > 1 for kind in kinds]
    records = {typing.get_origin(m) or m: to_wire for m, to_wire, _ in members if is_record(m)}

    def unstructure(value: Any) -> Any:
        to_wire = records.get(type(value))
        if to_wire is not None:
            return {"$type": type(value).__name__, **to_wire(value)}
        inner = None
        for i, (member, to_wire, _) in enumerate(members):
            try:
                wire = to_wire(value)
            except Refused as refused:
                inner = refused if refused.path else inner
                continue
            if is_record(member):
                return {"$type": (typing.get_origin(member) or member).__name__, **wire}
            if numbered[i]:
                return {"$union": wire, "$member": i}
            return wire
        raise inner or Refused.got(value, describe(tp))

    def structure(wire: Any) -> Any:
        if type(wire) is dict and wire.keys() == {"$union", "$member"}:
            index = expect(wire["$member"], int)
            if not 0 <= index < len(members) or not numbered[index]:
                raise Refused(f"{describe(tp)} has no numbered member {index}")
            return members[index][2](wire["$union"])
        named, fields = None, wire
        if type(wire) is dict and "$type" in wire:
            named = expect(wire["$type"], str)
            fields = {k: v for k, v in wire.items() if k != "$type"}
        for i, (member, _, from_wire) in enumerate(members):
            name = (typing.get_origin(member) or member).__name__ if is_record(member) else None
            if name == named and not numbered[i]:
                try:
                    return from_wire(fields)
                except Refused:
                    if named is not None:
                        raise
        raise Refused(f"the stored value fits none of {describe(tp)}")

    return unstructure, structure


def _container(tp: Any) -> Any:
    """The kind of container that a member of a union is, arrays included; None if it is not one."""
    if array_type(tp) is not None:
        return np.ndarray
    origin = typing.get_origin(tp)
    return origin if origin in (*SEQUENCES, tuple, dict) else None
