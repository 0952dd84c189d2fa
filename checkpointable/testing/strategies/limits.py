"""The limits that attrs' own validators set, so that values are drawn within them."""

import math
from typing import Any

import attrs
from attrs import evolve, frozen
from hypothesis import strategies as st

from checkpointable.testing.strategies.leaves import Strategy, leaf_values


@frozen
class Limits:
    """Bounds on a value; None and 0 where there are none."""

    options: Any = None  # a sequence
    low: Any = None
    high: Any = None
    low_is_excluded: bool = False
    high_is_excluded: bool = False
    pattern: str | None = None
    min_length: int = 0
    max_length: int | None = None
    items: "Limits | None" = None  # of an iterable, or of a mapping's values
    keys: "Limits | None" = None


NONE = Limits()


def limits_of(validator: Any, limits: Limits = NONE) -> Limits:
    """Read a field's validator, as far as it is known; an unknown one is met by trying again.

    Known are those of `attrs.validators` for numbers, options, lengths and patterns, also within
    `and_`, `or_` (its first), `optional`, `deep_iterable` and `deep_mapping`. Their classes are
    private, so they are recognised by their attributes.
    """
    for inner in getattr(validator, "_validators", ()):  # and_
        limits = limits_of(inner, limits)
    known: Any = attrs.asdict(validator, recurse=False) if attrs.has(type(validator)) else {}
    match known:
        case {"bound": bound, "compare_op": ">=" | ">" as op}:
            return evolve(limits, low=bound, low_is_excluded=op == ">")
        case {"bound": bound, "compare_op": "<=" | "<" as op}:
            return evolve(limits, high=bound, high_is_excluded=op == "<")
        case {"options": options}:
            ordered = isinstance(options, list | tuple | range)
            return evolve(limits, options=options if ordered else sorted(options, key=repr))
        case {"pattern": pattern}:
            return evolve(limits, pattern=pattern.pattern)
        case {"min_length": length}:
            return evolve(limits, min_length=length)
        case {"max_length": length}:
            return evolve(limits, max_length=length)
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
        if low is not None:
            low = math.floor(low) + 1 if limits.low_is_excluded else math.ceil(low)
        if high is not None:
            high = math.ceil(high) - 1 if limits.high_is_excluded else math.floor(high)
        return st.integers(low, high)
    if cls is float and (low is not None or high is not None):
        no_low, no_high = limits.low_is_excluded, limits.high_is_excluded
        return st.floats(low, high, exclude_min=no_low, exclude_max=no_high, allow_nan=False)
    if cls is str and limits.pattern is not None:
        return st.from_regex(limits.pattern, fullmatch=True)
    if cls in (str, bytes) and (limits.min_length or limits.max_length is not None):
        make = st.text if cls is str else st.binary
        return make(min_size=limits.min_length, max_size=limits.max_length)
    return leaf_values(cls)
