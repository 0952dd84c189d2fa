"""The fields of a record: their names, and their types with all type parameters resolved."""

import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Generic, Protocol, TypeVar, cast

import attrs
from attrs import frozen

from checkpointable.errors import UnsupportedType
from checkpointable.schema.types import array_type, is_named_tuple, is_record, plain


@frozen
class Field:
    """One field of a record: its name, its type with TypeVars resolved, and attrs' attribute.

    `make_default` makes its default, if it has one that does not depend on the other fields.
    """

    name: str
    type: Any
    attribute: Any = None
    make_default: Callable[[], Any] | None = None


def fields_of(tp: Any, path: str = "") -> tuple[Field, ...]:
    """The fields of a record, types resolved; `UnsupportedType` if one lacks an annotation."""
    return _fields_of(tp, path)


@cache
def _fields_of(tp: Any, path: str) -> tuple[Field, ...]:
    cls = typing.get_origin(tp) or tp
    path = path or cls.__name__
    attributes: dict[str, Any] = {}
    declared: dict[str, Any]
    if attrs.has(cls):
        attributes = {a.name: a for a in attrs.fields(cls)}
        declared = {name: a.type for name, a in attributes.items()}
    elif is_named_tuple(cls):
        declared = dict.fromkeys(cls._fields)
    else:
        declared = {f.name: f.type for f in dataclasses.fields(cls)}
    hints = _hints(cls, declared, path)
    bound = _bindings(tp)
    fields = []
    for name in declared:
        annotation = hints.get(name, declared[name])
        if annotation is None and name not in hints:
            raise UnsupportedType(
                "the field has no annotation", where=f"{path}.{name}", hint="annotate it"
            )
        owner = next((k for k in cls.__mro__ if name in _own_annotations(k)), cls)
        resolved = _substitute(annotation, bound.get(owner, {}))
        make_default = _default(cls, name, attributes.get(name))
        fields.append(Field(name, plain(resolved), attributes.get(name), make_default))
    return tuple(fields)


def _default(cls: Any, name: str, attribute: Any) -> Callable[[], Any] | None:
    if attribute is not None:
        default: Any = attribute.default
        convert: Any = attribute.converter
        is_factory = isinstance(default, attrs.Factory)  # type: ignore[arg-type]
        # A Converter object may need the instance, as a factory may.
        needs_self = isinstance(attribute.converter, attrs.Converter)
        needs_self = needs_self or (is_factory and default.takes_self)
        if default is attrs.NOTHING or needs_self:
            return None
        make: Callable[[], Any] = default.factory if is_factory else lambda: default
        return make if convert is None else lambda: convert(make())
    if is_named_tuple(cls):
        defaults = cls._field_defaults
        return (lambda: defaults[name]) if name in defaults else None
    field = {f.name: f for f in dataclasses.fields(cls)}[name]
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory
    return None if field.default is dataclasses.MISSING else lambda: field.default


def _hints(cls: type, declared: Mapping[str, Any], path: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, localns={cls.__name__: cls}, include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        if any(isinstance(t, str | typing.ForwardRef) for t in declared.values()):
            raise UnsupportedType(
                f"an annotation cannot be resolved: {error}",
                where=path,
                hint="define the classes at module level, or call attrs.resolve_types first",
            ) from error
        return dict(declared)


def _own_annotations(cls: type) -> Mapping[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF)
    else:
        return inspect.get_annotations(cls)


def _bindings(tp: Any) -> dict[type, dict[Any, Any]]:
    """What the TypeVars stand for in `tp` and in each generic class that it inherits from."""
    cls = typing.get_origin(tp) or tp
    arguments = dict(zip(getattr(cls, "__parameters__", ()), typing.get_args(tp), strict=False))
    bindings = {cls: arguments}
    for base in getattr(cls, "__orig_bases__", ()):
        if typing.get_origin(base) not in (None, Generic, Protocol):
            bindings.update(_bindings(_substitute(base, arguments)))
    for base in cls.__bases__:
        for ancestor, bound in _bindings(base).items() if base is not object else ():
            bindings.setdefault(ancestor, bound)
    return bindings


def _substitute(tp: Any, bound: Mapping[Any, Any]) -> Any:
    if isinstance(tp, TypeVar):
        return bound.get(tp, tp)
    parameters = getattr(tp, "__parameters__", ())
    if isinstance(tp, type) and not typing.get_args(tp):  # a generic class without arguments
        return tp
    arguments = tuple(bound.get(p, p) for p in parameters)
    return cast(Any, tp)[arguments] if parameters else tp


def holds_arrays(tp: Any) -> bool:
    """Whether a value of the type can hold an array, at any depth."""
    return _holds_arrays(tp, set())


def _holds_arrays(tp: Any, seen: set[Any]) -> bool:
    tp = plain(tp)
    if array_type(tp) is not None:
        return True
    if tp in seen:
        return False
    seen.add(tp)
    inner = [f.type for f in fields_of(tp)] if is_record(tp) else typing.get_args(tp)
    return any(_holds_arrays(t, seen) for t in inner if t is not Ellipsis)
