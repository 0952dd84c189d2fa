"""When to save: pure functions of a `Moment`, which says where a run is and what saving costs it.

    >>> policy = every(seconds=600) & overhead(max=0.01) | at([1000])
    >>> policy.due(Moment(step=1000, saved_step=900, since=5.0))
    <Due.NOW: 2>

Nothing here reads a clock or measures: `loop` does, with `costs`. What to keep is in `keep`.
"""

import math
import signal
from collections.abc import Iterable
from enum import IntEnum

from attrs import frozen

FIRST = 10.0
"""Seconds until the first save of a policy that goes by costs: before it they are not known."""


class Due(IntEnum):
    """Whether a save is due: `|` of two policies takes the larger, `&` the smaller."""

    NO = 0
    SOON = 1
    """As soon as the save before has ended: the run does not wait for it."""
    NOW = 2
    """At this step: the run waits for the save before."""


@frozen
class Moment:
    """What a policy judges by, at a safe point; times are in seconds.

    The last save was of `saved_step` (before the first: where the run began), `since` so long ago.
    The run has taken `elapsed`, of which saving has cost it `spent`. `cost` is what the next save
    will, None before one was measured. `signals` have come since the last save.
    """

    step: int
    saved_step: int
    since: float
    elapsed: float = 0.0
    spent: float = 0.0
    cost: float | None = None
    signals: frozenset[int] = frozenset()


class When:
    """A policy; combine two by `|` (either says so) and `&` (both do). Yours has a `due`, too."""

    def due(self, moment: Moment) -> Due:
        """Say whether to save."""
        raise NotImplementedError

    def next_step(self, step: int) -> int | None:
        """The next step, after this one, that the policy wants to be asked at; None if any will do.

        >>> every(steps=100).next_step(150)
        200
        """
        return None

    @property
    def signals(self) -> frozenset[int]:
        """The signals that the policy wants to be told of."""
        return frozenset()

    def __or__(self, other: "When") -> "When":
        return Combined(self, other, any_of=True)

    def __and__(self, other: "When") -> "When":
        return Combined(self, other, any_of=False)


@frozen
class Combined(When):
    """Two policies as one."""

    one: When
    other: When
    any_of: bool

    def due(self, moment: Moment) -> Due:
        """See `When`."""
        found = self.one.due(moment), self.other.due(moment)
        return max(found) if self.any_of else min(found)

    def next_step(self, step: int) -> int | None:
        """See `When`."""
        found = self.one.next_step(step), self.other.next_step(step)
        return min((next_one for next_one in found if next_one is not None), default=None)

    @property
    def signals(self) -> frozenset[int]:
        """See `When`."""
        return self.one.signals | self.other.signals


@frozen
class Every(When):
    """See `every`."""

    steps: int | None = None
    seconds: float | None = None

    def due(self, moment: Moment) -> Due:
        """See `When`."""
        if self.steps is not None and moment.step // self.steps > moment.saved_step // self.steps:
            return Due.NOW
        return _soon(self.seconds is not None and moment.since >= self.seconds)

    def next_step(self, step: int) -> int | None:
        """See `When`."""
        return None if self.steps is None else step + self.steps - step % self.steps


def every(*, steps: int | None = None, seconds: float | None = None) -> Every:
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
    return Every(steps, seconds)


@frozen
class At(When):
    """See `at`."""

    steps: tuple[int, ...]

    def due(self, moment: Moment) -> Due:
        """See `When`."""
        passed = any(moment.saved_step < step <= moment.step for step in self.steps)
        return Due.NOW if passed else Due.NO

    def next_step(self, step: int) -> int | None:
        """See `When`."""
        return min((wanted for wanted in self.steps if wanted > step), default=None)


def at(steps: Iterable[int]) -> At:
    """Save at each of these steps.

    >>> at([10, 1000]).next_step(10)
    1000
    """
    wanted = tuple(sorted(set(steps)))
    if not all(type(step) is int and step >= 0 for step in wanted):
        raise ValueError(f"steps are {wanted!r}, but must be ints from 0")
    return At(wanted)


@frozen
class Continuously(When):
    """See `continuously`."""

    def due(self, moment: Moment) -> Due:
        """See `When`."""
        return _soon(moment.step > moment.saved_step)


def continuously() -> Continuously:
    """Save again as soon as the save before is durable.

    >>> continuously().due(Moment(step=8, saved_step=7, since=0.0))
    <Due.SOON: 1>
    """
    return Continuously()


