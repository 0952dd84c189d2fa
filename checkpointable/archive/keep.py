"""What to keep of the checkpoints in a store: pure functions of what it holds.

A policy is given what there is, and says what stays; nothing is remembered beside the store, so
that a run that is started again keeps the same. What has been kept by a policy it keeps again:
no choice depends on what it did not choose. `retention.prune` adds the newest that verifies, and
what the kept ones continue. When to save is in `policy`.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, TypeAlias

from attrs import field, frozen

from checkpointable.errors import InvalidCheckpoint
from checkpointable.tree import Refused, decode


def _no_tree() -> Any:
    return None


@frozen
class Past:
    """One step that a store has: when it was saved, in Unix seconds, and how to read its tree."""

    step: int
    created: float = 0.0
    tree: Callable[[], Any] = field(default=_no_tree, repr=False, eq=False)


class Keep:
    """A policy; `|` of two keeps what either does. Yours has a `choose`, too."""

    __slots__ = ()

    def choose(self, past: Sequence[Past]) -> Collection[int]:
        """Choose the steps that stay of what there is, oldest first."""
        raise NotImplementedError

    def __call__(self, past: Sequence[Past | int]) -> list[int]:
        """Give the steps that stay, oldest first; steps alone will do where no more is asked for.

        >>> (last(1) | every_nth(100))([0, 70, 130, 160])
        [0, 130, 160]
        """
        known = [Past(one) if isinstance(one, int) else one for one in past]
        return sorted(set(self.choose(known)))

    def __or__(self, other: "Keep") -> "Keep":
        return Either(self, other)


AnyKeep: TypeAlias = Keep | Callable[[Sequence[int]], Collection[int]]
"""A policy, or a plain function from the steps that there are, oldest first, to those that stay."""


def chosen(keep: AnyKeep, past: Sequence[Past]) -> set[int]:
    """The steps that stay.

    >>> chosen(lambda steps: steps[:1], [Past(10), Past(20)])
    {10}
    """
    if isinstance(keep, Keep):
        return set(keep.choose(past))
    return set(keep([one.step for one in past]))


@frozen
class Either(Keep):
    """Two policies as one."""

    one: Keep
    other: Keep

    def choose(self, past: Sequence[Past]) -> Collection[int]:
        """See `Keep`."""
        return {*self.one.choose(past), *self.other.choose(past)}


@frozen
class Last(Keep):
    """See `last`."""

    n: int

    def choose(self, past: Sequence[Past]) -> Collection[int]:
        """See `Keep`."""
        return [one.step for one in past[-self.n :]]


def last(n: int) -> Last:
    """Keep the newest `n` steps.

    >>> last(2)([10, 20, 30])
    [20, 30]
    """
    return Last(_from_1("last", n, "keep at least 1"))


@frozen
class EveryNth(Keep):
    """See `every_nth`."""

    k: int

    def choose(self, past: Sequence[Past]) -> Collection[int]:
        """See `Keep`."""
        first: dict[int, int] = {}
        for one in past:
            first.setdefault(one.step // self.k, one.step)
        return first.values()


def every_nth(k: int) -> EveryNth:
    """Keep one of every `k` steps: the first checkpoint at or after each multiple of `k`.

    >>> every_nth(100)([0, 70, 130, 160, 200])
    [0, 130, 200]
    """
    return EveryNth(_from_1("every_nth", k, "k is a number of steps from 1"))


@frozen
class Within(Keep):
    """See `within`."""

    seconds: float

    def choose(self, past: Sequence[Past]) -> Collection[int]:
        """See `Keep`."""
        if not past:
            return []
        oldest = past[-1].created - self.seconds
        return [one.step for one in past if one.created >= oldest]


def within(*, hours: float) -> Within:
    """Keep what was saved in so many hours before the newest; a pause of the run deletes nothing.

    >>> within(hours=1)([Past(1, created=0.0), Past(2, created=5000.0), Past(3, created=8000.0)])
    [2, 3]
    """
    if not hours > 0:
        raise ValueError(f"hours is {hours!r}, but must be above 0")
    return Within(hours * 3600)


@frozen
class Spread(Keep):
    """See `spread`."""

    n: int

    def choose(self, past: Sequence[Past]) -> Collection[int]:
        """See `Keep`."""
        if not past:
            return []
        steps = [one.step for one in past]
        newest, age = steps[-1], steps[-1] - steps[0]
        kept = {newest, steps[0]} if self.n > 1 else {newest}
        # Of each age the neighbours on both sides: with one of them, it would at times be the
        # only one between its age and the newest, and gone when it is past that.
        for halved in range(1, age.bit_length() + 1):
            wanted = newest - (age >> halved)
            for i in (bisect_right(steps, wanted) - 1, bisect_left(steps, wanted)):
                if len(kept) < self.n:
                    kept.add(steps[i])
        return kept


def spread(n: int) -> Spread:
    """Keep at most `n`, ever further apart the older they are.

    They are the newest, the oldest, and those next to half, a quarter, an eighth, ... of its age.

    >>> spread(6)(range(0, 101, 3))
    [0, 48, 51, 75, 87, 99]
    """
    return Spread(_from_1("spread", n, "keep at least 1"))


@frozen
class Best(Keep):
    """See `best`."""

    key: str
    n: int
    largest: bool

    def choose(self, past: Sequence[Past]) -> Collection[int]:
        """See `Keep`."""
        trees = [(one.step, one.tree()) for one in past]
        found = [(step, number_at(tree, self.key)) for step, tree in trees]
        numbers = [(step, number) for step, number in found if number is not None]
        if not numbers and any(tree is not None for _, tree in trees):
            raise InvalidCheckpoint(
                f"no checkpoint has a number at {self.key!r}, so none is the best",
                hint="give the path of a number that `checkpointable show` lists, as stats.loss",
            )
        sign = -1 if self.largest else 1

        def order(item: tuple[int, float]) -> tuple[bool, float, int]:
            step, number = item
            return (math.isnan(number), 0.0 if math.isnan(number) else sign * number, -step)

        return [step for step, _ in sorted(numbers, key=order)[: self.n]]


def best(key: str, n: int = 1, *, largest: bool = False) -> Best:
    """Keep the `n` with the smallest number (or largest) at the path `key`, as `stats.loss`.

    Equal ones: the newer. NaN is the worst. It is read from the headers of the files.

    >>> past = [Past(i, tree=lambda i=i: {"stats": {"loss": abs(3 - i)}}) for i in range(6)]
    >>> best("stats.loss", 2)(past)
    [3, 4]
    """
    if not key:
        raise ValueError("best() needs the path of a number, as 'stats.loss'")
    return Best(key, _from_1("best", n, "keep at least 1"), largest)


def number_at(tree: Any, path: str) -> float | None:
    """Read the number at a path of a checkpoint's tree; None if there is no number.

    >>> number_at({"stats": [{"loss": {"$float": "inf"}}]}, "stats.0.loss")
    inf
    """
    for part in path.split("."):
        if isinstance(tree, dict) and len(tree) == 1:
            (tag, inner) = next(iter(tree.items()))
            tree = inner if tag == "$tuple" else tree
        if isinstance(tree, dict):
            tree = tree.get(part)
        elif isinstance(tree, list) and part.isascii() and part.isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
        else:
            return None
    return _number(tree)


def _number(wire: Any) -> float | None:
    try:
        value = decode(wire)
        is_number = isinstance(value, Real | Decimal) and not isinstance(value, bool)
        return float(value) if is_number else None
    except (Refused, ArithmeticError, ValueError):
        return None


def _from_1(policy: str, n: int, rule: str) -> int:
    if type(n) is not int or n < 1:
        raise ValueError(f"{policy}({n!r}): {rule}")
    return n
