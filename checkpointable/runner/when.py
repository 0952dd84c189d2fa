"""When to save: pure functions of a `Moment`, which is where a run is and what saving costs it.

    >>> policy = every(seconds=600) & overhead(max=0.01) | at([1000])
    >>> policy.due(Moment(step=1000, saved_step=900, since=5.0))
    <Due.NOW: 2>

Nothing here reads a clock or measures: `loop` does, with `costs`. What to keep is in `archive`.
"""

import math
import signal
from collections.abc import Callable, Iterable
from enum import IntEnum
from functools import partial
from operator import and_, or_

from attrs import frozen

from checkpointable.archive import Policy

FIRST = 10.0
"""Seconds until the first save of a policy that goes by costs, which are unknown before it."""


class Due(IntEnum):
    """Whether a save is due: `|` of two policies takes the larger, `&` the smaller."""

    NO = 0
    SOON = 1
    """As soon as the previous save has ended: the run does not wait for it."""
    NOW = 2
    """At this step: the run waits for the previous save."""


@frozen
class Moment:
    """What a policy decides by, at a safe point; times are in seconds.

    The last save was of `saved_step` (before the first: where the run began), `since` seconds ago.
    The run has taken `elapsed`, of which saving has cost it `spent`. `cost` is what the next save
    will cost, None before one was measured. `signals` have arrived since the last save.
    """

    step: int
    saved_step: int
    since: float
    elapsed: float = 0.0
    spent: float = 0.0
    cost: float | None = None
    signals: frozenset[int] = frozenset()


class When(Policy):
    """A policy: when to save. `|` of two saves when either is due, `&` when both are.

    The functions of this module make policies; a subclass with a `due` is one as well.

    >>> every(seconds=60) | at([10]) & continuously()
    every(seconds=60) | at([10]) & continuously()
    """

    _due: Callable[[Moment], Due] | None = None
    _next_step: Callable[[int], int | None] | None = None
    _signals: frozenset[int] = frozenset()

    def due(self, moment: Moment) -> Due:
        """Whether to save at this moment."""
        if self._due is None:
            raise NotImplementedError(f"{type(self).__qualname__} has no method `due`")
        return self._due(moment)

    def next_step(self, step: int) -> int | None:
        """The next step, after this one, that the policy must be asked at; None if any will do.

        >>> every(steps=100).next_step(150)
        200
        """
        return None if self._next_step is None else self._next_step(step)

    @property
    def signals(self) -> frozenset[int]:
        """The signals that the policy handles."""
        return self._signals

    def __or__(self, other: "When") -> "When":
        return _combined(partial(or_, self, other), max)

    def __and__(self, other: "When") -> "When":
        return _combined(partial(and_, self, other), min)


def _made(
    call: "partial[When]",
    due: Callable[[Moment], Due],
    next_step: Callable[[int], int | None] | None = None,
    signals: frozenset[int] = frozenset(),
) -> When:
    when = When()
    when._call, when._due, when._next_step, when._signals = call, due, next_step, signals
    return when


def _combined(call: "partial[When]", choose: Callable[[Iterable[Due]], Due]) -> When:
    """Two policies as one."""
    policies: tuple[When, When] = call.args

    def due(moment: Moment) -> Due:
        return choose([policy.due(moment) for policy in policies])

    def next_step(step: int) -> int | None:
        steps = [policy.next_step(step) for policy in policies]
        return min((after for after in steps if after is not None), default=None)

    one, other = policies
    return _made(call, due, next_step, one.signals | other.signals)


def every(*, steps: int | None = None, seconds: float | None = None) -> When:
    """Save at each multiple of `steps`, or when `seconds` have passed since the last save.

    >>> every(steps=100).due(Moment(step=200, saved_step=150, since=0.1))
    <Due.NOW: 2>
    """
    if steps is None and seconds is None:
        raise ValueError("every() needs steps=, seconds=, or both")
    if steps is not None and (type(steps) is not int or steps < 1):
        raise ValueError(f"steps is {steps!r}, but must be an int from 1")
    if seconds is not None and not seconds > 0:
        raise ValueError(f"seconds is {seconds!r}, but must be above 0")

    def due(moment: Moment) -> Due:
        if steps is not None and moment.step // steps > moment.saved_step // steps:
            return Due.NOW
        return _soon(seconds is not None and moment.since >= seconds)

    def next_step(step: int) -> int | None:
        return None if steps is None else step + steps - step % steps

    return _made(partial(every, steps=steps, seconds=seconds), due, next_step)


