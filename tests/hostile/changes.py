"""JSON that is not what it should be: near values, and hostile ones, in the place of good ones."""

from collections.abc import Callable
from typing import Any

import orjson

from tests.hostile.forge import Path, dumps
from tests.hostile.pools import FOREIGN, NAMES, NUMBERS, PAYLOADS, RAW, TAGS, VALUES

Below = Callable[[int], int]


def changed(root: Any, path: Path, change: Callable[[Any], Any]) -> Any:
    """A copy of `root` with the value at `path` changed; the same if it is not there any more."""
    if not path:
        return change(root)
    kind, key = type(root), path[0]
    if kind is dict and key in root:
        return {**root, key: changed(root[key], path[1:], change)}
    if kind is list and type(key) is int and key < len(root):
        return [*root[:key], changed(root[key], path[1:], change), *root[key + 1 :]]
    return root


def pick(pool: list[Any], below: Below) -> Any:
    """One of a list."""
    return pool[below(len(pool))]


def hostile(value: Any, below: Below) -> Any:
    """Another value in its place: a near one, something from the pools, or with other parts."""
    way = below(8)
    if way < 2:
        return pick(VALUES, below)
    if way == 2:
        return {pick(TAGS, below): pick(PAYLOADS, below)}
    if way == 3:
        return [[value], {"$tuple": [value]}, {"": value}, {"$type": "Circle", "radius": value}][
            below(4)
        ]
    if type(value) is dict:
        return _other_object(value, below)
    if type(value) is list:
        return _other_list(value, below)
    return _near(value, below)


def _near(value: Any, below: Below) -> Any:
    if type(value) is str:
        return [pick(PAYLOADS, below), value + "\0", "../" + value, value[:-1], [value],
                pick(FOREIGN, below), pick(NAMES, below), value.upper()][below(8)]  # fmt: skip
    if type(value) in (int, float, bool):
        return [pick(NUMBERS, below), str(value), bool(value), float(value), int(value) + 1,
                -value, orjson.Fragment(pick(RAW, below)), None][below(8)]  # fmt: skip
    return pick(VALUES, below)


def _other_object(value: dict[str, Any], below: Below) -> Any:
    keys = [*value]
    key = keys[below(len(keys))] if keys else ""
    match below(7):
        case 0:
            return {k: v for k, v in value.items() if k != key}
        case 1:
            return value | {pick(TAGS + NAMES + FOREIGN, below): pick(VALUES, below)}
        case 2:
            other = pick(TAGS + NAMES + FOREIGN, below)
            return {other if k == key else k: v for k, v in value.items()}
        case 3 if keys:
            return orjson.Fragment(dumps(value)[:-1] + b"," + dumps({key: value[key]})[1:])
        case 4:
            return dict(reversed(value.items()))
        case 5 if keys:
            return value | {key: pick(PAYLOADS, below)}
        case _:
            return value | dict.fromkeys(keys, value.get(key))


def _other_list(value: list[Any], below: Below) -> Any:
    match below(6):
        case 0:
            return value[:-1]
        case 1:
            return [*value, pick(VALUES, below)]
        case 2:
            return value * (2 + below(60))
        case 3:
            return value[::-1]
        case 4:
            return {str(i): item for i, item in enumerate(value)}
        case _:
            return [hostile(item, below) if below(2) else item for item in value[:9]]
