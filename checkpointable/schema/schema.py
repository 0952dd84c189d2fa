"""The name, version and description of a checkpoint class.

Everything about the *class* is decided here, before any value exists. `schema_of` walks the types
of all fields, and raises `UnsupportedType` with the path to one that cannot be stored. Its
description goes into every file. A file of an older version is migrated; any other whose
description does not mean the same is refused, with a list of the fields that differ.
"""

import hashlib
import typing
from collections.abc import Callable, Mapping
from enum import Enum, Flag
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

import attrs
import orjson
from attrs import frozen

from checkpointable.errors import InvalidCheckpoint, SchemaMismatch, UnsupportedType
from checkpointable.schema.fields import Field, fields_of
from checkpointable.schema.supported import check_type
from checkpointable.schema.types import (
    SEQUENCES,
    describe,
    is_enum,
    is_literal,
    is_record,
    is_union,
    members_of,
    plain,
    type_name,
)

T = TypeVar("T")


@frozen
class Schema:
    """The description of a checkpoint class in a file.

    `classes` maps each class that can occur (the checkpoint's own under the schema's name) to
    its fields and their types, as text. `fingerprint`, 16 hex digits, is equal for two classes if
    and only if they store the same: it depends on the names and types of the fields and on the
    members of enums; not on the order of the fields, nor on the names of classes where a file does
    not hold them (it does in unions), nor on defaults, converters and validators.
    """

    name: str
    version: int
    fingerprint: str
    classes: dict[str, dict[str, str]]


@frozen
class Mark:
    """What `@checkpoint` records on a class; `added` and `removed` map a field to its version."""

    cls: type | None
    name: str
    version: int = 1
    added: Mapping[str, int] = attrs.field(factory=dict)
    removed: Mapping[str, int] = attrs.field(factory=dict)


def checkpoint(
    name: str,
    *,
    version: int = 1,
    added: Mapping[str, int] | None = None,
    removed: Mapping[str, int] | None = None,
) -> Callable[[type[T]], type[T]]:
    """Give the schema of a checkpoint class a name and a version.

    Without this decorator the schema has the name of the class, and version 1. With it the class
    may be renamed. `added={"damping": 2}` means that version 2 added the field: files of version 1
    get its default. `removed={"log": 3}` means that version 3 removed one: its value in older files
    is ignored. Any other change of meaning needs a `migrate` function.

    >>> from attrs import frozen
    >>> @checkpoint("heat", version=2, added={"damping": 2})
    ... @frozen
    ... class HeatCheckpoint:
    ...     step: int
    ...     damping: float = 0.0
    >>> schema_of(HeatCheckpoint).name, schema_of(HeatCheckpoint).version
    ('heat', 2)
    """
    if type(version) is not int or version < 1:
        raise ValueError(f"a schema's version must be an int of at least 1, not {version!r}")
    for changed, since in (*(added or {}).items(), *(removed or {}).items()):
        if type(since) is not int or not 2 <= since <= version:
            raise ValueError(f"{changed!r} changed in a version from 2 to {version}, not {since!r}")

    def mark(cls: type[T]) -> type[T]:
        cls.__checkpoint_schema__ = Mark(  # type: ignore[attr-defined]
            cls, name, version, dict(added or {}), dict(removed or {})
        )
        return cls

    return mark


def mark_of(cls: Any) -> Mark:
    """What `@checkpoint` recorded on this very class; by default its name and version 1."""
    origin = typing.get_origin(cls) or cls
    mark: Mark | None = getattr(origin, "__checkpoint_schema__", None)
    # A slotted attrs class is a copy of the one that this decorator saw below it, so compare names.
    if mark is not None and mark.cls and mark.cls.__qualname__ == origin.__qualname__:
        return mark
    return Mark(None, origin.__name__)


