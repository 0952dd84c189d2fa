"""The name, version and description of a checkpoint class; refusing what cannot be stored.

Everything about the *class* is decided here, before any value exists. `schema_of` walks the types
of all fields and raises `UnsupportedType` with the path to one that cannot be stored. Its
description goes into every file, so that a file of another class, or of another version of the
class, is refused with `SchemaMismatch`, field by field.
"""

import typing
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import cache
from typing import Any, TypeVar

from attrs import frozen

from checkpointable.annotations import (
    SEQUENCES,
    array_type,
    describe,
    fields_of,
    is_enum,
    is_leaf,
    is_literal,
    is_record,
    is_union,
    members_of,
    plain,
    type_name,
)
from checkpointable.errors import InvalidCheckpoint, SchemaMismatch, UnsupportedType

T = TypeVar("T")


@frozen
class Schema:
    """How a checkpoint class is described in a file.

    `classes` maps each class that can occur (the checkpoint's own under the schema's name) to
    its fields and their types, as text.
    """

    name: str
    version: int
    classes: dict[str, dict[str, str]]


def checkpoint(name: str, *, version: int = 1) -> Callable[[type[T]], type[T]]:
    """Name the schema of a checkpoint class, so that the class itself may be renamed.

    Without this decorator the schema has the name of the class, and version 1.

    >>> from attrs import frozen
    >>> @checkpoint("heat", version=2)
    ... @frozen
    ... class HeatCheckpoint:
    ...     step: int
    >>> schema_of(HeatCheckpoint).name, schema_of(HeatCheckpoint).version
    ('heat', 2)
    """
    if type(version) is not int or version < 1:
        raise ValueError(f"a schema's version is an int from 1, not {version!r}")

    def mark(cls: type[T]) -> type[T]:
        cls.__checkpoint_schema__ = (cls, name, version)  # type: ignore[attr-defined]
        return cls

    return mark


def schema_of(cls: Any) -> Schema:
    """Describe a checkpoint class, or raise `UnsupportedType` with the path to what it can't hold.

    >>> import numpy as np
    >>> from attrs import frozen
    >>> from checkpointable import Array
    >>> @frozen
    ... class HeatCheckpoint:
    ...     step: int
    ...     field: Array[np.float32]
    >>> schema_of(HeatCheckpoint).classes
    {'HeatCheckpoint': {'step': 'int', 'field': 'array[float32]'}}
    """
    return _schema_of(cls)


@cache
def _schema_of(cls: Any) -> Schema:
    origin = typing.get_origin(cls) or cls
    if not is_record(cls):
        raise UnsupportedType(
            f"{type_name(cls)} is not a class with fields",
            where=type_name(cls),
            hint="make the checkpoint an attrs class: @attrs.frozen",
        )
    name, version = origin.__name__, 1
    marked, marked_name, marked_version = getattr(origin, "__checkpoint_schema__", (None, "", 1))
    # A slotted attrs class is a copy of the one that a decorator below it saw; a subclass is not.
    if marked is not None and marked.__qualname__ == origin.__qualname__:
        name, version = marked_name, marked_version
    found: dict[Any, str] = {cls: name}
    classes: dict[str, dict[str, str]] = {}
    _describe_classes(cls, found, classes, origin.__name__)
    return Schema(name, version, classes)


def _describe_classes(
    cls: Any, found: dict[Any, str], classes: dict[str, dict[str, str]], path: str
) -> None:
    """Check every type below `cls` and describe it; `found` names the classes met so far."""
    described = classes[found[cls]] = {}
    for field in fields_of(cls, path):
        where = f"{path}.{field.name}"
        try:
            mentioned = list(_check(field.type, where))
            described[field.name] = describe(field.type)
        except RecursionError as error:  # a class may mention itself; only an alias is endless
            raise UnsupportedType(
                "a type alias refers to itself", where=where, hint="use a class instead"
            ) from error
        for inner, inner_path in mentioned:
            if inner not in found:
                found[inner] = _free_name(type_name(inner), found)
                if is_record(inner):
                    _describe_classes(inner, found, classes, inner_path)
                else:
                    classes[found[inner]] = dict.fromkeys(inner.__members__, "member")


def _free_name(name: str, found: Mapping[Any, str]) -> str:
    taken = set(found.values())
    return next(n for n in (name, *(f"{name}#{i}" for i in range(2, 9999))) if n not in taken)


