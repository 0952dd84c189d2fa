"""The main job: resume, advance, save when due, stop on a signal with everything saved."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any, TypeVar

from attrs import frozen

from checkpointable.checkpointer import Checkpointer, Restored, Saved, Saving, complete
from checkpointable.errors import InvalidKernel
from checkpointable.policy import Every, Keep, every, last
from checkpointable.protocol import SteppableKernel, check_kernel, validate
from checkpointable.retention import prune
from checkpointable.store import Store
from checkpointable.supervised import Link, check_health
from checkpointable.supervised import link as link_to_supervisor

C = TypeVar("C")

EX_PREEMPTED = 75
"""Exit code after SIGTERM or SIGINT: the state is saved, start me again (EX_TEMPFAIL)."""

_SLICE_SECONDS = 0.25  # a signal waits about this long for the end of a call of advance()


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


class Preempted(SystemExit):
    """A signal ended the run, with the state saved; `report` says how far it came.

    As a `SystemExit` it ends the program with code 75 unless it is caught.
    """

    def __init__(self, report: "Report") -> None:
        super().__init__(EX_PREEMPTED)
        self.report = report


@frozen
class Report:
    """What a run did. `first_step` is where it began, `restored` what it resumed from."""

    first_step: int
    step: int
    seconds: float
    restored: Restored | None
    saves: tuple[Saved, ...]


def run(
    kernel: SteppableKernel[C],
    store: str | os.PathLike[str] | Store,
    until: int,
    *,
    save: Every | None = None,
    keep: Keep | None = None,
    cls: type[C] | None = None,
    key: bytes | None = None,
    delta: bool = False,
    full: Every | None = None,
    on_restore: Callable[[Restored | None], object] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
) -> Report:
    """Run the kernel up to step `until`, saved on the way, resumed if `store` holds anything.

    Saves when `save` says (default: every 60 seconds), and at the end; the kernel goes on as soon
    as it is copied. A save that is due by time is put off while one is under way, one that is due
    by steps waits for it. Keeps what `keep` says (default: the last 3). With a `key` it signs them,
    and believes no others. With `delta` a save stores only what has changed, unless `full` says
    that it is time for a full one, or the deltas have become as large. On SIGTERM and SIGINT it
    finishes the slice of steps in hand (about a quarter of a second, one step at least), saves once
    more and raises `Preempted`, a `SystemExit` of code 75; a second SIGINT interrupts at once. Only
    one run at a time can use a store: `StoreLocked`.

    Raises what the kernel raises, `Unhealthy` if its `health_check` says so when it is to be saved,
    `InvalidKernel` if it is not a steppable kernel, and what `Checkpointer` raises; what was saved
    before stays.

    >>> import attrs
    >>> @attrs.frozen
    ... class CounterCheckpoint:
    ...     step: int
    >>> class Counter:
    ...     step = 0
    ...     def advance(self, steps: int) -> None:
    ...         self.step += steps
    ...     async def checkpoint(self) -> CounterCheckpoint:
    ...         return CounterCheckpoint(self.step)
    ...     async def restore(self, checkpoint: CounterCheckpoint) -> None:
    ...         self.step = checkpoint.step
    >>> run(Counter(), "memory://", until=1000).step
    1000
    """
    link = link_to_supervisor()
    with link.failing():
        check_kernel(kernel, steppable=True)
        validate(kernel)
        job = _Job(
            Checkpointer(kernel, store, cls=cls, key=key, delta=delta),
            kernel,
            until,
            every(seconds=60) if save is None else save,
            last(3) if keep is None else keep,
            on_progress or (lambda progress: None),
            full,
            link,
        )
    with link.failing(), job.checkpointer.store.lock(), _stop_signals(job):
        restored = complete(job.checkpointer.restore_latest(partial(link.tell, "reading")))
        link.tell("restored", kernel.step)
        if on_restore is not None:
            on_restore(restored)
        try:
            return job.work(restored)
        finally:
            if job.saving is not None:  # the kernel has failed: what was begun is not given up
                with suppress(Exception):
                    job.saving.result()


class _Job:
    """One run; its methods are the parts of the loop."""

    def __init__(
        self,
        checkpointer: Checkpointer[Any],
        kernel: SteppableKernel[Any],
        until: int,
        save: Every,
        keep: Keep,
        on_progress: Callable[[Progress], object],
        full: Every | None,
        link: Link,
    ) -> None:
        self.link = link
        self.checkpointer = checkpointer
        self.kernel = kernel
        self.until = until
        self.policy = save
        self.keep = keep
        self.on_progress = on_progress
        self.full = full
        self.full_step, self.full_at = kernel.step, time.monotonic()
        self.stop_signal: int | None = None
        self.saves: list[Saved] = []
        self.saving: Saving | None = None
        self.saved_step: int | None = None
        self.saved_at = time.monotonic()
        self.stalled = 0.0

    def work(self, restored: Restored | None) -> Report:
        begin, first_step = time.monotonic(), self.kernel.step
        if restored is not None:
            self.saved_step = self.full_step = restored.step
        size, rate = 1, 0.0
        while self.kernel.step < self.until and self.stop_signal is None:
            steps = self._next_steps(size)
            before, start = self.kernel.step, time.monotonic()
            self.kernel.advance(steps)
            seconds = time.monotonic() - start
            if self.kernel.step != before + steps:
                raise InvalidKernel(
                    f"advance({steps}) took step from {before} to {self.kernel.step}",
                    where=f"{type(self.kernel).__qualname__}.advance",
                    hint="add the number of steps done to `step`",
                )
            rate = steps / seconds if seconds > 0 else rate
            size = _resized(size, steps, seconds)
            saved_step = first_step if self.saved_step is None else self.saved_step
            since = time.monotonic() - self.saved_at
            self._settle(wait=False)
            # Due by time it is put off while one is under way; by steps it waits.
            possible = self.saving is None or self.policy.steps is not None
            if possible and self.policy.due(self.kernel.step, saved_step, since):
                self._save()
            self._tell(rate, begin)
        if self.saved_step != self.kernel.step:
            self._save()
        self._settle(wait=True)
        self._tell(rate, begin)
        seconds = time.monotonic() - begin
        report = Report(first_step, self.kernel.step, seconds, restored, tuple(self.saves))
        if self.stop_signal is not None and self.kernel.step < self.until:
            raise Preempted(report)
        self.link.ended(0, "done")
        return report

    def _next_steps(self, size: int) -> int:
        left = self.policy.steps_left(self.kernel.step)
        return min(size, self.until - self.kernel.step, *([] if left is None else [left]))

    def _save(self) -> None:
        """Begin a save, when the one before has ended; never one of a state that is not sound."""
        check_health(self.kernel)
        self.link.tell("saving", self.kernel.step)
        self._settle(wait=True)
        begin, step = time.monotonic(), self.kernel.step
        due = self.full is not None and self.full.due(step, self.full_step, begin - self.full_at)
        if due:
            self.full_step, self.full_at = step, begin
        self.saving = complete(self.checkpointer.save(full=due))
        self.saved_step, self.saved_at = self.kernel.step, time.monotonic()
        self.stalled += self.saved_at - begin

    def _settle(self, wait: bool) -> None:
        """Note a save that has ended, and prune."""
        if self.saving is not None and (wait or self.saving.done()):
            begin = time.monotonic()
            saved, self.saving = self.saving.result(), None
            self.saves.append(saved)
            prune(self.checkpointer.store, self.keep, sound=saved.name)
            self.stalled += time.monotonic() - begin

    def _tell(self, rate: float, begin: float) -> None:
        self.link.tell("step", self.kernel.step)
        seconds = max(time.monotonic() - begin, 1e-9)
        latest = self.saves[-1] if self.saves else None
        share = self.stalled / seconds
        self.on_progress(Progress(self.kernel.step, self.until, rate, latest, share))


def _resized(size: int, steps: int, seconds: float) -> int:
    """Choose the next slice so that it takes about `_SLICE_SECONDS`, growing at most twofold."""
    if seconds <= 0:
        return size * 2
    fitting = int(steps * _SLICE_SECONDS / seconds)
    return max(1, min(fitting, max(size, steps) * 2))


@contextmanager
def _stop_signals(job: _Job) -> Iterator[None]:
    """Let SIGTERM and SIGINT set a flag; a second SIGINT interrupts as usual."""
    before: dict[int, Any] = {}

    def on_signal(number: int, frame: FrameType | None) -> None:
        if job.stop_signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        job.stop_signal = number

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, on_signal)
    except ValueError:  # not the main thread: the application handles signals
        pass
    try:
        yield
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