def schema_of(cls: Any) -> Schema:
    """Describe a checkpoint class; raises `UnsupportedType` with the path to an unsupported type.

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
    mark = mark_of(cls)
    names: dict[Any, str] = {cls: mark.name}
    classes: dict[str, dict[str, str]] = {}
    _describe_classes(cls, names, classes, origin.__name__)
    _check_evolution(mark, fields_of(cls), origin.__name__)
    return Schema(mark.name, mark.version, _fingerprint(cls, [*names]), classes)


def _describe_classes(
    cls: Any, names: dict[Any, str], classes: dict[str, dict[str, str]], path: str
) -> None:
    """Check every type below `cls` and describe it; `names` has the classes met so far."""
    described = classes[names[cls]] = {}
    for field in fields_of(cls, path):
        where = f"{path}.{field.name}"
        try:
            mentioned = list(check_type(field.type, where))
            described[field.name] = describe(field.type)
        except RecursionError as error:  # a class may refer to itself; only an alias recurses
            raise UnsupportedType(
                "a type alias refers to itself", where=where, hint="use a class instead"
            ) from error
        for inner, inner_path in mentioned:
            if inner not in names:
                names[inner] = _free_name(type_name(inner), names)
                if is_record(inner):
                    _describe_classes(inner, names, classes, inner_path)
                else:
                    classes[names[inner]] = _enum_members(inner)


def _enum_members(enum: type[Enum]) -> dict[str, str]:
    """The description of an enum; its members are stored by name, those of flags by value."""
    flag = issubclass(enum, Flag)
    return {n: str(m.value) if flag else "member" for n, m in enum.__members__.items()}


def _check_evolution(mark: Mark, fields: tuple[Field, ...], where: str) -> None:
    """Refuse a declared change that the class itself contradicts."""
    defaults = {f.name: f.make_default for f in fields}
    for name in mark.added:
        if defaults.get(name) is None:
            what = "has no default of its own" if name in defaults else "is not a field"
            raise UnsupportedType(
                f"{name!r} is declared as added, but {what}",
                where=f"{where}.{name}",
                hint="give the field a default, for the files that lack it",
            )
    for name in mark.removed.keys() & defaults.keys():
        raise UnsupportedType(
            f"{name!r} is declared as removed, but is a field",
            where=f"{where}.{name}",
            hint="take it out of the class, or out of @checkpoint(removed=...)",
        )


def _fingerprint(cls: Any, classes: list[Any]) -> str:
    """Digest what the class stores: the smallest automaton that is equivalent to its classes.

    By partition refinement (Hopcroft, Moore): the mark of a class is made from its fields, in which
    other classes are represented by their marks of the previous round; after as many rounds as
    there are classes, any two that differ have different marks. Then the classes are numbered in
    the order in which they are reached from the top.
    """
    marks = dict.fromkeys(classes, "")
    for _ in classes:
        marks = {c: _digest(_meaning_of_class(c, marks.__getitem__)) for c in classes}
    reached = {marks[cls]: cls}

    def number(inner: Any) -> str:
        reached.setdefault(marks[inner], inner)
        return str([*reached].index(marks[inner]))

    meanings: list[Any] = []
    while len(meanings) < len(reached):
        meanings.append(_meaning_of_class([*reached.values()][len(meanings)], number))
    return _digest(meanings)


def _meaning_of_class(cls: Any, name: Callable[[Any], str]) -> list[list[str]]:
    if is_enum(cls):
        return [[cls.__name__], *sorted([*item] for item in _enum_members(cls).items())]
    fields = sorted(fields_of(cls), key=attrgetter("name"))
    return [[f.name, _meaning(f.type, name)] for f in fields]


def _meaning(tp: Any, name: Callable[[Any], str]) -> str:
    """Describe a type by what it stores; `name` returns the name of a class."""
    tp = plain(tp)
    origin, args = typing.get_origin(tp), typing.get_args(tp)
    if is_record(tp) or is_enum(tp):
        return f"<{name(tp)}>"
    if is_union(tp):  # in order, since a file may hold a member's number; it holds records' names
        return " | ".join(
            (typing.get_origin(m) or m).__name__ * is_record(m) + _meaning(m, name)
            for m in members_of(tp)
        )
    if origin in (*SEQUENCES, tuple, dict):
        return f"{type_name(origin)}[{', '.join(_meaning(arg, name) for arg in args)}]"
    # Flags are stored by value; other members by name, which the description holds.
    flags = sorted(v.value for v in args if isinstance(v, Flag)) if is_literal(tp) else []
    return f"{describe(tp)}{flags or ''}"


def _digest(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value)).hexdigest()[:16]


def _free_name(name: str, names: Mapping[Any, str]) -> str:
    used = set(names.values())
    return next(n for n in (name, *(f"{name}#{i}" for i in range(2, 9999))) if n not in used)


def is_same(stored: Schema, expected: Schema) -> bool:
    """Whether a file of one schema can be read with the other without a migration."""
    key = attrgetter("name", "version", "fingerprint")
    return bool(key(stored) == key(expected))


def mismatch(stored: Schema, cls: Any) -> SchemaMismatch:
    """The error for a file of another schema, or of the same version of a changed class."""
    expected = schema_of(cls)
    sides = [f"{s.name} version {s.version}" for s in (stored, expected)]
    if stored.name != expected.name:
        return SchemaMismatch(
            f"the checkpoint holds {sides[0]}, the class is {sides[1]}",
            hint="load it with the class that wrote it, or start from another checkpoint",
        )
    lines = []
    for name in sorted(stored.classes.keys() | expected.classes.keys()):
        old, new = stored.classes.get(name, {}), expected.classes.get(name, {})
        for field in [*old, *(f for f in new if f not in old)]:
            if old.get(field) != new.get(field):
                a, b = (side.get(field, "nothing") for side in (old, new))
                lines.append(f"\n  - {name}.{field}: {a} in the file, {b} in the class")
    return SchemaMismatch(
        f"the checkpoint holds {sides[0]}, but the class has changed since{''.join(lines)}",
        hint="load it with the class that wrote it; to read it with this one, give the class the "
        f"version {expected.version + 1} and write a function under "
        f"@migrate({expected.name!r}, {expected.version})",
    )


def schema_from_json(value: object) -> Schema:
    """Read a schema from a file's metadata; `InvalidCheckpoint` if it is not one."""
    match value:
        case {
            "name": str(name),
            "version": int(version),
            "fingerprint": str(fingerprint),
            "classes": dict(classes),
            **rest,
        } if (
            not rest
            and type(version) is int
            and all(
                isinstance(fields, dict)
                and all(isinstance(t, str) for item in fields.items() for t in item)
                for fields in classes.values()
            )
        ):
            return Schema(name, version, fingerprint, classes)
    raise InvalidCheckpoint(
        "the metadata has no description of a schema",
        hint="the file was not written by this package",
    )