def check_schema(stored: Schema, cls: Any, where: str = "") -> None:
    """Raise `SchemaMismatch`, naming both sides field by field, unless `stored` describes `cls`."""
    expected = schema_of(cls)
    if stored == expected:
        return
    sides = [f"{s.name} version {s.version}" for s in (stored, expected)]
    lines = []
    for name in sorted(stored.classes.keys() | expected.classes.keys()):
        old, new = stored.classes.get(name, {}), expected.classes.get(name, {})
        for field in [*old, *(f for f in new if f not in old)]:
            if old.get(field) != new.get(field):
                a, b = (side.get(field, "nothing") for side in (old, new))
                lines.append(f"\n  - {name}.{field}: {a} in the file, {b} in the class")
    raise SchemaMismatch(
        f"the checkpoint holds {sides[0]}, the class is {sides[1]}{''.join(lines)}",
        where=where,
        hint="load it with the class that wrote it, or start from another checkpoint",
    )


def schema_from_json(value: object) -> Schema:
    """Read a schema back from a file's metadata; `InvalidCheckpoint` if it is none."""
    match value:
        case {"name": str(name), "version": int(version), "classes": dict(classes), **rest} if (
            not rest
            and all(
                isinstance(fields, dict)
                and all(isinstance(t, str) for item in fields.items() for t in item)
                for fields in classes.values()
            )
        ):
            return Schema(name, version, classes)
    raise InvalidCheckpoint(
        "the metadata holds no schema description", hint="the file was not written by this package"
    )


_ADVICE: dict[Any, str] = {
    Any: "say what it holds: a type, or a union of types",
    object: "say what it holds: a type, or a union of types",
    bytearray: "use bytes, or an array of np.uint8",
    memoryview: "use bytes, or an array of np.uint8",
}


def _check(tp: Any, path: str) -> Iterator[tuple[Any, str]]:
    """Refuse `tp` or yield the records and enums that it mentions, each with its path."""
    tp = plain(tp)
    origin, args = typing.get_origin(tp) or tp, typing.get_args(tp)
    array = array_type(tp)
    if array is not None:
        if not array.scalars:
            raise UnsupportedType(
                f"an array of {type_name(args[-1])} has no bytes to store",
                where=path,
                hint="use a dtype with a fixed size, or a list of attrs objects",
            )
    elif is_leaf(tp):
        pass
    elif is_enum(tp):
        yield tp, path
    elif is_record(tp):
        if issubclass(origin, BaseException):
            raise UnsupportedType("an exception class is not data", where=path, hint="use another")
        unbound = len(getattr(origin, "__parameters__", ())) - len(args)
        if unbound:
            raise UnsupportedType(
                f"{origin.__name__} is generic, but its type parameters are not given",
                where=path,
                hint=f"write {origin.__name__}[...], with the types that it holds",
            )
        yield tp, path
    elif is_union(tp):
        members = members_of(tp)
        _check_union(members, path)
        for member in members:
            yield from _check(member, path)
    elif is_literal(tp):
        for value in args:
            if isinstance(value, Enum):
                yield type(value), path
    elif origin is tuple and args != () and args[-1] is Ellipsis:
        yield from _check(args[0], f"{path}[]")
    elif origin is tuple and typing.get_origin(tp) is tuple:
        for i, arg in enumerate(args):
            yield from _check(arg, f"{path}[{i}]")
    elif origin in SEQUENCES and len(args) == 1:
        yield from _check(args[0], f"{path}[]")
    elif origin is dict and len(args) == 2:
        yield from _check(args[0], f"{path}[key]")
        yield from _check(args[1], f"{path}[value]")
    else:
        _refuse(tp, origin, path)


def _check_union(members: tuple[Any, ...], path: str) -> None:
    tagged = [typing.get_origin(m) or m for m in members if is_record(m) or is_enum(m)]
    names = [c.__name__ for c in tagged]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise UnsupportedType(
            f"the union has more than one class named {twice[0]}, and a file names them by it",
            where=path,
            hint="rename one, or wrap them in classes of different names",
        )


def _refuse(tp: Any, origin: Any, path: str) -> None:
    if isinstance(tp, TypeVar):
        what, hint = f"the type parameter {tp.__name__} is not given", "give the class its types"
    elif origin in (*SEQUENCES, tuple, dict):
        what = f"{origin.__name__} does not say what it holds"
        hint = f"write {origin.__name__}[...], with the types of its items"
    else:
        what = f"{type_name(tp)} cannot be stored without loss"
        hint = _ADVICE.get(origin, "use an attrs class, a list, a tuple, a dict, or an array")
    raise UnsupportedType(what, where=path, hint=hint)
