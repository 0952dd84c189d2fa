"""States of kernels: owned copies of checkpoints that are compared bit for bit."""

import dataclasses
import random
from collections import deque
from collections.abc import Iterator
from typing import Any

import attrs
import numpy as np
from attrs import frozen

from checkpointable.arrays import HostArray, is_array, on_host, owned
from checkpointable.schema import is_record, type_name
from checkpointable.tree import to_tree


@frozen(eq=False)
class State:
    """An owned copy of a checkpoint: nothing that happens to that changes this."""

    name: str
    tree: Any
    arrays: dict[str, HostArray]


def copy_of(checkpoint: object, cls: Any) -> State:
    """Copy a checkpoint of class `cls`; `InvalidCheckpoint` if it is not one."""
    tree, arrays = to_tree(checkpoint, cls)
    return State(type_name(cls), tree, {name: owned(array) for name, array in arrays.items()})


def first_difference(expected: State, found: State) -> str:
    """Say where two states differ first, and how; empty if they are the same, bit for bit.

    >>> one = State("Heat", {"field": {"$array": "field"}}, {"field": np.array([1.0, 2.0])})
    >>> other = State("Heat", {"field": {"$array": "field"}}, {"field": np.array([1.0, 3.0])})
    >>> first_difference(one, one), first_difference(one, other)
    ('', 'Heat.field[1]: 3.0, not 2.0')
    """
    return next(_differences(expected.tree, found.tree, expected.name, expected, found), "")


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
    elif repr(a) != repr(b):  # which tells 0.0 from -0.0
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
    """The top field that a difference is in.

    >>> field_of("Heat.field[1]: 3.0, not 2.0"), field_of("Heat.source.at[0]: 1, not 2")
    ('field', 'source')
    """
    path = difference.partition(": ")[0].partition(".")[2]
    return path.split(".")[0].split("[")[0]


# --- attributes that the checkpoint does not hold ------------------------------------------------


def differing_attributes(one: object, other: object, depth: int = 2) -> list[str]:
    """Names of the attributes in which two objects surely differ: the best guess at a cause."""
    found = []
    ours, theirs = _attributes(one), _attributes(other)
    for name in sorted(ours.keys() & theirs.keys()):
        a, b = ours[name], theirs[name]
        try:
            plain, differ = _compared(a, b)
        except Exception:  # whatever comparing strangers may raise, it is only a guess
            continue
        if differ:
            found.append(name)
        elif not plain and depth and type(a) is type(b) and a is not b:
            inner = differing_attributes(a, b, depth - 1)
            found += [f"{name}.{below}" for below in inner]
    return found


def _attributes(value: object) -> dict[str, Any]:
    slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
    found = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return found | getattr(value, "__dict__", {})


def _compared(a: Any, b: Any) -> tuple[bool, bool]:
    """Whether the values are of a kind that can be compared, and if so, whether they differ."""
    if is_array(a) and is_array(b):
        x, y = on_host(a), on_host(b)
        return True, (x.dtype, x.shape, x.tobytes()) != (y.dtype, y.shape, y.tobytes())
    if isinstance(a, np.random.Generator):
        return True, repr(a.bit_generator.state) != repr(b.bit_generator.state)
    if isinstance(a, np.random.RandomState):
        return True, repr(a.get_state(legacy=False)) != repr(b.get_state(legacy=False))
    if isinstance(a, random.Random):
        return True, a.getstate() != b.getstate()
    if isinstance(a, int | float | complex | str | bytes | None | np.generic):
        return True, repr(a) != repr(b)
    if isinstance(a, list | tuple | deque) and isinstance(b, list | tuple | deque):
        return True, len(a) != len(b) or any(_compared(x, y)[1] for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return True, a.keys() != b.keys() or any(_compared(a[k], b[k])[1] for k in a)
    return False, False


# --- wrong checkpoints ---------------------------------------------------------------------------


def swapped(value: Any, old: Any, new: Any) -> Any:
    """Rebuild a value with one object in it replaced; no class's own code runs."""
    if value is old:
        return new
    cls = type(value)
    if is_record(cls):
        if isinstance(value, tuple):
            return tuple.__new__(cls, (swapped(item, old, new) for item in value))
        return rebuilt(value, {n: swapped(v, old, new) for n, v in fields_in(value).items()})
    if isinstance(value, dict):
        return {key: swapped(item, old, new) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return cls(swapped(item, old, new) for item in value)
    if isinstance(value, deque):
        return deque((swapped(item, old, new) for item in value), value.maxlen)
    return value


def fields_in(record: Any) -> dict[str, Any]:
    """A record's fields and their values."""
    if isinstance(record, tuple):
        return record._asdict()  # type: ignore[attr-defined, no-any-return]
    made = attrs.fields(type(record)) if attrs.has(type(record)) else dataclasses.fields(record)
    return {f.name: getattr(record, f.name) for f in made}


def rebuilt(record: Any, values: dict[str, Any]) -> Any:
    """Another object of the record's class with just these values, by no code of the class."""
    made = object.__new__(type(record))
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made
