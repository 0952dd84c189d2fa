"""Hooks for lists, tuples, sets, deques and dicts."""

import sys
import typing
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from checkpointable.schema import describe
from checkpointable.tree.codegen import FROM_WIRE, TO_WIRE, each
from checkpointable.tree.scalars import Hook, Hooks, Refused, check_hashes, expect, tagged


def sequence(tp: Any, hooks: Hooks) -> tuple[Hook, Hook]:
    """The hooks of lists, sets, frozensets and deques."""
    cls: Any = typing.get_origin(tp)
    item_type = typing.get_args(tp)[0]
    to_wires, from_wires = each(item_type, hooks, TO_WIRE), each(item_type, hooks, FROM_WIRE)
    tag = f"${cls.__name__}"

    def unstructure(value: Any) -> Any:
        if type(value) is not cls:
            raise Refused.got(value, describe(tp))
        items = to_wires(value)
        if cls is list:
            return items
        return {tag: items, "$maxlen": value.maxlen} if cls is deque else {tag: items}

    def structure(wire: Any) -> Any:
        if cls is list:
            return from_wires(expect(wire, list))
        if cls is deque:
            if type(wire) is not dict or wire.keys() != {"$deque", "$maxlen"}:
                raise Refused.got(wire, tag)
            maxlen = expect(wire["$maxlen"], int, type(None))
            items = from_wires(expect(wire["$deque"], list))
            if maxlen is not None and not len(items) <= maxlen <= sys.maxsize:
                raise Refused(f"{len(items)} items in a deque of at most {maxlen}")
            return deque(items, maxlen)
        return _unique(cls, from_wires(tagged(wire, tag)))

    return unstructure, structure


def _unique(cls: Any, items: list[Any]) -> Any:
    try:
        check_hashes(items)
        unique = cls(items)
    except TypeError as error:
        raise Refused(str(error)) from error
    if len(unique) != len(items):
        raise Refused(f"a {cls.__name__} with a duplicate item")
    return unique


def fixed_tuple(tp: Any, hooks: Hooks) -> tuple[Hook, Hook]:
    """The hooks of tuples, of a fixed number of items or of any."""
    args = typing.get_args(tp)
    if args[-1:] == (Ellipsis,):
        convert = tuple(each(args[0], hooks, side) for side in (TO_WIRE, FROM_WIRE))
    else:
        convert = tuple(_each_by_its_type(tp, hooks, side) for side in (TO_WIRE, FROM_WIRE))

    def unstructure(value: Any) -> Any:
        if type(value) is not tuple:
            raise Refused.got(value, describe(tp))
        return {"$tuple": convert[TO_WIRE](value)}

    return unstructure, lambda wire: tuple(convert[FROM_WIRE](tagged(wire, "$tuple")))


def _each_by_its_type(tp: Any, hooks: Hooks, side: int) -> Callable[[Any], list[Any]]:
    item_hooks = [hooks(arg)[side] for arg in typing.get_args(tp)]

    def convert(items: Any) -> list[Any]:
        if len(items) != len(item_hooks):
            raise Refused(f"expected {describe(tp)}, got {len(items)} items")
        converted: list[Any] = []
        try:
            for hook, item in zip(item_hooks, items, strict=True):
                converted.append(hook(item))
        except Refused as refused:
            raise refused.under(f"[{len(converted)}]") from None
        return converted

    return convert


def dictionary(tp: Any, hooks: Hooks) -> tuple[Hook, Hook]:
    """The hooks of dicts: a JSON object if all keys are names, else a list of pairs."""
    (key_to_wire, key_from_wire), (to_wire, from_wire) = (hooks(arg) for arg in typing.get_args(tp))

    def unstructure(value: Any) -> Any:
        if type(value) is not dict:
            raise Refused.got(value, describe(tp))
        keys = [key_to_wire(key) for key in value]
        values = []
        for key, item in value.items():
            try:
                values.append(to_wire(item))
            except Refused as refused:
                raise refused.under(f"[{key!r:.40}]") from None
        if _are_names(keys):
            return dict(zip(keys, values, strict=True))
        return {"$dict": [list(pair) for pair in zip(keys, values, strict=True)]}

    def structure(wire: Any) -> Any:
        if type(wire) is not dict:
            raise Refused.got(wire, describe(tp))
        pairs: Any = wire.items()
        if "$dict" in wire:
            pairs = [expect(pair, list) for pair in tagged(wire, "$dict")]
            if any(len(pair) != 2 for pair in pairs):
                raise Refused("an item of $dict is not a pair")
        if _are_names(key for key, _ in pairs) is ("$dict" in wire):
            raise Refused("a dict is stored as an object if and only if all its keys are names")
        converted = []
        for key, item in pairs:
            try:
                converted.append((key_from_wire(key), from_wire(item)))
            except Refused as refused:
                raise refused.under(f"[{key!r:.40}]") from None
        try:
            check_hashes(key for key, _ in converted)
        except TypeError as error:
            raise Refused(f"a key cannot be hashed: {error}") from error
        made = dict(converted)
        if len(made) != len(pairs):
            raise Refused("a dict with a duplicate key")
        return made

    return unstructure, structure


def _are_names(keys: Iterable[Any]) -> bool:
    """Whether these can be the keys of a JSON object: text that no tag can be."""
    return all(type(key) is str and not key.startswith("$") for key in keys)
