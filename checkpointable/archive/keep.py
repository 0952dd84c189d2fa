"""What to keep of the checkpoints in a store: pure functions of what it holds.

A policy gets the steps of a store and returns those to keep. It has no other memory, so that a run
that is started again keeps the same. A policy is stable under its own pruning: what it keeps, it
keeps again when the others are deleted. `prune` adds the newest valid checkpoint, and the parents
of those kept. When to save is in `runner`.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Sequence
from decimal import Decimal
from functools import partial
from numbers import Real
from operator import or_
from typing import Any, TypeAlias

from attrs import field, frozen

from checkpointable.archive.policy import Policy
from checkpointable.errors import InvalidCheckpoint
from checkpointable.tree import Refused, decode, find


def _no_tree() -> Any:
    return None


@frozen
class KeptStep:
    """A step that a store has: when it was saved, in Unix seconds, and how to read its tree."""

    step: int
    created: float = 0.0
    tree: Callable[[], Any] = field(default=_no_tree, repr=False, eq=False)


class Keep(Policy):
    """A policy: which steps to keep. `|` of two keeps what either does.

    The functions of this module make policies; a subclass with a `choose` is one as well.

    >>> last(3) | best("stats.loss", 2, largest=True)
    last(3) | best('stats.loss', 2, largest=True)
    """

    _choose: Callable[[Sequence[KeptStep]], Collection[int]] | None = None

    def choose(self, past: Sequence[KeptStep]) -> Collection[int]:
        """The steps to keep, of those that the store has, oldest first."""
        if self._choose is None:
            raise NotImplementedError(f"{type(self).__qualname__} has no method `choose`")
        return self._choose(past)

    def __call__(self, past: Sequence[KeptStep | int]) -> list[int]:
        """The steps to keep, oldest first; ints will do where the policy needs only the steps.

        >>> (last(1) | every_nth(100))([0, 70, 130, 160])
        [0, 130, 160]
        """
        steps = [KeptStep(one) if isinstance(one, int) else one for one in past]
        return sorted(set(self.choose(steps)))

    def __or__(self, other: "Keep") -> "Keep":
        def choose(past: Sequence[KeptStep]) -> Collection[int]:
            return {*self.choose(past), *other.choose(past)}

        return _made(partial(or_, self, other), choose)


AnyKeep: TypeAlias = Keep | Callable[[Sequence[int]], Collection[int]]
"""A policy, or a plain function from the store's steps, oldest first, to those to keep."""


def chosen(keep: AnyKeep, past: Sequence[KeptStep]) -> set[int]:
    """The steps to keep.

    >>> chosen(lambda steps: steps[:1], [KeptStep(10), KeptStep(20)])
    {10}
    """
    if isinstance(keep, Keep):
        return set(keep.choose(past))
    return set(keep([one.step for one in past]))


def _made(call: "partial[Keep]", choose: Callable[[Sequence[KeptStep]], Collection[int]]) -> Keep:
    keep = Keep()
    keep._call, keep._choose = call, choose
    return keep


def last(n: int) -> Keep:
    """Keep the newest `n` steps.

    >>> last(2)([10, 20, 30])
    [20, 30]
    """
    _check_from_1("last", n, "keep at least 1")
    return _made(partial(last, n), lambda past: [one.step for one in past[-n:]])


def every_nth(k: int) -> Keep:
    """Keep one of every `k` steps: the first checkpoint at or after each multiple of `k`.

    >>> every_nth(100)([0, 70, 130, 160, 200])
    [0, 130, 200]
    """
    _check_from_1("every_nth", k, "k is a number of steps from 1")

    def choose(past: Sequence[KeptStep]) -> Collection[int]:
        first: dict[int, int] = {}
        for one in past:
            first.setdefault(one.step // k, one.step)
        return first.values()

    return _made(partial(every_nth, k), choose)


def within(*, hours: float) -> Keep:
    """Keep what was saved in the `hours` before the newest; a pause of the run deletes nothing.

    >>> steps = [KeptStep(1, created=0.0), KeptStep(2, created=5000.0), KeptStep(3, created=8000.0)]
    >>> within(hours=1)(steps)
    [2, 3]
    """
    if not hours > 0:
        raise ValueError(f"hours is {hours!r}, but must be above 0")

    def choose(past: Sequence[KeptStep]) -> Collection[int]:
        return [one.step for one in past if one.created >= past[-1].created - hours * 3600]

    return _made(partial(within, hours=hours), choose)


def spread(n: int) -> Keep:
    """Keep at most `n`, ever further apart the older they are.

    They are the newest, the oldest, and those next to half, a quarter, an eighth, ... of its age.

    >>> spread(6)(range(0, 101, 3))
    [0, 48, 51, 75, 87, 99]
    """
    _check_from_1("spread", n, "keep at least 1")

    def choose(past: Sequence[KeptStep]) -> Collection[int]:
        if not past:
            return []
        steps = [one.step for one in past]
        newest, age = steps[-1], steps[-1] - steps[0]
        kept = {newest, steps[0]} if n > 1 else {newest}
        # Of each age the neighbours on both sides: a single one would at times be the only one
        # between its age and the newest, and deleted once it is past that.
        for halved in range(1, age.bit_length() + 1):
            wanted = newest - (age >> halved)
            for i in (bisect_right(steps, wanted) - 1, bisect_left(steps, wanted)):
                if len(kept) < n:
                    kept.add(steps[i])
        return kept

    return _made(partial(spread, n), choose)


def best(key: str, n: int = 1, *, largest: bool = False) -> Keep:
    """Keep the `n` with the smallest number (or largest) at the path `key`, as `stats.loss`.

    A path is what `checkpointable show` and `diff` print: `layers[1].loss`. Of equal numbers the
    newer one is better. NaN is the worst. The numbers are read from the headers of the files.

    >>> past = [KeptStep(i, tree=lambda i=i: {"stats": {"loss": abs(3 - i)}}) for i in range(6)]
    >>> best("stats.loss", 2)(past)
    [3, 4]
    """
    if not key:
        raise ValueError("best() needs the path of a number, as 'stats.loss'")
    _check_from_1("best", n, "keep at least 1")

    def order(item: tuple[int, float]) -> tuple[bool, float, int]:
        step, number = item
        if math.isnan(number):
            return True, 0.0, -step
        return False, -number if largest else number, -step

    def choose(past: Sequence[KeptStep]) -> Collection[int]:
        trees = [(one.step, one.tree()) for one in past]
        values = [(step, number_at(tree, key)) for step, tree in trees]
        numbers = [(step, number) for step, number in values if number is not None]
        if not numbers and any(tree is not None for _, tree in trees):
            raise InvalidCheckpoint(
                f"no checkpoint has a number at {key!r}, so none is the best",
                hint="give the path of a number that `checkpointable show` lists, as stats.loss",
            )
        return [step for step, _ in sorted(numbers, key=order)[:n]]

    return _made(partial(best, key, n, largest=largest), choose)


def number_at(tree: Any, path: str) -> float | None:
    """Read the number at a path of a checkpoint's tree; None if there is no number.

    >>> number_at({"stats": [{"loss": {"$float": "inf"}}]}, "stats[0].loss")
    inf
    """
    try:
        value = decode(find(tree, path))
        is_number = isinstance(value, Real | Decimal) and not isinstance(value, bool)
        return float(value) if is_number else None
    except (LookupError, Refused, ArithmeticError, ValueError):
        return None


def _check_from_1(policy: str, n: int, rule: str) -> None:
    if type(n) is not int or n < 1:
        raise ValueError(f"{policy}({n!r}): {rule}")