@frozen
class OnSignal(When):
    """See `on_signal`."""

    numbers: frozenset[int]

    def due(self, moment: Moment) -> Due:
        """See `When`."""
        return Due.NOW if self.numbers & moment.signals else Due.NO

    @property
    def signals(self) -> frozenset[int]:
        """See `When`."""
        return self.numbers


def on_signal(*numbers: int) -> OnSignal:
    """Save when one of these signals has come, and go on; then it does not stop the run.

    >>> on_signal(signal.SIGUSR2).due(Moment(8, 7, 0.0, signals=frozenset({signal.SIGUSR2})))
    <Due.NOW: 2>
    """
    if not numbers:
        raise ValueError("on_signal() needs the number of a signal, as signal.SIGUSR1")
    return OnSignal(frozenset(signal.Signals(number) for number in numbers))


@frozen
class Overhead(When):
    """See `overhead`."""

    max: float

    def due(self, moment: Moment) -> Due:
        """See `When`."""
        if moment.cost is None:
            return _soon(moment.since >= FIRST)
        afford = moment.elapsed * self.max >= moment.spent + moment.cost
        return _soon(afford and moment.since >= _apart(moment.cost, self.max))


def overhead(max: float = 0.01) -> Overhead:
    """Save as often as it can be while saving costs at most this share of the run.

    What it costs is measured: the time that the kernel stands still, and that which its steps
    take longer while a save is in flight. Saves are evenly apart, and at least a slice of steps.
    The first comes after `FIRST` seconds, and measures.

    >>> overhead(max=0.01).due(Moment(50, 10, since=99.0, elapsed=200.0, spent=1.0, cost=1.0))
    <Due.SOON: 1>
    >>> overhead(max=0.01).due(Moment(50, 10, since=90.0, elapsed=200.0, spent=1.0, cost=1.0))
    <Due.NO: 0>
    """
    return Overhead(_share("overhead", max))


@frozen
class YoungDaly(When):
    """See `young_daly`."""

    mtbf: float
    max: float

    def due(self, moment: Moment) -> Due:
        """See `When`."""
        if moment.cost is None:
            return _soon(moment.since >= FIRST)
        best = optimum_interval(moment.cost, self.mtbf)
        return _soon(moment.since >= max(best, _apart(moment.cost, self.max)))


def young_daly(*, mtbf: float, max: float = 0.1) -> YoungDaly:
    """Save at the interval that loses the least time, if a failure comes every `mtbf` seconds.

    That is `optimum_interval` of the measured cost of a save, but never so often that saving costs
    more than the share `max` of the run. The first save comes after `FIRST` seconds.

    >>> young_daly(mtbf=86400).due(Moment(50, 10, since=500.0, cost=1.0))
    <Due.SOON: 1>
    """
    if not 0 < mtbf < math.inf:
        raise ValueError(f"mtbf is {mtbf!r}, but must be seconds above 0")
    return YoungDaly(mtbf, _share("young_daly", max))


def optimum_interval(cost: float, mtbf: float) -> float:
    """How long to compute between two saves that cost `cost`, if failures come `mtbf` apart.

    To first order it is sqrt(2 cost mtbf): J. W. Young, "A first order approximation to the
    optimum checkpoint interval", CACM 17 (1974) 530. This is the higher-order estimate of
    J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps",
    Future Generation Computer Systems 22 (2006) 303. Times in the same unit.

    What a restore takes makes every failure dearer by the same time, however far apart the saves
    are: in Daly's complete model it is a factor before all, and the optimum does not depend on it.
    Nor does it on how long a save goes on beside the steps (N. H. Vaidya, "Impact of checkpoint
    latency on overhead ratio of a checkpointing scheme", IEEE Trans. Computers 46 (1997) 942):
    `cost` is what it takes away from them.

    >>> [round(optimum_interval(5, 60 * hours), 1) for hours in (24, 6, 0.25)]  # Daly's figures
    [116.7, 56.7, 9.1]
    """
    if cost >= 2 * mtbf:
        return mtbf
    ratio = cost / (2 * mtbf)
    return math.sqrt(2 * cost * mtbf) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost


def _apart(cost: float, share: float) -> float:
    """How long after a save the next may begin, so that they cost that share."""
    return cost * (1 / share - 1)


def _soon(due: bool) -> Due:
    return Due.SOON if due else Due.NO


def _share(policy: str, share: float) -> float:
    if not 0 < share < 1:
        raise ValueError(f"{policy}(max={share!r}): a share of the run is between 0 and 1")
    return share
