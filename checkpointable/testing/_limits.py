"""What attrs' own validators allow, so that values are drawn within it instead of filtered."""

import math
import re
from collections.abc import Collection
from typing import Any

import attrs
from attrs import frozen


@frozen
class Limits:
    """What a validator asks of a value; `items`, `keys` and `values` are alternatives for each."""

    options: Collection[Any] | None = None
    low: Any = -math.inf
    high: Any = math.inf
    open_low: bool = False
    open_high: bool = False
    pattern: re.Pattern[Any] | None = None
    whole: bool = True
    min_len: int = 0
    max_len: int | None = None
    items: "tuple[Limits, ...]" = ()
    keys: "tuple[Limits, ...]" = ()
    values: "tuple[Limits, ...]" = ()

    def sizes(self, usual: int = 3) -> dict[str, int]:
        """The sizes to draw, as Hypothesis takes them: small, and as long as they must be."""
        top = max(usual, self.min_len)
        return {"min_size": self.min_len, "max_size": min(top, self.max_len or top)}


ANY = Limits()


def limits_of(validator: Any, within: Limits = ANY) -> tuple[Limits, ...]:
    """Read what a validator allows: alternatives, each of which is narrower than `within`.

    attrs' validators are private classes: they are known by what they hold. One that is unknown,
    or has changed, narrows nothing, and then merely filters.
    """
    if not type(validator).__module__.startswith("attr."):
        return (within,)
    match vars_of(validator):
        case {"_validators": parts}:
            found = (within,)
            for part in parts:
                found = tuple(n for limits in found for n in limits_of(part, limits))
            return found
        case {"validators": branches}:
            return tuple(n for branch in branches for n in limits_of(branch, within))
        case {"exc_types": _}:
            return (within,)
        case {"validator": inner}:
            return (attrs.evolve(within, options=(None,)), *limits_of(inner, within))
        case {"options": options} if within.options is None and isinstance(options, Collection):
            stable = sorted(options, key=repr) if isinstance(options, set | frozenset) else options
            return (attrs.evolve(within, options=stable),)
        case {"bound": int() | float() as bound, "compare_op": str(operator)}:
            return (_bounded(within, bound, operator),)
        case {"pattern": re.Pattern() as pattern, "match_func": match}:
            whole = getattr(match, "__name__", "") == "fullmatch"
            return (attrs.evolve(within, pattern=pattern, whole=whole),)
        case {"min_length": int(length)}:
            return (attrs.evolve(within, min_len=max(within.min_len, length)),)
        case {"max_length": int(length)}:
            shortest = length if within.max_len is None else min(within.max_len, length)
            return (attrs.evolve(within, max_len=shortest),)
        case {"member_validator": member, "iterable_validator": outer}:
            return tuple(attrs.evolve(n, items=limits_of(member)) for n in limits_of(outer, within))
        case {"key_validator": key, "value_validator": value, "mapping_validator": outer}:
            inner = {"keys": limits_of(key), "values": limits_of(value)}
            return tuple(attrs.evolve(n, **inner) for n in limits_of(outer, within))
        case _:
            return (within,)


def vars_of(validator: Any) -> dict[str, Any]:
    """The attributes of an attrs object, slotted or not, by name."""
    if not attrs.has(type(validator)):
        return {}
    return {a.name: getattr(validator, a.name, None) for a in attrs.fields(type(validator))}


def _bounded(within: Limits, bound: Any, operator: str) -> Limits:
    if operator in (">", ">=") and bound >= within.low:
        is_open = operator == ">" or (within.open_low and bound == within.low)
        return attrs.evolve(within, low=bound, open_low=is_open)
    if operator in ("<", "<=") and bound <= within.high:
        is_open = operator == "<" or (within.open_high and bound == within.high)
        return attrs.evolve(within, high=bound, open_high=is_open)
    return within
