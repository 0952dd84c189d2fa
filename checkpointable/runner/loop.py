"""The loop of a run: advance, save when due, stop at a safe point.

It knows neither the store nor how a kernel is copied, and reads no clock: all of that are its
`Actions`. So its tests simulate hours, failures and signals without waiting.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from attrs import define, evolve, field, frozen

from checkpointable import events
from checkpointable.archive import is_delta, is_sharded
from checkpointable.checkpointer import Restored, Saved, Saving
from checkpointable.errors import InvalidKernel, NotNow
from checkpointable.events import Event
from checkpointable.protocol import SteppableKernel
from checkpointable.runner.costs import Costs, plan
from checkpointable.runner.signals import Signals
from checkpointable.runner.when import Due, Moment, When

_PART = 4  # a slice takes this part of the latency, since the steps may become slower


@frozen
class Progress:
    """How far a run has come, passed to `on_progress` after each slice of steps.

    `rate` is in steps per second, measured over the last slice; `stall_share` is the share of the
    time so far in which the kernel stood still to be saved.
    """

    step: int
    until: int
    rate: float
    saved: Saved | None
    stall_share: float


@frozen
class Report:
    """What a run did: `first_step` is where it began, `restored` what it resumed from."""

    first_step: int
    step: int
    seconds: float
    restored: Restored | None
    saves: tuple[Saved, ...]


OnProgress = Callable[[Progress], object]
"""A callback for the progress of a run."""


@frozen
class Inputs:
    """What came from outside, to one rank or to any: all ranks agree on it.

    The time, the signal that stops the run and how many seconds ago it came, the signals that
    request a save, and whether the save under way has ended.
    """

    now: float = 0.0
    stopped_by: int | None = None
    stopped_ago: float = 0.0
    requested: frozenset[int] = frozenset()
    done: bool = True


def merged(inputs: Sequence[Inputs]) -> Inputs:
    """The inputs of all ranks as one, by the first one's clock; a save has ended if all have.

    >>> merged([Inputs(7.0), Inputs(9.0, stopped_by=15, stopped_ago=0.5), Inputs(done=False)])
    Inputs(now=7.0, stopped_by=15, stopped_ago=0.5, requested=frozenset(), done=False)
    """
    first = max(inputs, key=lambda one: (one.stopped_by is not None, one.stopped_ago))
    requested = frozenset[int]().union(*(one.requested for one in inputs))
    done = all(one.done for one in inputs)
    return evolve(first, now=inputs[0].now, requested=requested, done=done)


class Actions(Protocol):
    """What the loop can do, apart from advancing the kernel; `job.Job` does it for real."""

    def now(self) -> float:
        """Return the time, in seconds."""
        ...

    def agree(self, inputs: Inputs) -> Inputs:
        """Merge the inputs of all ranks; the result is the same on all, so all decide the same."""
        ...

    def save(self, *, full: bool) -> Saving:
        """Begin a save, and return when the kernel may continue; the result is the same on all."""
        ...

    def dirty(self, saved: Saved) -> float:
        """Return the share of a full checkpoint that a save has written."""
        ...

    def prune(self, saved: Saved) -> tuple[str, ...]:
        """Delete what is not kept, now that `saved` is durable, and return the names."""
        ...

    def emit(self, event: Event) -> None:
        """Report an event."""
        ...

    def progress(self, progress: Progress) -> None:
        """Report how far the run has come."""
        ...

    def finish(self, newest: Saved | None) -> None:
        """Wait, at the end, until everything saved is everywhere it belongs."""
        ...


@frozen
class _Flight:
    """A save under way, and what its result does not hold."""

    saving: Saving
    step: int
    begun: float
    stalled: float
    kind: str


@define
class Loop:
    """One run, up to step `until`.

    Saves are due by `when`; with `delta` they are deltas, except those that are due by `full`.
    `latency` and `grace` are as for `run`.
    """

    kernel: SteppableKernel[Any]
    until: int
    actions: Actions
    signals: Signals
    when: When
    full: When | None
    delta: bool
    latency: float
    grace: float | None
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
    inputs: Inputs = Inputs()

    @property
    def newest(self) -> Saved | None:
        """The newest save of this run that is durable."""
        return self.saves[-1] if self.saves else None

    def work(self, restored: Restored | None) -> Report:
        """Run to the last step or to a signal, and save then, if there is time."""
        first_step = self.full_step = self.kernel.step
        self.begun = self.saved_at = self.full_at = self._now()
        self.saved_step = None if restored is None else restored.step
        size, rate = 1, 0.0
        while self._continues():
            self.signals.announced = False
            done, seconds = self._advance(self._next_steps(size))
            rate = done / seconds if seconds > 0 else rate
            size = _resized(size, done, seconds, self._slice_seconds())
            self.settle(wait=False)
            self._save_if_due(first_step)
            self._progress(rate)
        stopped = self.inputs.stopped_by is not None and self.kernel.step < self.until
        if stopped:
            self._stop(restored)
        elif self.saved_step != self.kernel.step:
            self._save()
        self.settle(wait=True)
        self._progress(rate)
        self.actions.finish(self.newest)
        seconds = self._now() - self.begun
        report = Report(first_step, self.kernel.step, seconds, restored, tuple(self.saves))
        if stopped:
            newest = self.newest or restored
            assert newest is not None  # _stop has saved, if nothing else was
            self.actions.emit(events.Stopped(newest.step, newest.name))
        else:
            self.actions.emit(events.Finished(report.step, seconds, len(self.saves)))
        return report

    def _continues(self) -> bool:
        self._listen()
        return self.kernel.step < self.until and self.inputs.stopped_by is None

    def _listen(self) -> None:
        """Take in what has come since, to this rank or any other."""
        signals, done = self.signals, self.flight is None or self.flight.saving.done()
        by, ago, requested = signals.stopped_by, signals.stopped_ago(), frozenset(signals.requested)
        self.inputs = self.actions.agree(Inputs(self.actions.now(), by, ago, requested, done))

    def _now(self) -> float:
        self._listen()
        return self.inputs.now

    # --- steps -----------------------------------------------------------------------------------

    def _next_steps(self, size: int) -> int:
        step = self.kernel.step
        stops = [self.when.next_step(step), self.until]
        return min(size, *(stop - step for stop in stops if stop is not None))

    def _slice_seconds(self) -> float:
        """How long a slice may take: a signal waits for its end."""
        grace = self.grace
        return (self.latency if grace is None else min(self.latency, grace / 2)) / _PART

    def _advance(self, steps: int) -> tuple[int, float]:
        """Do a slice of steps; return how many were done, and in how many seconds."""
        before, start = self.kernel.step, self.inputs.now
        overlapped = self.flight is not None
        self.kernel.advance(steps)
        seconds, done = self._now() - start, self.kernel.step - before
        if done != steps and not (self.signals.announced and 0 <= done < steps):
            raise InvalidKernel(
                f"advance({steps}) took step from {before} to {self.kernel.step}",
                where=f"{type(self.kernel).__qualname__}.advance",
                hint="add the number of steps done to `step`; they may be fewer only where "
                "safe_point() has returned True",
            )
        self.costs.slice_done(done, seconds, overlapped=overlapped)
        return done, seconds

    # --- saves -----------------------------------------------------------------------------------

    def _save_if_due(self, first_step: int) -> None:
        now = self.inputs.now
        moment = Moment(
            self.kernel.step,
            first_step if self.saved_step is None else self.saved_step,
            now - self.saved_at,
            now - self.begun,
            self.costs.spent,
            self.costs.cost,
            self.inputs.requested,
        )
        due = self.when.due(moment)
        if due is Due.NOW or (due is Due.SOON and self.flight is None):
            try:
                self._save()
            except NotNow as error:  # it is still due after the next slice
                self._skip(error.what)
        elif due is Due.SOON and self.flight is not None:
            self._skip(f"the save of step {self.flight.step} is still under way")

    def _skip(self, why: str) -> None:
        """Report that a save is not made, once until the next one that is."""
        if not self.skipped:
            self.skipped = True
            self.actions.emit(events.Skipped(self.kernel.step, why))

    def _save(self, *, full: bool | None = None) -> None:
        """Begin a save when the previous one has ended; without `full`, a full one if due."""
        begin, stalled = self._now(), self.stalled
        self.settle(wait=True)
        requested = self.inputs.requested
        pruning = self.stalled - stalled  # counted already
        full = self._full_is_due() if full is None else full
        saving = self.actions.save(full=full)
        if full:
            self.full_step, self.full_at = self.kernel.step, begin
        self.signals.requested -= requested
        self.skipped = False
        self.saved_step, self.saved_at = self.kernel.step, self._now()
        standing = self.saved_at - begin - pruning
        begun = self.saved_at - saving.stall
        self.flight = _Flight(saving, self.kernel.step, begun, standing, self._kind(full=full))
        self.stalled += standing

    def _full_is_due(self) -> bool:
        now = self.inputs.now
        moment = Moment(self.kernel.step, self.full_step, now - self.full_at, now - self.begun)
        return self.full is not None and self.full.due(moment) > Due.NO

    def _kind(self, *, full: bool) -> str:
        return "delta" if self.delta and not full else "full"

    def settle(self, *, wait: bool) -> None:
        """Record the save under way if it has ended, and prune; with `wait`, when it has."""
        flight = self.flight
        if flight is None or not (wait or self.inputs.done):
            return
        self.flight = None
        saved, begin = flight.saving.result(), self._now()
        self.saves.append(saved)
        pruned = self.actions.prune(saved)
        spent = self._now() - begin
        self.stalled += spent
        kind = "delta" if is_delta(saved.name) else "full"
        if is_sharded(saved.name):
            kind = flight.kind  # of its ranks' files
        self.costs.save_done(kind, seconds=saved.seconds, stalled=flight.stalled + spent)
        self.actions.emit(
            events.Saved(
                saved.step, saved.name, kind, saved.bytes, self.actions.dirty(saved), saved.seconds,
                saved.stall, max(flight.stalled - saved.stall, 0.0), self.costs.slowdown,
            )
        )  # fmt: skip
        if pruned:
            self.actions.emit(events.Pruned(pruned))

    def wait(self) -> None:
        """Wait for the save under way, with no exchange with the other ranks."""
        if self.flight is not None:
            self.flight.saving.result()

    def _stop(self, restored: Restored | None) -> None:
        """Save what fits into the time that the signal leaves."""
        now, durations = self.inputs.now, dict[str, float | None]()
        left = None
        if self.grace is not None:
            left = self.grace - self.inputs.stopped_ago
        for kind in dict.fromkeys([self._kind(full=self._full_is_due()), self._kind(full=False)]):
            durations[kind] = self.costs.predicted(kind)
        flush = None if self.flight is None else self._flush_seconds(self.flight, now)
        if self.saved_step == self.kernel.step:
            durations = {}  # it is saved, or being saved
        elif flush is None and not self.saves and restored is None:
            left = None  # nothing is saved yet, so nothing can be lost by trying
        chosen = plan(left, durations, flush)
        number = self.inputs.stopped_by or 0
        self.actions.emit(events.Stopping(self.kernel.step, number, chosen))
        if chosen in durations:
            self._save(full=self.delta and chosen == "full")

    def _flush_seconds(self, flight: _Flight, now: float) -> float:
        predicted = self.costs.predicted(flight.kind) or 0.0
        return 0.0 if self.inputs.done else max(predicted - (now - flight.begun), 0.0)

    def _progress(self, rate: float) -> None:
        seconds = max(self.inputs.now - self.begun, 1e-9)
        share = self.stalled / seconds
        self.actions.progress(Progress(self.kernel.step, self.until, rate, self.newest, share))


def _resized(size: int, steps: int, seconds: float, goal: float) -> int:
    """Choose the next slice so that it takes about `goal` seconds, growing at most twofold."""
    if seconds <= 0 or not steps:
        return size if not steps else size * 2
    return max(1, min(int(steps * goal / seconds), max(size, steps) * 2))
