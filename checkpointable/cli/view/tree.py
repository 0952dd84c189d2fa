"""The tree of a checkpoint as indented lines."""

from collections.abc import Iterator, Mapping
from typing import Any

from checkpointable.cli._shared import size_text
from checkpointable.format import StoredArray
from checkpointable.tree import container, text_of

_MOST = 50  # items of a container that are shown
_LINE = 56  # characters of scalars in one line
_LONGEST = 100  # characters of an array's name that are shown

Arrays = Mapping[str, StoredArray]


def tree_lines(tree: Any, arrays: Arrays) -> Iterator[str]:
    """Give one line for each value, with what a container holds indented below it.

    >>> print("\\n".join(tree_lines({"step": 3, "low": {"$float": "-inf"}, "path": [1, 2]}, {})))
      step: 3
      low: -inf
      path: list of 2: 1, 2
    """
    inner = container(tree)
    return _children(inner[1] if inner else [("value", tree)], arrays, 1)


def shape_text(array: StoredArray) -> str:
    """A shape without spaces, as `(512,512)`."""
    return str(array.shape).replace(" ", "")


def _children(items: list[tuple[str, Any]], arrays: Arrays, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for label, wire in items[:_MOST]:
        held = container(wire)
        if held is None:
            yield f"{indent}{label}: {leaf_text(wire, arrays)}"
            continue
        kind, inner = held
        line = _one_line(inner) if " of " in kind else ""
        yield f"{indent}{label}: {kind}: {line}" if line else f"{indent}{label}: {kind}".rstrip()
        if not line:
            yield from _children(inner, arrays, depth + 1)
    if len(items) > _MOST:
        yield f"{indent}... {len(items) - _MOST} more, which --json shows"


def _one_line(items: list[tuple[str, Any]]) -> str:
    """Numbered scalars in one line, or as many as fit; empty if there are other items."""
    if any(container(wire) or (type(wire) is dict and "$array" in wire) for _, wire in items):
        return ""
    if any(label != str(i) for i, (label, _) in enumerate(items)):
        return ""
    text = ", ".join(leaf_text(wire, {}) for _, wire in items[:_MOST])
    if len(items) <= _MOST and len(text) <= _LINE:
        return text
    fitting, _, _ = text[:_LINE].rpartition(", ")
    return f"{fitting}, ..." if fitting else ""


def leaf_text(wire: Any, arrays: Arrays) -> str:
    """A single value: an array as its dtype, shape and size, others as Python would print them."""
    match wire:
        case {"$array": str(name)} if name in arrays:
            array = arrays[name]
            own = "" if len(name) <= _LONGEST and not name.startswith("#") else f" {name}"
            return f"array[{array.dtype}] {shape_text(array)} {size_text(array.nbytes)}{own}"
    return text_of(wire)
