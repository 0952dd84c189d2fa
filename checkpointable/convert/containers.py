"""Hooks for lists, tuples, sets, deques and dicts."""

import typing
from collections import deque
from typing import Any

from checkpointable.annotations import describe
from checkpointable.convert.scalars import Refused, expect
from checkpointable.convert.types import Hook, Hooks, tagged


def _each(items: Any, hook: Hook) -> list[Any]:
    result = []
    try:
        for item in items:
            result.append(hook(item))
    except Refused as refused:
        raise refused.under(f"[{len(result)}]") from None
    return result


def sequence(tp: Any, hooks: Hooks) -> tuple[Hook, Hook]:
    """Lists, sets, frozensets and deques of one type of item."""
    cls: Any = typing.get_origin(tp)
    to_wire, from_wire = hooks(typing.get_args(tp)[0])
    tag = f"${cls.__name__}"

    def unstructure(value: Any) -> Any:
        if type(value) is not cls:
            raise Refused(f"a {type(value).__qualname__} where {describe(tp)} is declared")
        items = _each(value, to_wire)
        if cls is list:
            return items
        return {tag: items, "$maxlen": value.maxlen} if cls is deque else {tag: items}

    def structure(wire: Any) -> Any:
        if cls is list:
            return _each(expect(wire, list), from_wire)
        if cls is deque:
            if type(wire) is not dict or wire.keys() != {"$deque", "$maxlen"}:
                raise Refused(f"{type(wire).__name__} where {tag} is due")
            maxlen = expect(wire["$maxlen"], int, type(None))
            items = _each(expect(wire["$deque"], list), from_wire)
            if maxlen is not None and len(items) > maxlen:
                raise Refused(f"{len(items)} items in a deque of at most {maxlen}")
            return deque(items, maxlen)
        return _unique(cls, _each(tagged(wire, tag), from_wire))

    return unstructure, structure


def _unique(cls: Any, items: list[Any]) -> Any:
    try:
        found = cls(items)
    except TypeError as error:
        raise Refused(str(error)) from error
    if len(found) != len(items):
        raise Refused(f"a {cls.__name__} with an item twice")
    return found


def fixed_tuple(tp: Any, hooks: Hooks) -> tuple[Hook, Hook]:
    """Tuples, of a fixed form or of any length."""
    args = typing.get_args(tp)
    endless = args[-1:] == (Ellipsis,)
    pairs = [hooks(arg) for arg in args if arg is not Ellipsis]

    def convert(items: Any, side: int) -> list[Any]:
        if endless:
            return _each(items, pairs[0][side])
        if len(items) != len(pairs):
            raise Refused(f"{len(items)} items where {describe(tp)} is declared")
        together = zip(items, pairs, strict=True)
        return _each(together, lambda item: item[1][side](item[0]))

    def unstructure(value: Any) -> Any:
        if type(value) is not tuple:
            raise Refused(f"a {type(value).__qualname__} where {describe(tp)} is declared")
        return {"$tuple": convert(value, 0)}

    return unstructure, lambda wire: tuple(convert(tagged(wire, "$tuple"), 1))


def dictionary(tp: Any, hooks: Hooks) -> tuple[Hook, Hook]:
    """Dicts: JSON objects where all keys are plain strings, else lists of pairs."""
    (key_to_wire, key_from_wire), (to_wire, from_wire) = (hooks(arg) for arg in typing.get_args(tp))

    def unstructure(value: Any) -> Any:
        if type(value) is not dict:
            raise Refused(f"a {type(value).__qualname__} where {describe(tp)} is declared")
        keys = [key_to_wire(key) for key in value]
        values = []
        for key, item in value.items():
            try:
                values.append(to_wire(item))
            except Refused as refused:
                raise refused.under(f"[{key!r:.40}]") from None
        if all(type(key) is str and not key.startswith("$") for key in keys):
            return dict(zip(keys, values, strict=True))
        return {"$dict": [list(pair) for pair in zip(keys, values, strict=True)]}

    def structure(wire: Any) -> Any:
        if type(wire) is not dict:
            raise Refused(f"{type(wire).__name__} where {describe(tp)} is declared")
        pairs: Any = wire.items()
        if "$dict" in wire:
            pairs = [expect(pair, list) for pair in tagged(wire, "$dict")]
            if any(len(pair) != 2 for pair in pairs):
                raise Refused("an item of $dict is not a pair")
        found = {}
        for key, item in pairs:
            try:
                found[key_from_wire(key)] = from_wire(item)
            except Refused as refused:
                raise refused.under(f"[{key!r:.40}]") from None
            except TypeError as error:
                raise Refused(f"a key cannot be hashed: {error}") from error
        if len(found) != len(pairs):
            raise Refused("a dict with a key twice")
        return found

    return unstructure, structure
