"""What attrs' own validators allow, read off them, so that values are made, not found by chance."""

from typing import Any

import attrs
import numpy as np
from attrs import evolve, frozen
from hypothesis import strategies as st

from checkpointable.testing.strategies._scalars import Strategy, leaf_values


@frozen
class Limits:
    """Bounds on a value; None and 0 where there are none."""

    options: Any = None  # a sequence
    low: Any = None
    high: Any = None
    above: bool = False  # not low itself
    below: bool = False  # not high itself
    pattern: str | None = None
    least: int = 0
    most: int | None = None
    items: "Limits | None" = None  # of an iterable, or of a mapping's values
    keys: "Limits | None" = None


NONE = Limits()


def limits_of(validator: Any, limits: Limits = NONE) -> Limits:
    """Read a field's validator, as far as it is known; what is not is left to chance.

    Known are those of `attrs.validators` for numbers, options, lengths and patterns, also within
    `and_`, `or_` (its first), `optional`, `deep_iterable` and `deep_mapping`. They are private
    classes, so they are known by their attributes.
    """
    for inner in getattr(validator, "_validators", ()):  # and_
        limits = limits_of(inner, limits)
    known: Any = attrs.asdict(validator, recurse=False) if attrs.has(type(validator)) else {}
    match known:
        case {"bound": bound, "compare_op": ">=" | ">" as op}:
            return evolve(limits, low=bound, above=op == ">")
        case {"bound": bound, "compare_op": "<=" | "<" as op}:
            return evolve(limits, high=bound, below=op == "<")
        case {"options": options}:
            ordered = isinstance(options, list | tuple | range)
            return evolve(limits, options=options if ordered else sorted(options, key=repr))
        case {"pattern": pattern}:
            return evolve(limits, pattern=pattern.pattern)
        case {"min_length": least}:
            return evolve(limits, least=least)
        case {"max_length": most}:
            return evolve(limits, most=most)
        case {"member_validator": item, "iterable_validator": whole}:
            return evolve(limits_of(whole, limits), items=limits_of(item))
        case {"key_validator": key, "value_validator": value, "mapping_validator": whole}:
            limits = limits_of(whole, limits)
            return evolve(limits, keys=limits_of(key), items=limits_of(value))
        case {"validators": [first, *_]}:
            return limits_of(first, limits)
        case {"validator": inner} if type(validator).__name__ == "_OptionalValidator":
            return limits_of(inner, limits)
    return limits


def limited_leaves(cls: type, limits: Limits) -> Strategy:
    """Values of a scalar type within limits."""
    low, high = limits.low, limits.high
    if cls is int and (low is not None or high is not None):
        least = None if low is None else int(np.floor(low)) + 1 if limits.above else _up(low)
        most = None if high is None else _up(high) - 1 if limits.below else int(np.floor(high))
        return st.integers(least, most)
    if cls is float and (low is not None or high is not None):
        return st.floats(
            low, high, exclude_min=limits.above, exclude_max=limits.below, allow_nan=False
        )
    if cls is str and limits.pattern is not None:
        return st.from_regex(limits.pattern, fullmatch=True)
    if cls is str and (limits.least or limits.most is not None):
        return st.text(min_size=limits.least, max_size=limits.most)
    if cls is bytes and (limits.least or limits.most is not None):
        return st.binary(min_size=limits.least, max_size=limits.most)
    return leaf_values(cls)


def _up(bound: Any) -> int:
    return bound if isinstance(bound, int) else int(np.ceil(bound))
