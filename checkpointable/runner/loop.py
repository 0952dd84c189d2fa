"""The loop of a run: advance, save when due, stop at a safe point. `runner` gives it the means.

It knows neither the store nor how a kernel is copied, and reads no clock but the one it is given:
so its tests simulate hours, failures and signals, without waiting.
"""

from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, evolve, field, frozen

from checkpointable import events
from checkpointable.archive import is_delta, is_sharded
from checkpointable.checkpointer import Restored, Saved, Saving
from checkpointable.errors import InvalidKernel, NotNow
from checkpointable.protocol import SteppableKernel
from checkpointable.runner.costs import Costs, plan
from checkpointable.runner.signals import Signals
from checkpointable.runner.when import Due, Moment, When
from checkpointable.sinks import OnEvent

_PART = 4  # a slice is to take this part of the latency: the steps may become slower


@frozen
class Progress:
    """Where a run is, told to `on_progress` after each slice of steps.

    `rate` is in steps a second, measured over the last slice; `stall_share` the part of the time
    so far in which the kernel stood still to be saved.
    """

    step: int
    until: int
    rate: float
    saved: Saved | None
    stall_share: float


@frozen
class Report:
    """What a run did. `first_step` is where it began, `restored` what it resumed from."""

    first_step: int
    step: int
    seconds: float
    restored: Restored | None
    saves: tuple[Saved, ...]


OnProgress = Callable[[Progress], object]
"""What is called with how far a run has come."""


@frozen
class Inputs:
    """What came from outside, to one rank or to any: the same on all, once they agree on it.

    The time, the signal that stops the run and how long ago it came, in seconds, those that ask for
    a save, and whether the save under way has ended.
    """

    now: float = 0.0

    stopped_by: int | None = None
    stopped_ago: float = 0.0
    asked: frozenset[int] = frozenset()
    done: bool = True


def merged(heard: Sequence[Inputs]) -> Inputs:
    """What any rank has heard, by the first one's clock; a save has ended when it has on all.

    >>> merged([Inputs(7.0), Inputs(9.0, stopped_by=15, stopped_ago=0.5), Inputs(done=False)])
    Inputs(now=7.0, stopped_by=15, stopped_ago=0.5, asked=frozenset(), done=False)
    """
    first = max(heard, key=lambda one: (one.stopped_by is not None, one.stopped_ago))
    asked = frozenset[int]().union(*(one.asked for one in heard))
    done = all(one.done for one in heard)
    return evolve(first, now=heard[0].now, asked=asked, done=done)


@frozen
class Means:
    """What the loop does its work with, and is told.

    `save` begins a save, which is to be full if it is told so, and returns when the kernel may go
    on; `kind_of` a save is "full" or "delta", and `dirty` its share of a full one. `prune` deletes
    what is not kept, now that a save is durable, and gives the names. `delta` says whether saves
    are deltas, but for those that `full` makes full ones. `finish` waits, in the end, until what
    was saved is everywhere it belongs. Where many ranks run the same, `agree` gives the same to
    all, and so do `save`'s results: then all decide the same.
    """

    save: Callable[[bool], Saving]
    dirty: Callable[[Saved], float]
    prune: Callable[[Saved], tuple[str, ...]]
    when: When
    full: When | None
    delta: bool
    latency: float
    grace: float | None
    clock: Callable[[], float]
    on_event: OnEvent
    on_progress: OnProgress
    agree: Callable[[Inputs], Inputs] = lambda heard: heard
    finish: Callable[[], object] = lambda: None


@frozen
class _Flight:
    """A save that has begun, and what is not in what it returns."""

    saving: Saving
    step: int
    begun: float
    stood: float
    kind: str


