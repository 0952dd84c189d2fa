"""Values to JSON and back, by type: cattrs chooses the hooks, a module for each kind makes them.

`hooks(tp)` returns the hooks for both directions. Both check: a value that is not of the declared
type, or a stored form that is not what the type writes, is `Refused` with its path. Arrays pass
through unchanged.
"""

import typing
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from checkpointable.schema import (
    SEQUENCES,
    array_type,
    is_enum,
    is_leaf,
    is_literal,
    is_record,
    is_union,
    plain,
)
from checkpointable.tree import containers, records, values
from checkpointable.tree.scalars import Hook, Hooks

if TYPE_CHECKING:
    from cattrs import Converter


@cache
def hooks(tp: Any) -> tuple[Hook, Hook]:
    """The hooks of a type: from its value to a tree with the arrays still in place, and back."""
    converter = _converter()
    if isinstance(tp, type) and (is_leaf(tp) or is_enum(tp)):
        # cattrs would find these by inheritance, and use its own hooks for int or float, which
        # cast instead of checking, for an IntEnum or np.float64.
        unstructure, checked = (values.enum if is_enum(tp) else values.leaf)(tp, hooks)
        converter.register_unstructure_hook(tp, unstructure)
        converter.register_structure_hook(tp, _for_cattrs(checked))
    structure: Any = converter.get_structure_hook(tp)
    return converter.get_unstructure_hook(tp), structure.direct


@cache
def _converter() -> "Converter":
    """The converter, in which cattrs chooses the hooks for a type and caches them."""
    from cattrs import Converter

    converter = Converter()
    kinds: list[tuple[Callable[[Any], bool], Callable[[Any, Hooks], tuple[Hook, Hook]]]] = [
        (lambda tp: plain(tp) is not tp, lambda tp, hooks: hooks(plain(tp))),
        (is_leaf, values.leaf),
        (lambda tp: array_type(tp) is not None, values.array),
        (is_literal, values.literal),
        (is_record, records.record),
        (is_union, records.union),
        (lambda tp: typing.get_origin(tp) in SEQUENCES, containers.sequence),
        (lambda tp: typing.get_origin(tp) is tuple, containers.fixed_tuple),
        (lambda tp: typing.get_origin(tp) is dict, containers.dictionary),
    ]
    for predicate, make in reversed(kinds):  # cattrs asks the last registered first
        _register(converter, predicate, make)
    return converter


def _register(
    converter: "Converter",
    predicate: Callable[[Any], bool],
    make: Callable[[Any, Hooks], tuple[Hook, Hook]],
) -> None:
    converter.register_unstructure_hook_factory(predicate, lambda tp: make(tp, hooks)[0])
    converter.register_structure_hook_factory(predicate, lambda tp: _for_cattrs(make(tp, hooks)[1]))


def _for_cattrs(structure: Hook) -> Callable[[Any, Any], Any]:
    """A structure hook as cattrs calls it; its `direct` is the hook itself."""

    def hook(wire: Any, _: Any) -> Any:
        return structure(wire)

    hook.direct = structure  # type: ignore[attr-defined]
    return hook
