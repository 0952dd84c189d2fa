"""What saving costs a run, and what still fits into the time after a signal.

No clock is read here: the loop passes in what it has measured.
"""

from collections import deque
from collections.abc import Mapping
from statistics import median

from attrs import define, field

MARGIN = 1.25
"""A save is predicted to take at most this many times the longest of the last ones."""

_SLICES = 9  # whose median is the rate of the steps alone
_SAVES = 5
_NEWEST = 0.3  # the weight of the newest save in the mean


@define
class Costs:
    """The costs of a run so far, in seconds.

    `spent` is what saving has cost in total, `cost` what one save is expected to cost, None before
    the first. `slowdown` is the share of their rate that the steps lost during the last save.

    >>> costs = Costs()
    >>> costs.slice_done(100, 1.0, overlapped=False)  # a hundred steps a second
    >>> costs.slice_done(80, 1.0, overlapped=True)  # eighty during a save: 0.2 s are lost
    >>> costs.save_done("full", seconds=1.5, stalled=0.5)
    >>> round(costs.slowdown, 3), round(costs.cost, 3)
    (0.2, 0.7)
    """

    spent: float = 0.0
    cost: float | None = None
    slowdown: float | None = None
    _rates: "deque[float]" = field(factory=lambda: deque(maxlen=_SLICES))
    _durations: dict[str, "deque[float]"] = field(factory=dict)
    _lost: float = 0.0
    _overlap: float = 0.0

    def slice_done(self, steps: int, seconds: float, *, overlapped: bool) -> None:
        """Record how long some steps took, and whether a save was under way meanwhile.

        The rate of the steps alone is the median of the last slices without a save, so that one
        slice that compiled, or was held up, does not count.
        """
        if seconds <= 0 or not steps:
            return
        if not overlapped:
            self._rates.append(steps / seconds)
        elif self._rates:
            self._lost += seconds - steps / median(self._rates)
            self._overlap += seconds

    def save_done(self, kind: str, *, seconds: float, stalled: float) -> None:
        """Record a save of a kind, "full" or "delta", that has become durable.

        It took `seconds`, of which the kernel stood still for `stalled`.
        """
        # The save slowed the steps while it was under way, which may be less than the slices took.
        lost = max(self._lost, 0.0)
        overlap = min(self._overlap, max(seconds - stalled, 0.0)) or self._overlap
        self.slowdown = min(lost / overlap, 1.0) if overlap else None
        self._lost = self._overlap = 0.0
        cost = stalled + lost
        self.spent += cost
        self.cost = cost if self.cost is None else self.cost + _NEWEST * (cost - self.cost)
        self._durations.setdefault(kind, deque(maxlen=_SAVES)).append(seconds)

    def predicted(self, kind: str) -> float | None:
        """How long the next save of a kind may take; None if there was none."""
        durations = self._durations.get(kind)
        return max(durations) * MARGIN if durations else None


def plan(left: float | None, durations: Mapping[str, float | None], flush: float | None) -> str:
    """Choose what to save in the `left` seconds: the first of the kinds that fits, else "flush".

    `durations` is what each kind is predicted to take by itself; `flush` what is left of the save
    under way, which comes first, None if there is none. A kind whose duration is unknown is tried
    if no save is under way. If `left` is None, there is time enough. Returns "none" if nothing fits
    and no save is under way.

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
