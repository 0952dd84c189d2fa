"""Which types a checkpoint can hold: those that are restored equal in value and in type."""

import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any, TypeVar

from checkpointable.errors import UnsupportedType
from checkpointable.schema.types import (
    SEQUENCES,
    array_type,
    is_enum,
    is_leaf,
    is_literal,
    is_record,
    is_union,
    members_of,
    plain,
    type_name,
)

_ADVICE: dict[Any, str] = {
    Any: "annotate what it holds: a type, or a union of types",
    object: "annotate what it holds: a type, or a union of types",
    bytearray: "use bytes, or an array of np.uint8",
    memoryview: "use bytes, or an array of np.uint8",
}


def check_type(tp: Any, path: str) -> Iterator[tuple[Any, str]]:
    """Yield the records and enums in `tp`, with paths; `UnsupportedType` if it cannot be stored."""
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
            raise UnsupportedType(
                "an exception class is not data", where=path, hint="use an attrs class"
            )
        unbound = len(getattr(origin, "__parameters__", ())) - len(args)
        if unbound:
            raise UnsupportedType(
                f"{origin.__name__} is generic, but its type parameters are not given",
                where=path,
                hint=f"write {origin.__name__}[...], with the types it holds",
            )
        yield tp, path
    elif is_union(tp):
        members = members_of(tp)
        _check_union(members, path)
        for member in members:
            yield from check_type(member, path)
    elif is_literal(tp):
        for value in args:
            if isinstance(value, Enum):
                yield type(value), path
    elif origin is tuple and args != () and args[-1] is Ellipsis:
        yield from check_type(args[0], f"{path}[]")
    elif origin is tuple and typing.get_origin(tp) is tuple:
        for i, arg in enumerate(args):
            yield from check_type(arg, f"{path}[{i}]")
    elif origin in SEQUENCES and len(args) == 1:
        yield from check_type(args[0], f"{path}[]")
    elif origin is dict and len(args) == 2:
        yield from check_type(args[0], f"{path}[key]")
        yield from check_type(args[1], f"{path}[value]")
    else:
        _refuse(tp, origin, path)


def _check_union(members: tuple[Any, ...], path: str) -> None:
    tagged = [typing.get_origin(m) or m for m in members if is_record(m) or is_enum(m)]
    names = [c.__name__ for c in tagged]
    duplicates = sorted({n for n in names if names.count(n) > 1})
    if duplicates:
        raise UnsupportedType(
            f"the union has more than one class named {duplicates[0]}; a file tells them apart "
            "by name",
            where=path,
            hint="rename one, or wrap them in classes of different names",
        )


def _refuse(tp: Any, origin: Any, path: str) -> None:
    if isinstance(tp, TypeVar):
        what = f"the type parameter {tp.__name__} is not given"
        hint = "give the class its type arguments"
    elif origin in (*SEQUENCES, tuple, dict):
        what = f"{origin.__name__} has no type of its items"
        hint = f"write {origin.__name__}[...], with the types of its items"
    else:
        what = f"{type_name(tp)} cannot be stored without loss"
        hint = _ADVICE.get(origin, "use an attrs class, a list, a tuple, a dict, or an array")
    raise UnsupportedType(what, where=path, hint=hint)
