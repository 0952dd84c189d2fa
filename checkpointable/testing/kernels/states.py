"""States of kernels: owned copies of checkpoints, compared bit for bit; and kernels' attributes."""

import random
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from attrs import frozen

from checkpointable.arrays import HostArray, is_array, on_host, owned
from checkpointable.schema import type_name
from checkpointable.tree import to_tree


@frozen(eq=False)
class State:
    """An owned copy of a checkpoint, which nothing that happens to the checkpoint changes."""

    name: str
    tree: Any
    arrays: dict[str, HostArray]


def copy_of(checkpoint: object, cls: Any) -> State:
    """Copy a checkpoint of class `cls`; `InvalidCheckpoint` if it is not one."""
    tree, arrays = to_tree(checkpoint, cls)
    return State(type_name(cls), tree, {name: owned(array) for name, array in arrays.items()})


def first_difference(expected: State, actual: State) -> str:
    """Return where two states differ first, and how; empty if they are the same, bit for bit.

    >>> one = State("Heat", {"field": {"$array": "field"}}, {"field": np.array([1.0, 2.0])})
    >>> other = State("Heat", {"field": {"$array": "field"}}, {"field": np.array([1.0, 3.0])})
    >>> first_difference(one, one), first_difference(one, other)
    ('', 'Heat.field[1]: 3.0, not 2.0')
    """
    return next(_differences(expected.tree, actual.tree, expected.name, expected, actual), "")


def _differences(a: Any, b: Any, path: str, one: State, other: State) -> Iterator[str]:
    if type(a) is not type(b):
        yield f"{path}: {_short(b)}, not {_short(a)}"
    elif type(a) is dict and "$array" in a and a == b:
        yield from _array_difference(one.arrays[a["$array"]], other.arrays[a["$array"]], path)
    elif type(a) is dict:
        if list(a) != list(b):
            yield f"{path}: {_short(list(b))}, not {_short(list(a))}"
        else:
            for key in a:
                below = path if key.startswith("$") else f"{path}.{key}"
                yield from _differences(a[key], b[key], below, one, other)
    elif type(a) is list:
        if len(a) != len(b):
            yield f"{path}: {len(b)} items, not {len(a)}"
        else:
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                yield from _differences(x, y, f"{path}[{i}]", one, other)
    elif repr(a) != repr(b):  # distinguishes 0.0 from -0.0
        yield f"{path}: {_short(b)}, not {_short(a)}"


def _array_difference(a: HostArray, b: HostArray, path: str) -> Iterator[str]:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        yield f"{path}: {b.dtype} of shape {b.shape}, not {a.dtype} of shape {a.shape}"
    elif a.tobytes() != b.tobytes():
        width = a.dtype.itemsize
        bits = [np.frombuffer(x.tobytes(), np.uint8).reshape(-1, width) for x in (a, b)]
        first = int(np.flatnonzero((bits[0] != bits[1]).any(axis=1))[0])
        index = ", ".join(map(str, np.unravel_index(first, a.shape)))
        yield f"{path}[{index}]: {b.reshape(-1)[first]}, not {a.reshape(-1)[first]}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def field_of(difference: str) -> str:
    """Return the top field that a difference is in.

    >>> field_of("Heat.field[1]: 3.0, not 2.0"), field_of("Heat.source.at[0]: 1, not 2")
    ('field', 'source')
    """
    path = difference.partition(": ")[0].partition(".")[2]
    return path.split(".")[0].split("[")[0]


def differing_attributes(one: object, other: object, depth: int = 2) -> list[str]:
    """Return the names of the attributes in which two objects surely differ: likely causes."""
    names = []
    attributes, others = _attributes(one), _attributes(other)
    for name in sorted(attributes.keys() & others.keys()):
        a, b = attributes[name], others[name]
        try:
            x, y = _comparable(a), _comparable(b)
        except Exception:  # whatever a user's objects raise
            continue
        if x != y:
            names.append(name)
        elif x is None and depth and type(a) is type(b) and a is not b:
            names += [f"{name}.{below}" for below in differing_attributes(a, b, depth - 1)]
    return names


def _attributes(value: object) -> dict[str, Any]:
    slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
    attributes = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return attributes | getattr(value, "__dict__", {})


def _comparable(value: Any) -> Any:
    """Return what to compare of a value by ==; None if it is an object of another kind."""
    if is_array(value):
        array = on_host(value)
        return array.dtype, array.shape, array.tobytes()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state(legacy=False))
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, int | float | complex | str | bytes | None | np.generic):
        return repr(value)
    if isinstance(value, list | tuple | deque):
        return [_comparable(item) for item in value]
    if isinstance(value, dict):
        return {key: _comparable(item) for key, item in value.items()}
    return None
