"""A machine that is simulated: its clock goes on only as work is done, and hours pass at once.

A `World` runs the loop of `checkpointable.run` on a kernel whose steps take a given time, slower
while a save is in flight; a save takes a stall and some time until it is durable. It may be
signalled at a moment, or fail at random and be started again from what was durable.
"""

import signal
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from attrs import define, field

from checkpointable import Restored, Saved
from checkpointable.archive import name_of
from checkpointable.events import Event
from checkpointable.runner.loop import Inputs, Loop, Progress, Report
from checkpointable.runner.signals import Signals
from checkpointable.runner.when import When


class Failed(Exception):
    """The machine went down."""


@define
class Clock:
    """Seconds; at the time of the alarm it rings, in the middle of whatever is going on."""

    now: float = 0.0
    alarm: float = float("inf")
    ring: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.now

    def go_on(self, seconds: float) -> None:
        end = self.now + seconds
        if self.now <= self.alarm <= end:
            self.now, self.alarm = self.alarm, float("inf")
            self.ring()
        self.now = max(self.now, end)


@define
class Saving:
    """What a save gives, as `checkpointable.Saving`."""

    clock: Clock
    saved: Saved
    stall: float
    durable_at: float

    def done(self) -> bool:
        return self.clock.now >= self.durable_at

    def result(self) -> Saved:
        self.clock.go_on(max(self.durable_at - self.clock.now, 0.0))
        return self.saved


@define
class World:
    """What a run takes there, in seconds; `full_takes` gives what each save takes to be durable."""

    step_seconds: float = 0.01
    stall: float = 0.1
    slowdown: float = 0.0
    full_takes: Callable[[], float] = lambda: 1.0
    delta_takes: Callable[[], float] = lambda: 0.1
    restore: float = 0.0
    clock: Clock = field(factory=Clock)
    step: int = 0
    flight: Saving | None = None
    durable: list[Saving] = field(factory=list)
    events: list[Event] = field(factory=list)

    def advance(self, steps: int) -> None:
        work = steps * self.step_seconds
        if self.flight is not None:
            beside = max(self.flight.durable_at - self.clock.now, 0.0)
            done = min(beside * (1 - self.slowdown), work)
            self.clock.go_on(done / (1 - self.slowdown))
            work -= done
        self.clock.go_on(work)
        self.step += steps

    def save(self, full: bool, delta: bool) -> Any:
        self.clock.go_on(self.stall)
        kind = delta and not full and bool(self.durable)
        takes = self.delta_takes() if kind else self.full_takes()
        saved = Saved(self.step, name_of(self.step, delta=kind), 1, takes + self.stall, self.stall)
        self.flight = Saving(self.clock, saved, self.stall, self.clock.now + takes)
        self.durable.append(self.flight)
        return self.flight

    def run(
        self,
        until: int,
        when: When,
        *,
        latency: float = 1.0,
        grace: float | None = None,
        delta: bool = False,
        signal_at: float | None = None,
        full: When | None = None,
    ) -> Report:
        """One run, to its end or to the signal."""
        signals = Signals([signal.SIGTERM], when.signals, self.clock)
        actions = _Actions(self, delta)
        if signal_at is not None:
            self.clock.alarm = signal_at
            self.clock.ring = lambda: signals.receive(signal.SIGTERM)
        kernel: Any = self
        restored = None
        if self.durable:
            saved = self.durable[-1].saved
            restored = Restored(saved.step, saved.name)
        loop = Loop(kernel, until, actions, signals, when, full, delta, latency, grace)
        return loop.work(restored)

    def run_through_failures(self, until: int, when: When, mtbf: float, seed: int) -> None:
        """Run to the end, started again after each failure: they come at random, `mtbf` apart."""
        moments = _failures(mtbf, seed)

        def fail() -> None:
            raise Failed

        moment = next(moments)
        while True:
            self.flight = None
            try:
                while moment <= self.clock.now:  # another one, while it was down
                    moment = next(moments)
                self.clock.alarm, self.clock.ring = moment, fail
                self.clock.go_on(self.restore if self.durable else 0.0)
                self.run(until, when, latency=20.0)
            except Failed:
                moment = next(moments)
                self.durable = [s for s in self.durable[-2:] if s.durable_at <= self.clock.now]
                self.step = self.durable[-1].saved.step if self.durable else 0
            else:
                return


@define
class _Actions:
    """What a loop can do there."""

    world: World
    delta: bool

    def now(self) -> float:
        return self.world.clock()

    def agree(self, inputs: Inputs) -> Inputs:
        return inputs

    def save(self, *, full: bool) -> Any:
        return self.world.save(full, self.delta)

    def dirty(self, saved: Saved) -> float:
        return 1.0

    def prune(self, saved: Saved) -> tuple[str, ...]:
        return ()

    def emit(self, event: Event) -> None:
        self.world.events.append(event)

    def progress(self, progress: Progress) -> None:
        pass

    def finish(self, newest: Saved | None) -> None:
        pass


def _failures(mtbf: float, seed: int) -> Iterator[float]:
    chance, moment = Random(seed), 0.0
    while True:
        moment += chance.expovariate(1 / mtbf)
        yield moment
