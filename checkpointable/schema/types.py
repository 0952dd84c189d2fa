"""The types of a checkpoint class's annotations.

The predicates sort a type into the kinds that can be stored: leaf, array, enum, record (a class
with named fields: attrs, dataclass or named tuple), union, literal, or a container of those.
"""

import dataclasses
import datetime
import types
import typing
from collections import deque
from decimal import Decimal
from enum import Enum
from pathlib import Path, PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Annotated, Any, Final, Literal, Protocol, TypeVar, Union
from uuid import UUID

import attrs
import numpy as np
from attrs import frozen

Scalar_co = TypeVar("Scalar_co", bound=np.generic, covariant=True)


class Array(Protocol[Scalar_co]):
    """Annotation of an array field: `Array[np.float32]` is any array of that scalar type.

    NumPy arrays fit it, and device arrays of Numba, CuPy and others; a checkpoint that was loaded
    from a file holds NumPy arrays. `numpy.typing.NDArray[...]` works as well.
    """

    @property
    def dtype(self) -> np.dtype[Scalar_co]:
        """The type of the elements."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        ...

    def __getitem__(self, key: Any, /) -> Any: ...

    def __array__(self) -> np.ndarray[Any, np.dtype[Scalar_co]]: ...


LEAVES: tuple[type, ...] = (
    bool, int, float, complex, str, bytes, types.NoneType,
    datetime.datetime, datetime.date, datetime.time, datetime.timedelta,
    UUID, Decimal,
    Path, PurePath, PosixPath, WindowsPath, PurePosixPath, PureWindowsPath,
)  # fmt: skip
SEQUENCES: tuple[type, ...] = (list, set, frozenset, deque)


@frozen
class ArrayType:
    """An array annotation, parsed: the allowed scalar types, and the number of axes if given."""

    scalars: tuple[type[np.generic], ...] = (np.generic,)
    ndim: int | None = None

    def __str__(self) -> str:
        names = "|".join(sorted(s.__name__ for s in self.scalars))
        parts = [] if self.scalars == (np.generic,) else [names]
        parts += [] if self.ndim is None else [f"{self.ndim}-d"]
        return f"array[{', '.join(parts)}]" if parts else "array"


def is_record(tp: Any) -> bool:
    """Whether the type is a class with named fields: attrs, dataclass or named tuple."""
    cls = typing.get_origin(tp) or tp
    return isinstance(cls, type) and (
        attrs.has(cls) or dataclasses.is_dataclass(cls) or is_named_tuple(cls)
    )


def is_named_tuple(tp: Any) -> bool:
    """Whether the type is a named tuple class."""
    cls = typing.get_origin(tp) or tp
    return isinstance(cls, type) and issubclass(cls, tuple) and hasattr(cls, "_fields")


def is_enum(tp: Any) -> bool:
    """Whether the type is an enumeration."""
    return isinstance(tp, type) and issubclass(tp, Enum)


def is_union(tp: Any) -> bool:
    """Whether the type is a union, written `A | B`, `Union[A, B]` or `Optional[A]`."""
    return typing.get_origin(tp) in (Union, types.UnionType)


def is_literal(tp: Any) -> bool:
    """Whether the type is a `Literal`."""
    return typing.get_origin(tp) is Literal


def is_leaf(tp: Any) -> bool:
    """Whether the type is a scalar: one of `LEAVES`, or a NumPy scalar type."""
    cls = typing.get_origin(tp) or tp
    return cls in LEAVES or (
        isinstance(cls, type) and issubclass(cls, np.generic) and not issubclass(cls, np.object_)
    )


def plain(tp: Any) -> Any:
    """Return the type without Annotated, Final, NewType and type aliases."""
    while True:
        origin = typing.get_origin(tp)
        if tp is None:
            return types.NoneType
        if origin in (Annotated, Final):
            tp = typing.get_args(tp)[0]
        elif isinstance(tp, typing.NewType):
            tp = tp.__supertype__
        elif type(tp).__name__ == "TypeAliasType":
            tp = tp.__value__
        elif type(origin).__name__ == "TypeAliasType":
            assert origin is not None
            tp = origin.__value__[typing.get_args(tp)]
        else:
            return tp


def array_type(tp: Any) -> ArrayType | None:
    """Parse an array annotation; None if the type is not one."""
    origin, args = typing.get_origin(tp) or tp, typing.get_args(tp)
    if origin is Array:
        return ArrayType(_scalars(args[0]) if args else (np.generic,))
    if origin is not np.ndarray:
        return None
    shape: Any = typing.get_args(args[0]) if args else ()
    fixed = args and typing.get_origin(args[0]) is tuple and Ellipsis not in shape
    dtype_args = typing.get_args(args[1]) if len(args) > 1 else ()
    scalars = _scalars(dtype_args[0]) if dtype_args else (np.generic,)
    return ArrayType(scalars, len(shape) if fixed else None)


def _scalars(tp: Any) -> tuple[type[np.generic], ...]:
    """The scalar types that the type argument of an array allows; empty if there is none."""
    if tp is Any:
        return (np.generic,)
    if is_union(tp):
        return tuple(s for arg in typing.get_args(tp) for s in _scalars(arg))
    cls = typing.get_origin(tp) or tp
    allowed = isinstance(cls, type) and issubclass(cls, np.generic)
    return (cls,) if allowed and not issubclass(cls, np.object_) else ()


def members_of(tp: Any) -> tuple[Any, ...]:
    """The members of a union, plain, nested unions flattened, sorted by their description."""
    members: dict[Any, None] = {}
    for arg in map(plain, typing.get_args(tp)):
        members.update(dict.fromkeys(members_of(arg) if is_union(arg) else (arg,)))
    return tuple(sorted(members, key=describe))


def type_name(tp: Any) -> str:
    """The name of a class in the short form that files use: `Box[int]`, `Color`."""
    args = typing.get_args(tp)
    name = getattr(typing.get_origin(tp) or tp, "__name__", None) or str(tp)
    return f"{name}[{', '.join(describe(a) for a in args)}]" if args else str(name)


def describe(tp: Any) -> str:
    """A supported type as text, the same in every version of Python.

    >>> describe(dict[str, list[int] | None])
    'dict[str, None | list[int]]'
    """
    tp = plain(tp)
    if tp is types.NoneType:
        return "None"
    if tp is Ellipsis:
        return "..."
    if (array := array_type(tp)) is not None:
        return str(array)
    if is_union(tp):
        return " | ".join(describe(m) for m in members_of(tp))
    if is_literal(tp):
        return f"Literal[{', '.join(sorted(map(_describe_literal, typing.get_args(tp))))}]"
    return type_name(tp)


def _describe_literal(value: Any) -> str:
    return f"{type(value).__name__}.{value.name}" if isinstance(value, Enum) else repr(value)