def at(steps: Iterable[int]) -> When:
    """Save at each of these steps.

    >>> at([10, 1000]).next_step(10)
    1000
    """
    wanted = tuple(sorted(set(steps)))
    if not all(type(step) is int and step >= 0 for step in wanted):
        raise ValueError(f"steps are {wanted!r}, but must be ints from 0")

    def due(moment: Moment) -> Due:
        passed = any(moment.saved_step < step <= moment.step for step in wanted)
        return Due.NOW if passed else Due.NO

    def next_step(step: int) -> int | None:
        return min((after for after in wanted if after > step), default=None)

    return _made(partial(at, wanted), due, next_step)


def continuously() -> When:
    """Save again as soon as the previous save is durable.

    >>> continuously().due(Moment(step=8, saved_step=7, since=0.0))
    <Due.SOON: 1>
    """
    return _made(partial(continuously), lambda moment: _soon(moment.step > moment.saved_step))


def on_signal(*numbers: int) -> When:
    """Save when one of these signals arrives, and continue: it does not stop the run then.

    >>> on_signal(signal.SIGUSR2).due(Moment(8, 7, 0.0, signals=frozenset({signal.SIGUSR2})))
    <Due.NOW: 2>
    """
    if not numbers:
        raise ValueError("on_signal() needs the number of a signal, as signal.SIGUSR1")
    signals = frozenset(signal.Signals(number) for number in numbers)

    def due(moment: Moment) -> Due:
        return Due.NOW if signals & moment.signals else Due.NO

    return _made(partial(on_signal, *sorted(signals)), due, signals=frozenset[int](signals))


def overhead(max: float = 0.01) -> When:
    """Save as often as possible while saving costs at most this share of the run.

    The cost is measured: the time that the kernel stands still, and how much longer its steps take
    while a save is in flight. Saves are evenly spaced, and at least a slice of steps apart. The
    first comes after `FIRST` seconds, and measures.

    >>> overhead(max=0.01).due(Moment(50, 10, since=99.0, elapsed=200.0, spent=1.0, cost=1.0))
    <Due.SOON: 1>
    >>> overhead(max=0.01).due(Moment(50, 10, since=90.0, elapsed=200.0, spent=1.0, cost=1.0))
    <Due.NO: 0>
    """
    share = _share("overhead", max)

    def due(moment: Moment) -> Due:
        if moment.cost is None:
            return _soon(moment.since >= FIRST)
        affordable = moment.elapsed * share >= moment.spent + moment.cost
        return _soon(affordable and moment.since >= _interval(moment.cost, share))

    return _made(partial(overhead, max=share), due)


def young_daly(*, mtbf: float, max: float = 0.1) -> When:
    """Save at the interval that loses the least time, if a failure comes every `mtbf` seconds.

    That is `optimum_interval` of the measured cost of a save, but never so often that saving costs
    more than the share `max` of the run. The first save comes after `FIRST` seconds.

    >>> young_daly(mtbf=86400).due(Moment(50, 10, since=500.0, cost=1.0))
    <Due.SOON: 1>
    """
    if not 0 < mtbf < math.inf:
        raise ValueError(f"mtbf is {mtbf!r}, but must be seconds above 0")
    share = _share("young_daly", max)

    def due(moment: Moment) -> Due:
        if moment.cost is None:
            return _soon(moment.since >= FIRST)
        optimum = optimum_interval(moment.cost, mtbf)
        interval = _interval(moment.cost, share)
        return _soon(moment.since >= optimum and moment.since >= interval)

    return _made(partial(young_daly, mtbf=mtbf, max=share), due)


def optimum_interval(cost: float, mtbf: float) -> float:
    """How long to compute between two saves that cost `cost`, if failures come `mtbf` apart.

    To first order it is sqrt(2 cost mtbf): J. W. Young, "A first order approximation to the
    optimum checkpoint interval", CACM 17 (1974) 530. This is the higher-order estimate of
    J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps",
    Future Generation Computer Systems 22 (2006) 303. Times in the same unit.

    What a restore takes makes every failure dearer by the same time, however far apart the saves
    are: in Daly's complete model it is a factor before all, and the optimum does not depend on it.
    Nor does it on how long a save overlaps the steps (N. H. Vaidya, "Impact of checkpoint
    latency on overhead ratio of a checkpointing scheme", IEEE Trans. Computers 46 (1997) 942):
    `cost` is what it takes away from them.

    >>> [round(optimum_interval(5, 60 * hours), 1) for hours in (24, 6, 0.25)]  # Daly's figures
    [116.7, 56.7, 9.1]
    """
    if cost >= 2 * mtbf:
        return mtbf
    ratio = cost / (2 * mtbf)
    return math.sqrt(2 * cost * mtbf) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost


def _interval(cost: float, share: float) -> float:
    """The time from one save to the next with which saving costs that share."""
    return cost * (1 / share - 1)


def _soon(due: bool) -> Due:
    return Due.SOON if due else Due.NO


def _share(policy: str, share: float) -> float:
    if not 0 < share < 1:
        raise ValueError(f"{policy}(max={share!r}): a share of the run is between 0 and 1")
    return share
