"""The tree of a checkpoint as indented lines, its tags as Python would say what they stand for."""

from collections.abc import Iterator, Mapping
from typing import Any

from checkpointable.cli._shared import size_text
from checkpointable.format import StoredArray
from checkpointable.tree import decode

_MOST = 50  # items of a container that are shown
_LINE = 56  # characters of scalars in one line
_LONGEST = 100  # characters of a value that are shown

Arrays = Mapping[str, StoredArray]


def tree_lines(tree: Any, arrays: Arrays) -> Iterator[str]:
    """Give one line for each value, with what a container holds indented below it.

    >>> print("\\n".join(tree_lines({"step": 3, "low": {"$float": "-inf"}, "path": [1, 2]}, {})))
      step: 3
      low: -inf
      path: list of 2: 1, 2
    """
    found = container(tree)
    return _children(found[1] if found else [("value", tree)], arrays, 1)


def shape_text(array: StoredArray) -> str:
    """Say a shape without spaces, as in `(512,512)`."""
    return str(array.shape).replace(" ", "")


def _children(items: list[tuple[str, Any]], arrays: Arrays, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for label, wire in items[:_MOST]:
        found = container(wire)
        if found is None:
            yield f"{indent}{label}: {leaf_text(wire, arrays)}"
            continue
        kind, inner = found
        line = _one_line(inner) if " of " in kind else ""
        yield f"{indent}{label}: {kind}: {line}" if line else f"{indent}{label}: {kind}".rstrip()
        if not line:
            yield from _children(inner, arrays, depth + 1)
    if len(items) > _MOST:
        yield f"{indent}... {len(items) - _MOST} more, which --json shows"


def _one_line(items: list[tuple[str, Any]]) -> str:
    """Say numbered scalars in one line, or as many as fit; empty if there are others."""
    if any(container(wire) or (type(wire) is dict and "$array" in wire) for _, wire in items):
        return ""
    if any(label != str(i) for i, (label, _) in enumerate(items)):
        return ""
    text = ", ".join(leaf_text(wire, {}) for _, wire in items[:_MOST])
    if len(items) <= _MOST and len(text) <= _LINE:
        return text
    fitting, _, _ = text[:_LINE].rpartition(", ")
    return f"{fitting}, ..." if fitting else ""


def container(wire: Any) -> tuple[str, list[tuple[str, Any]]] | None:
    """Say what kind of container this is, and what it holds; None if it is a single value."""
    match wire:
        case list():
            return f"list of {len(wire)}", _numbered(wire)
        case {"$union": inner, "$member": _}:
            return container(inner)
        case {"$type": str(name)}:
            return name, [(key, wire[key]) for key in wire if key != "$type"]
        case {"$dict": list(pairs)} if all(type(p) is list and len(p) == 2 for p in pairs):
            return f"dict of {len(pairs)}", [(leaf_text(key, {}), value) for key, value in pairs]
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


def leaf_text(wire: Any, arrays: Arrays) -> str:
    """Say a single value, or in one line a container that is the key of a dict."""
    match wire:
        case {"$array": str(name)} if name in arrays:
            array = arrays[name]
            own = "" if len(name) <= _LONGEST and not name.startswith("#") else f" {name}"
            return f"array[{array.dtype}] {shape_text(array)} {size_text(array.nbytes)}{own}"
        case {"$enum": [str(name), str(member)]}:
            return f"{name}.{member}"
        case {"$enum": [str(name), value]}:
            return f"{name}({leaf_text(value, arrays)})"
    found = container(wire)
    if found is not None:
        return _short(f"({', '.join(leaf_text(item, arrays) for _, item in found[1][:_MOST])})")
    try:
        return _short(_said(decode(wire)))
    except Exception:  # not as this version writes it, or nothing that NumPy can print
        return _short(repr(wire))


def scalar(wire: Any) -> Any:
    """The value that a leaf of the tree stands for; None for what is no scalar."""
    try:
        return decode(wire)
    except Exception:  # not as this version writes it
        return None


def _said(value: Any) -> str:
    if isinstance(value, bool | int | float | complex | str | bytes | None):
        if type(value) is int and value.bit_length() > 10_000:  # more digits than Python converts
            return hex(value)
        if type(value).__module__ == "builtins":
            return repr(value)
    return f"{type(value).__name__} {value}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"
