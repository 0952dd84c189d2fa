"""Generated source code for the hooks that run once per object, made once per class, as in attrs.

The common cases are checked inline, by the exact class of a value: ints of 64 bits, finite floats,
ASCII text, booleans and None are their own JSON. All else goes to the hook of its type.
"""

import itertools
import linecache
import types
from collections.abc import Callable
from operator import length_hint
from typing import Any

from checkpointable.schema import is_union, members_of
from checkpointable.tree.scalars import Hooks, Refused

TO_WIRE, FROM_WIRE = 0, 1

_OWN_JSON: tuple[dict[Any, str], dict[Any, str]] = (
    {
        int: "{0}.__class__ is int and -9223372036854775808 <= {0} <= 18446744073709551615",
        float: "{0}.__class__ is float and {0} - {0} == 0.0",
        str: "{0}.__class__ is str and {0}.isascii()",
        bool: "{0}.__class__ is bool",
        types.NoneType: "{0} is None",
    },
    {
        int: "{0}.__class__ is int",
        float: "{0}.__class__ is float",
        str: "{0}.__class__ is str",
        bool: "{0}.__class__ is bool",
        types.NoneType: "{0} is None",
    },
)
_number = itertools.count()


def converted(tp: Any, variable: str, hook: str, side: int) -> str:
    """An expression that converts the variable: inline if it is its own JSON, else by its hook."""
    table = _OWN_JSON[side]
    members = members_of(tp) if is_union(tp) else (tp,)
    tests = [f"({table[m].format(variable)})" for m in members if m in table]
    call = f"{hook}({variable})"
    return f"{variable} if {' or '.join(tests)} else {call}" if tests else call


def late_hook(names: dict[str, Any], name: str, tp: Any, hooks: Hooks, side: int) -> None:
    """Put a hook under a name; it is looked up on first use, since a class may refer to itself."""

    def find(value: Any) -> Any:
        names[name] = hooks(tp)[side]
        return names[name](value)

    names[name] = find


def compiled(source: str, names: dict[str, Any], label: str) -> Callable[..., Any]:
    """Compile a source that defines `function`, with these names as its globals."""
    file = f"<checkpointable {label} {next(_number)}>"
    exec(compile(source, file, "exec"), names)
    lines = source.splitlines(keepends=True)
    linecache.cache[file] = len(source), None, lines, file  # for tracebacks
    function: Callable[..., Any] = names["function"]
    return function


def each(tp: Any, hooks: Hooks, side: int) -> Callable[[Any], list[Any]]:
    """Return a function that converts each item of a collection; a refusal has the index."""
    names: dict[str, Any] = {"Refused": Refused, "length_hint": length_hint}
    late_hook(names, "hook", tp, hooks, side)
    source = (
        "def function(items):\n"
        "    left = iter(items)\n"
        "    try:\n"
        f"        return [{converted(tp, 'item', 'hook', side)} for item in left]\n"
        "    except Refused as refused:\n"
        "        index = len(items) - length_hint(left) - 1\n"
        "        raise refused.under(f'[{index}]') from None\n"
    )
    return compiled(source, names, "items")
