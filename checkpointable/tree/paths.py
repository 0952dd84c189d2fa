"""Paths into a checkpoint's tree: `stats.loss`, `layers[1].weights`, `rates['a b']`.

Dots lead to the fields of an object and brackets to the items of a container, as `show` and `diff`
print them; a container's item may follow a dot, too: `layers.1`.
"""

import re
from typing import Any

from checkpointable.tree.scalars import decode

_MOST = 50  # items of a container that is itself a key
_LONGEST = 100  # characters
_STEP = re.compile(
    r"""(?:^|(?<=.)\.)([^.\[\]]+)|\[((?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^'"\[\]])+)\]"""
)


def container(wire: Any) -> tuple[str, list[tuple[str, Any]]] | None:
    """The kind of a container and what it holds, each with its label; None for a single value.

    >>> container({"$tuple": [5, 6]})
    ('tuple of 2', [('0', 5), ('1', 6)])
    """
    match wire:
        case list():
            return f"list of {len(wire)}", _numbered(wire)
        case {"$union": inner, "$member": _}:
            return container(inner)
        case {"$type": str(name)}:
            return name, [(key, wire[key]) for key in wire if key != "$type"]
        case {"$dict": list(pairs)} if all(type(p) is list and len(p) == 2 for p in pairs):
            return f"dict of {len(pairs)}", [(text_of(key), value) for key, value in pairs]
        case {"$deque": list(items), "$maxlen": limit}:
            most = "" if limit is None else f", at most {limit}"
            return f"deque of {len(items)}{most}", _numbered(items)
        case {"$tuple": list(items)} | {"$set": list(items)} | {"$frozenset": list(items)} if (
            len(wire) == 1
        ):
            (tag,) = wire
            return f"{tag[1:]} of {len(items)}", _numbered(items)
        case dict() if not any(key.startswith("$") for key in wire):
            return "", [(key if key.isidentifier() else repr(key), wire[key]) for key in wire]
    return None


def _numbered(items: list[Any]) -> list[tuple[str, Any]]:
    return [(str(i), item) for i, item in enumerate(items)]


def extended(path: str, label: str) -> str:
    """The path of an item, from that of its container and its label there.

    >>> extended("stats", "loss"), extended("layers", "1"), extended("", "step")
    ('stats.loss', 'layers[1]', 'step')
    """
    return f"{path}.{label}".removeprefix(".") if label.isidentifier() else f"{path}[{label}]"


def member(wire: Any, key: Any) -> Any:
    """The item of a container under a key or an index, which may count from the end.

    Raises `LookupError` with the labels that the container has.
    """
    inner = container(wire)
    items = inner[1] if inner else []
    try:
        return _labeled(items, repr(key), str(key))
    except LookupError:
        if type(key) is int and -len(items) <= key < 0 and items[0][0] == "0":
            return items[key][1]
        raise


def _labeled(items: list[tuple[str, Any]], *texts: str) -> Any:
    for text in texts:
        for label, item in items:
            if label == text:
                return item
    raise LookupError(", ".join(label for label, _ in items[:20]) or "nothing")


def find(tree: Any, path: str) -> Any:
    """What a tree has at a path; raises `LookupError` if it has nothing there.

    >>> find({"stats": [{"loss": 0.5}]}, "stats[0].loss")
    0.5
    """
    end = 0
    while end < len(path):
        step = _STEP.match(path, end)
        if step is None:
            raise LookupError(f"{path!r} is not a path")
        text = step[1] or step[2]
        if re.fullmatch("-[0-9]{1,9}", step[2] or ""):
            tree = member(tree, int(text))
        else:
            inner = container(tree)
            tree = _labeled(inner[1] if inner else [], text, repr(text))
        end = step.end()
    return tree


def text_of(wire: Any) -> str:
    """A single value as Python would print it; a container, as a key of a dict, in one line.

    >>> text_of({"$float": "inf"}), text_of({"$tuple": [1, "a"]})
    ('inf', "(1, 'a')")
    """
    match wire:
        case {"$enum": [str(name), str(name_of_member)]}:
            return f"{name}.{name_of_member}"
        case {"$enum": [str(name), value]}:
            return f"{name}({text_of(value)})"
    inner = container(wire)
    if inner is not None:
        return _short(f"({', '.join(text_of(item) for _, item in inner[1][:_MOST])})")
    try:
        return _short(_python_text(decode(wire)))
    except Exception:  # not as this version writes it, or not printable by NumPy
        return _short(repr(wire))


def _python_text(value: Any) -> str:
    if isinstance(value, bool | int | float | complex | str | bytes | None):
        if type(value) is int and value.bit_length() > 10_000:  # more digits than Python converts
            return hex(value)
        if type(value).__module__ == "builtins":
            return repr(value)
    return f"{type(value).__name__} {value}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"
