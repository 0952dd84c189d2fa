"""Checkpoints that a kernel must refuse, made from a good one, and the check that it does."""

import dataclasses
from collections import deque
from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
from attrs import frozen

from checkpointable.arrays import HostArray, on_host
from checkpointable.errors import InvalidCheckpoint
from checkpointable.schema import fields_of, is_record, type_name
from checkpointable.testing.kernels.states import State, field_of
from checkpointable.testing.kernels.subject import Subject, expect_same, put
from checkpointable.testing.report import broken
from checkpointable.tree import from_tree, to_tree


@frozen(eq=False)
class Wrong:
    """A wrong checkpoint, what is wrong with it, and where."""

    checkpoint: Any
    what: str
    where: str


def wrong_checkpoints(good: Any, other: Any, cls: Any) -> Iterator[Wrong]:
    """Spoil each field in turn: another dtype, another shape, missing, NaN if that is forbidden.

    `other` is a checkpoint of another step: an array whose shape differs between the two may have
    any shape, so only its dtype is spoilt. A named tuple cannot lack a field.
    """
    _, arrays = to_tree(good, cls)
    _, later = to_tree(other, cls)
    for name, array in arrays.items():
        host, where = on_host(array), f"{type_name(cls)}.{name}"
        fixed = name in later and later[name].shape == host.shape
        for spoilt in (*_other_dtypes(host), *(_other_shapes(host) if fixed else ())):
            what = f"{name!r} is {_layout(spoilt)}, not {_layout(host)}"
            yield Wrong(_swapped(good, array, spoilt), what, where)
        if host.dtype.kind in "fc" and host.size:
            spoilt = np.array(host)
            spoilt.reshape(-1)[0] = np.nan
            wrong = _swapped(good, array, spoilt)
            if _is_forbidden(wrong, cls):
                yield Wrong(wrong, f"{name!r} holds NaN, which its validator refuses", where)
    if isinstance(good, tuple):
        return
    values = _values(good)
    for field in fields_of(cls):
        where = f"{type_name(cls)}.{field.name}"
        lacking = _rebuilt(good, {n: v for n, v in values.items() if n != field.name})
        if not hasattr(lacking, field.name):
            yield Wrong(lacking, f"{field.name!r} is missing", where)
        if type(values[field.name]) is float:
            wrong = _rebuilt(good, values | {field.name: float("nan")})
            if _is_forbidden(wrong, cls):
                yield Wrong(wrong, f"{field.name!r} is NaN, which its validator refuses", where)


def expect_refused(subject: Subject, kernel: Any, wrong: Wrong, before: State) -> None:
    """Raise unless the kernel refuses this checkpoint and is as `before`."""
    check_all = "check all fields before the first is written, or use reinstate()"
    try:
        put(kernel, wrong.checkpoint)
    except InvalidCheckpoint:
        expect_same(
            before,
            subject.state(kernel),
            f"it refused a checkpoint ({wrong.what}), but changed",
            lambda at: f"restore() writes {field_of(at)!r} before it has checked all: {check_all}",
        )
    except Exception as error:  # whatever a user's kernel raises
        raise broken(
            f"a wrong checkpoint ({wrong.what}) ended in {type(error).__name__}: {error}",
            where=wrong.where,
            cause=f"restore() has to raise InvalidCheckpoint: {check_all}",
        ) from error
    else:
        cause = f"restore() does not check what it gets: {check_all}"
        raise broken(f"it took a wrong checkpoint ({wrong.what})", where=wrong.where, cause=cause)


def _other_dtypes(array: HostArray) -> Iterator[HostArray]:
    """The same values in a dtype that they could be cast to, and zeros in one of another kind."""
    wider = {"f4": "f8", "f8": "f4", "f2": "f4", "c8": "c16", "c16": "c8", "i4": "i8", "i8": "i4"}
    castable = wider.get(array.dtype.str[1:])
    if castable:
        yield array.astype(castable)
    yield np.zeros(array.shape, np.uint8 if array.dtype.kind != "u" else np.float64)


def _other_shapes(array: HostArray) -> Iterator[HostArray]:
    """One element more along the last axis, and one axis more."""
    yield np.zeros((*array.shape[:-1], array.shape[-1] + 1) if array.ndim else (1,), array.dtype)
    yield np.zeros((*array.shape, 1), array.dtype)


def _layout(array: HostArray) -> str:
    return f"{array.dtype} of shape {array.shape}"


def _is_forbidden(checkpoint: Any, cls: Any) -> bool:
    """Return whether loading this checkpoint from a file would refuse it."""
    try:
        from_tree(*to_tree(checkpoint, cls), cls)
    except InvalidCheckpoint:
        return True
    return False


def _swapped(value: Any, old: Any, new: Any) -> Any:
    """Return a value with one object in it replaced; no class's own code runs."""
    if value is old:
        return new
    cls = type(value)
    if is_record(cls):
        if isinstance(value, tuple):
            return tuple.__new__(cls, (_swapped(item, old, new) for item in value))
        return _rebuilt(value, {n: _swapped(v, old, new) for n, v in _values(value).items()})
    if isinstance(value, dict):
        return {key: _swapped(item, old, new) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return cls(_swapped(item, old, new) for item in value)
    if isinstance(value, deque):
        return deque((_swapped(item, old, new) for item in value), value.maxlen)
    return value


def _values(record: Any) -> dict[str, Any]:
    """Return a record's fields and their values."""
    if isinstance(record, tuple):
        return record._asdict()  # type: ignore[attr-defined, no-any-return]
    cls = type(record)
    fields = attrs.fields(cls) if attrs.has(cls) else dataclasses.fields(record)
    return {field.name: getattr(record, field.name) for field in fields}


def _rebuilt(record: Any, values: dict[str, Any]) -> Any:
    """Return an object of the record's class with just these values; no class's own code runs."""
    copy = object.__new__(type(record))
    for name, value in values.items():
        object.__setattr__(copy, name, value)
    return copy
