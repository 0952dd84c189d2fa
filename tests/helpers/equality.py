"""Equality that a checkpoint must keep: in value, in type, and to the last bit."""

import dataclasses
import datetime
import struct
from collections import deque
from decimal import Decimal
from typing import Any

import attrs
import numpy as np


def same(a: Any, b: Any) -> bool:
    """Say whether two values are equal in value and in type, NaN and -0.0 by their bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return same_dtype(a.dtype, b.dtype) and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, np.str_ | np.bytes_):
        return len(a) == len(b) and a == b
    if isinstance(a, np.generic):
        return same_dtype(a.dtype, b.dtype) and a.tobytes() == b.tobytes()
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, Decimal):
        return bool(a.as_tuple() == b.as_tuple())
    if isinstance(a, datetime.datetime | datetime.time):
        zones = a.tzinfo == b.tzinfo and type(a.tzinfo) is type(b.tzinfo)
        names = repr(a.tzinfo) == repr(b.tzinfo)
        return bool(zones and names and a.fold == b.fold and _naive(a) == _naive(b))
    if attrs.has(type(a)):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in attrs.fields(type(a)))
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, dict):
        return same(list(a), list(b)) and same(list(a.values()), list(b.values()))
    if isinstance(a, set | frozenset):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    if isinstance(a, deque) and a.maxlen != b.maxlen:
        return False
    if isinstance(a, list | tuple | deque):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _naive(value: Any) -> Any:
    return value.replace(tzinfo=None, fold=0)


def same_dtype(a: np.dtype[Any], b: np.dtype[Any]) -> bool:
    """Dtypes equal to the offsets, titles and padding of their fields."""
    return (
        a == b
        and a.str == b.str
        and a.itemsize == b.itemsize
        and a.isalignedstruct == b.isalignedstruct
        and (a.names or ()) == (b.names or ())
        and (
            a.fields is None
            or all(
                same_dtype(a.fields[n][0], b.fields[n][0])  # type: ignore[index]
                and a.fields[n][1:] == b.fields[n][1:]  # type: ignore[index]
                for n in a.fields
            )
        )
    )