@define
class Loop:
    """One run; its methods are the parts of the loop."""

    kernel: SteppableKernel[Any]
    until: int
    means: Means
    signals: Signals
    costs: Costs = field(factory=Costs)
    saves: list[Saved] = field(factory=list)
    flight: _Flight | None = None
    begun: float = 0.0
    stalled: float = 0.0
    saved_step: int | None = None
    saved_at: float = 0.0
    full_step: int = 0
    full_at: float = 0.0
    skipped: bool = False
    heard: Inputs = Inputs()

    def work(self, restored: Restored | None) -> Report:
        """Run to the last step, or to a signal; saved then, as far as there is time."""
        first_step = self.full_step = self.kernel.step
        self.begun = self.saved_at = self.full_at = self._now()
        self.saved_step = None if restored is None else restored.step
        size, rate = 1, 0.0
        while self._goes_on():
            self.signals.told = False
            done, seconds = self._advance(self._next_steps(size))
            rate = done / seconds if seconds > 0 else rate
            size = _resized(size, done, seconds, self._slice_seconds())
            self.settle(wait=False)
            self._save_if_due(first_step)
            self._tell(rate)
        stopped = self.heard.stopped_by is not None and self.kernel.step < self.until
        if stopped:
            self._stop(restored)
        elif self.saved_step != self.kernel.step:
            self._save()
        self.settle(wait=True)
        self._tell(rate)
        self.means.finish()
        seconds = self._now() - self.begun
        report = Report(first_step, self.kernel.step, seconds, restored, tuple(self.saves))
        if stopped:
            newest = self.saves[-1] if self.saves else restored
            assert newest is not None  # _stop has saved, if nothing else was
            self.means.on_event(events.Stopped(newest.step, newest.name))
        else:
            self.means.on_event(events.Finished(report.step, seconds, len(self.saves)))
        return report

    def _goes_on(self) -> bool:
        self._listen()
        return self.kernel.step < self.until and self.heard.stopped_by is None

    def _listen(self) -> None:
        """Hear what has come in since, here or on any other rank."""
        signals, done = self.signals, self.flight is None or self.flight.saving.done()
        by, ago, asked = signals.stopped_by, signals.stopped_ago(), frozenset(signals.asked)
        self.heard = self.means.agree(Inputs(self.means.clock(), by, ago, asked, done))

    def _now(self) -> float:
        self._listen()
        return self.heard.now

    # --- steps -----------------------------------------------------------------------------------

    def _next_steps(self, size: int) -> int:
        step = self.kernel.step
        wanted = [self.means.when.next_step(step), self.until]
        return min(size, *(one - step for one in wanted if one is not None))

    def _slice_seconds(self) -> float:
        """How long a slice is to take: a signal waits for its end."""
        grace = self.means.grace
        patience = self.means.latency if grace is None else min(self.means.latency, grace / 2)
        return patience / _PART

    def _advance(self, steps: int) -> tuple[int, float]:
        """Do a slice of steps; say how many were done, and in how many seconds."""
        before, start = self.kernel.step, self.heard.now
        beside = self.flight is not None
        self.kernel.advance(steps)
        seconds, done = self._now() - start, self.kernel.step - before
        if done != steps and not (self.signals.told and 0 <= done < steps):
            raise InvalidKernel(
                f"advance({steps}) took step from {before} to {self.kernel.step}",
                where=f"{type(self.kernel).__qualname__}.advance",
                hint="add the number of steps done to `step`; they may be fewer only where "
                "safe_point() has said True",
            )
        self.costs.slice_done(done, seconds, beside=beside)
        return done, seconds

    # --- saves -----------------------------------------------------------------------------------

    def _save_if_due(self, first_step: int) -> None:
        now = self.heard.now
        moment = Moment(
            self.kernel.step,
            first_step if self.saved_step is None else self.saved_step,
            now - self.saved_at,
            now - self.begun,
            self.costs.spent,
            self.costs.cost,
            self.heard.asked,
        )
        due = self.means.when.due(moment)
        if due is Due.NOW or (due is Due.SOON and self.flight is None):
            try:
                self._save()
            except NotNow as error:  # it is still due after the next slice
                self._skip(error.what)
        elif due is Due.SOON and self.flight is not None:
            self._skip(f"the save of step {self.flight.step} is still under way")

    def _skip(self, why: str) -> None:
        """Tell that a save is not made, once until the next that is."""
        if not self.skipped:
            self.skipped = True
            self.means.on_event(events.Skipped(self.kernel.step, why))

    def _save(self, full: bool | None = None) -> None:
        """Begin a save, when the one before has ended; a full one if that is due, unless told."""
        begin, stalled = self._now(), self.stalled
        self.settle(wait=True)
        asked = self.heard.asked
        pruning = self.stalled - stalled  # has been counted
        full = self._full_is_due() if full is None else full
        saving = self.means.save(full)
        if full:
            self.full_step, self.full_at = self.kernel.step, begin
        self.signals.asked -= asked
        self.skipped = False
        self.saved_step, self.saved_at = self.kernel.step, self._now()
        stood = self.saved_at - begin - pruning
        begun = self.saved_at - saving.stall
        self.flight = _Flight(saving, self.kernel.step, begun, stood, self._kind(full))
        self.stalled += stood

    def _full_is_due(self) -> bool:
        now = self.heard.now
        moment = Moment(self.kernel.step, self.full_step, now - self.full_at, now - self.begun)
        return self.means.full is not None and self.means.full.due(moment) > Due.NO

    def _kind(self, full: bool) -> str:
        return "delta" if self.means.delta and not full else "full"

    def settle(self, wait: bool) -> None:
        """Note a save that has ended, and prune."""
        flight = self.flight
        if flight is None or not (wait or self.heard.done):
            return
        self.flight = None
        saved, begin = flight.saving.result(), self._now()
        self.saves.append(saved)
        gone = self.means.prune(saved)
        spent = self._now() - begin
        self.stalled += spent
        kind = "delta" if is_delta(saved.name) else "full"
        if is_sharded(saved.name):
            kind = flight.kind  # as far as the files of its ranks are
        self.costs.save_done(kind, seconds=saved.seconds, stood=flight.stood + spent)
        self.means.on_event(
            events.Saved(
                saved.step, saved.name, kind, saved.bytes, self.means.dirty(saved), saved.seconds,
                saved.stall, max(flight.stood - saved.stall, 0.0), self.costs.slowdown,
            )
        )  # fmt: skip
        if gone:
            self.means.on_event(events.Pruned(gone))

    def wait(self) -> None:
        """Wait for the save under way, without a word to other ranks, which may be elsewhere."""
        if self.flight is not None:
            self.flight.saving.result()

    def _stop(self, restored: Restored | None) -> None:
        """Save what can be saved in the time that the signal has left."""
        now, durations = self.heard.now, dict[str, float | None]()
        left = None
        if self.means.grace is not None:
            left = self.means.grace - self.heard.stopped_ago
        for kind in dict.fromkeys([self._kind(self._full_is_due()), self._kind(False)]):
            durations[kind] = self.costs.predicted(kind)
        flush = None if self.flight is None else self._flush_seconds(self.flight, now)
        if self.saved_step == self.kernel.step:
            durations = {}  # it is saved, or being saved
        elif flush is None and not self.saves and restored is None:
            left = None  # nothing is saved yet: there is nothing to lose
        chosen = plan(left, durations, flush)
        number = self.heard.stopped_by or 0
        self.means.on_event(events.Stopping(self.kernel.step, number, chosen))
        if chosen in durations:
            self._save(full=self.means.delta and chosen == "full")

    def _flush_seconds(self, flight: _Flight, now: float) -> float:
        predicted = self.costs.predicted(flight.kind) or 0.0
        return 0.0 if self.heard.done else max(predicted - (now - flight.begun), 0.0)

    def _tell(self, rate: float) -> None:
        seconds = max(self.heard.now - self.begun, 1e-9)
        latest = self.saves[-1] if self.saves else None
        share = self.stalled / seconds
        self.means.on_progress(Progress(self.kernel.step, self.until, rate, latest, share))


def _resized(size: int, steps: int, seconds: float, goal: float) -> int:
    """Choose the next slice so that it takes about `goal` seconds, growing at most twofold."""
    if seconds <= 0 or not steps:
        return size if not steps else size * 2
    return max(1, min(int(steps * goal / seconds), max(size, steps) * 2))
