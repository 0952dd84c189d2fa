"""A checkpoint object to a JSON tree and named arrays, and back, by cattrs.

`to_tree` and `from_tree` are exact inverses: the result is equal in value and in type. The types of
the fields determine both directions; a value, or a stored form, that does not fit its type is
refused with its path.

The tree: records are objects, lists are lists, string-keyed dicts are objects; anything else is
tagged: `{"$tuple": [...]}`, `{"$set": ...}`, `{"$deque": ..., "$maxlen": n}`, `{"$dict": [[key,
value], ...]}`, `{"$enum": ["Color", "RED"]}`, scalars as in `scalars`. In a union a record has the
name of its class, `{"$type": "Box", ...}`, and a container the number of the member if several are
of its kind: `{"$union": ..., "$member": 1}`. An array is `{"$array": name}`; its name is its path.

Records are restored field by field, as pickle does: validators run; converters and `__init__` do
not run again, since the stored values went through them once.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar, cast

from checkpointable.arrays import is_array
from checkpointable.errors import InvalidCheckpoint
from checkpointable.schema import fields_of, holds_arrays, is_record, type_name
from checkpointable.tree.hooks import hooks
from checkpointable.tree.scalars import Refused

C = TypeVar("C")
_JSON_SCALARS = frozenset({int, float, str, bool, type(None)})


def to_tree(checkpoint: object, cls: Any) -> tuple[Any, dict[str, Any]]:
    """Split a checkpoint into a tree that JSON can hold and its arrays by name, not copied.

    Raises `InvalidCheckpoint` with the path to a value that is not of its field's type.

    >>> from attrs import frozen
    >>> @frozen
    ... class Walk:
    ...     step: int
    ...     energy: float
    >>> to_tree(Walk(step=3, energy=float("inf")), Walk)
    ({'step': 3, 'energy': {'$float': 'inf'}}, {})
    """
    unstructure, _ = hooks(cls)
    with refused_as_invalid(cls):
        return extract(unstructure(checkpoint), array_free=_array_free_fields(cls))


def from_tree(tree: Any, arrays: Mapping[str, Any], cls: type[C]) -> C:
    """Build the checkpoint that `to_tree` split; each array must be used exactly once.

    Raises `InvalidCheckpoint` with the path to what does not fit `cls`.
    """
    tp = cast(Any, cls)
    _, structure = hooks(tp)
    with refused_as_invalid(tp):
        return cast("C", structure(insert(tree, arrays, array_free=_array_free_fields(tp))))


@contextmanager
def refused_as_invalid(cls: Any, field: str = "") -> Iterator[None]:
    """Turn a `Refused` into `InvalidCheckpoint`, with the whole path from the class downward."""
    start = f"{type_name(cls)}.{field}" if field else type_name(cls)
    try:
        yield
    except Refused as refused:
        where = start + "".join(reversed(refused.path))
        raise InvalidCheckpoint(refused.why, where=where, hint=refused.hint) from refused
    except RecursionError as error:
        raise InvalidCheckpoint(
            "it nests too deeply, or contains itself",
            where=start,
            hint="keep long chains in a list, or in arrays",
        ) from error


@cache
def _array_free_fields(cls: Any) -> frozenset[str]:
    """The fields that hold no arrays at any depth, so that they need not be walked."""
    fields = fields_of(cls) if is_record(cls) else ()
    return frozenset(field.name for field in fields if not holds_arrays(field.type))


def extract(
    wire: Any, path: str = "", array_free: frozenset[str] = frozenset()
) -> tuple[Any, dict[str, Any]]:
    """Replace each array by its name; only what holds arrays is copied.

    The keys in `array_free`, of the outermost object, are not walked.
    """
    arrays: dict[str, Any] = {}
    return _extract(wire, path, arrays, array_free), arrays


def _extract(
    wire: Any, path: str, arrays: dict[str, Any], array_free: frozenset[str] = frozenset()
) -> Any:
    kind = type(wire)
    if kind is dict:
        changed = {}
        for i, (key, value) in enumerate(wire.items()):
            if type(value) not in _JSON_SCALARS and key not in array_free:
                new = _extract(value, _child(path, key, i), arrays)
                if new is not value:
                    changed[key] = new
        return {**wire, **changed} if changed else wire
    if kind is list:
        items = [
            v if type(v) in _JSON_SCALARS else _extract(v, f"{path}[{i}]", arrays)
            for i, v in enumerate(wire)
        ]
        return items if any(a is not b for a, b in zip(items, wire, strict=True)) else wire
    if not is_array(wire):
        return wire
    name = path if len(path.encode()) <= 200 else f"#{len(arrays)}"
    arrays[name] = wire
    return {"$array": name}


def _child(path: str, key: str, index: int) -> str:
    if key.startswith("$"):  # a tag is not a part of the path
        return path
    part = key if key.isidentifier() and key != "__metadata__" else f"#{index}"
    return f"{path}.{part}" if path else part


def insert(wire: Any, arrays: Mapping[str, Any], array_free: frozenset[str] = frozenset()) -> Any:
    """Put the arrays back, each in its place; the inverse of `extract`."""
    unused = dict(arrays)
    filled = _insert(wire, unused, array_free)
    if unused:
        raise Refused(f"the tree does not refer to the array {min(unused)!r}")
    return filled


def _insert(wire: Any, arrays: dict[str, Any], array_free: frozenset[str] = frozenset()) -> Any:
    kind = type(wire)
    if kind is dict:
        if "$array" in wire:
            name = wire["$array"]
            if len(wire) != 1 or type(name) is not str or name not in arrays:
                raise Refused(f"the tree refers to an array that does not exist: {name!r:.80}")
            return arrays.pop(name)
        return {
            k: _insert(v, arrays) if type(v) in (dict, list) and k not in array_free else v
            for k, v in wire.items()
        }
    if kind is list:
        return [_insert(v, arrays) if type(v) in (dict, list) else v for v in wire]
    return wire
