"""What the hooks for each kind of type share."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from checkpointable.convert.scalars import Refused

_MOST_ALIKE = 100

Hook = Callable[[Any], Any]
Hooks = Callable[[Any], tuple[Hook, Hook]]


def tagged(wire: Any, tag: str, length: int | None = None) -> list[Any]:
    """Return the list of `{tag: [...]}`; `Refused` if it is anything else."""
    if type(wire) is not dict or wire.keys() != {tag} or type(wire[tag]) is not list:
        raise Refused(f"{type(wire).__name__} where {tag} is due")
    items: list[Any] = wire[tag]
    if length is not None and len(items) != length:
        raise Refused(f"{len(items)} items where {length} are due")
    return items


def check_hashes(keys: Iterable[Any]) -> None:
    """`Refused` if many have the same hash: n of them, made so, take n² steps to look up."""
    counts = Counter(map(hash, keys)).most_common(1)
    if counts and counts[0][1] > _MOST_ALIKE:
        raise Refused(f"{counts[0][1]} items of the same hash")
