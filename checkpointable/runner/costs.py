"""What saving costs a run, measured; and what still fits into the time after a signal.

No clock is read here: the loop of `runner` says what it has measured.
"""

from collections import deque
from collections.abc import Mapping
from statistics import median

from attrs import define, field

MARGIN = 1.25
"""A save may take so many times as long as the longest of the last ones."""

_SLICES = 9  # from whose rates that of the steps alone is taken
_SAVES = 5
_NEWEST = 0.3  # the weight of the newest save in the mean


@define
class Costs:
    """The costs of a run so far, in seconds.

    `spent` is what saving has cost in all, `cost` what one save is expected to, None before the
    first. `slowdown` is by which share of their rate the steps were slower beside the last save.

    >>> costs = Costs()
    >>> costs.slice_done(100, 1.0, beside=False)  # a hundred steps a second
    >>> costs.slice_done(80, 1.0, beside=True)  # and beside a save eighty: 0.2 s are lost
    >>> costs.save_done("full", seconds=1.5, stood=0.5)
    >>> round(costs.slowdown, 3), round(costs.cost, 3)
    (0.2, 0.7)
    """

    spent: float = 0.0
    cost: float | None = None
    slowdown: float | None = None
    _rates: "deque[float]" = field(factory=lambda: deque(maxlen=_SLICES))
    _taken: dict[str, "deque[float]"] = field(factory=dict)
    _lost: float = 0.0
    _beside: float = 0.0

    def slice_done(self, steps: int, seconds: float, *, beside: bool) -> None:
        """Note how long some steps took, and whether a save was in flight beside them.

        The rate of the steps alone is the median of the last slices without one: one that compiled,
        or was held up, does not count.
        """
        if seconds <= 0 or not steps:
            return
        if not beside:
            self._rates.append(steps / seconds)
        elif self._rates:
            self._lost += seconds - steps / median(self._rates)
            self._beside += seconds

    def save_done(self, kind: str, *, seconds: float, stood: float) -> None:
        """Note a save of a kind, "full" or "delta", that has become durable.

        It took `seconds`; for its sake the kernel stood still for `stood`.
        """
        # The steps were slower for as long as it was in flight, which may be less than the slices.
        lost = max(self._lost, 0.0)
        beside = min(self._beside, max(seconds - stood, 0.0)) or self._beside
        self.slowdown = min(lost / beside, 1.0) if beside else None
        self._lost = self._beside = 0.0
        own = stood + lost
        self.spent += own
        self.cost = own if self.cost is None else self.cost + _NEWEST * (own - self.cost)
        self._taken.setdefault(kind, deque(maxlen=_SAVES)).append(seconds)

    def predicted(self, kind: str) -> float | None:
        """How long the next save of a kind may take; None if there was none."""
        taken = self._taken.get(kind)
        return max(taken) * MARGIN if taken else None


def plan(left: float | None, durations: Mapping[str, float | None], flush: float | None) -> str:
    """Choose what to save in the `left` seconds: the first of the kinds that fits, else "flush".

    `durations` says what each is predicted to take, by itself; `flush` what is left of the save in
    flight, which comes first, None if there is none. Of a kind of which nobody knows how long it
    takes, one is tried if nothing is in flight. If `left` is None, there is time enough.
    "none" if nothing fits and nothing is in flight.

    >>> plan(5.0, {"full": 10.0, "delta": 2.0}, flush=1.0)
    'delta'
    >>> plan(1.5, {"full": 10.0, "delta": 2.0}, flush=1.0)
    'flush'
    """
    for kind, seconds in durations.items():
        if left is None or (seconds is None and flush is None):
            return kind
        if seconds is not None and (flush or 0.0) + seconds <= left:
            return kind
    return "none" if flush is None else "flush"
