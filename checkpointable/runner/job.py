"""One run of a kernel in its surroundings: its store, ranks, supervisor, events and callbacks."""

import time
from contextlib import ExitStack, suppress
from functools import cached_property, partial
from typing import Any

from attrs import define, field

from checkpointable import archive, events
from checkpointable.archive import AnyKeep
from checkpointable.checkpointer import Checkpointer, Restored, Saved, Saving
from checkpointable.distributed import Coordinator, allreduce, leave_together, on_all, on_root
from checkpointable.errors import CheckpointableError, in_one_line
from checkpointable.events import Event
from checkpointable.protocol import SteppableKernel, check_health
from checkpointable.runner.exit_codes import EX_PREEMPTED
from checkpointable.runner.link import Link
from checkpointable.runner.loop import Inputs, Loop, OnProgress, Progress, Report, merged
from checkpointable.runner.signals import Signals
from checkpointable.sinks import OnEvent, to_file, to_log
from checkpointable.stores import LocalStore, Store, Tiers
from checkpointable.threads import complete


class Preempted(SystemExit):
    """A signal ended the run, and the state is saved; `report` says how far the run came.

    As a `SystemExit` it ends the program with code 75 unless it is caught.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(EX_PREEMPTED)
        self.report = report


@define
class Job:
    """What a `Loop` acts on: implements its `Actions` with a checkpointer and a store."""

    kernel: SteppableKernel[Any]
    checkpointer: Checkpointer[Any]
    keep: AnyKeep
    signals: Signals
    link: Link
    grace: float | None
    callback: OnProgress | None
    sinks: list[OnEvent]
    _flushed: int = field(default=0, init=False)

    def run(self, loop: Loop) -> Report:
        """Lock, restore, and work until the loop ends; raises `Preempted` if a signal ended it."""
        ranks, signals = self._ranks, self.signals
        with leave_together(ranks), self.link.failing(), ExitStack() as held, signals.installed():
            on_root(ranks, lambda: held.enter_context(self._store.lock()))
            restored = self._restore(loop.until)
            try:
                report = loop.work(restored)
            except Exception:
                with suppress(Exception):  # the kernel has failed: keep the save under way
                    self._settle(loop)
                    self.finish(loop.newest)
                raise
            finally:
                with suppress(Exception):  # perhaps interrupted
                    self._settle(loop)
                if self._tiers is not None:
                    self._tiers.close(0)
            ranks.barrier()  # a rank that ends with a code other than 0 ends the others
            if report.step < loop.until:
                raise Preempted(report)
            self.link.ended(0, "done")
        return report

    # --- what the loop calls ---------------------------------------------------------------------

    def now(self) -> float:
        """See `Actions`."""
        return time.monotonic()

    def agree(self, inputs: Inputs) -> Inputs:
        """See `Actions`."""
        return allreduce(self._ranks, inputs, merged)

    def save(self, *, full: bool) -> Saving:
        """See `Actions`."""
        on_all(self._ranks, lambda: check_health(self.kernel))
        self.link.send("saving", self.kernel.step)
        return complete(self.checkpointer.save(full=full))

    def dirty(self, saved: Saved) -> float:
        """See `Actions`."""
        if not archive.is_delta(saved.name):
            return 1.0
        try:
            header = archive.read_header(self._store, saved.name)
            return saved.bytes / archive.size_of_full(header)
        except CheckpointableError:  # the next save reports it
            return 1.0

    def prune(self, saved: Saved) -> tuple[str, ...]:
        """See `Actions`."""
        return on_root(self._ranks, lambda: self._prune(saved))

    def emit(self, event: Event) -> None:
        """See `Actions`."""
        if self._ranks.rank == 0:
            for sink in self.sinks:
                sink(event)

    def progress(self, progress: Progress) -> None:
        """See `Actions`."""
        self.link.send("step", progress.step)
        self._emit_of_tiers()
        if self.callback is not None and self._ranks.rank == 0:
            self.callback(progress)

    def finish(self, newest: Saved | None) -> None:
        """See `Actions`."""
        if self._tiers is None:
            return
        self._tiers.flush(keep_waiting=self._flushing)
        self._emit_of_tiers()
        if newest is not None and (pruned := self._prune(newest)):  # they were still to be copied
            self.emit(events.Pruned(pruned))

    # ---------------------------------------------------------------------------------------------

    @property
    def _ranks(self) -> Coordinator:
        return self.checkpointer.coordinator

    @property
    def _store(self) -> Store:
        return self.checkpointer.store

    @cached_property
    def _tiers(self) -> Tiers | None:
        return self._store if isinstance(self._store, Tiers) else None

    def _restore(self, until: int) -> Restored | None:
        begin = self.now()
        restored = complete(self.checkpointer.restore_latest(partial(self.link.send, "reading")))
        self._emit_of_tiers()
        step = self.kernel.step
        self.link.send("restored", step)
        if restored is None:
            self.emit(events.Started(step, until))
            return None
        for entry, error in restored.skipped:
            why = in_one_line(error, entry.name)
            self.emit(events.FellBack(entry.step, entry.name, why))
        self.emit(events.Restored(step, until, restored.name, self.now() - begin))
        return restored

    def _settle(self, loop: Loop) -> None:
        """Wait for the save under way; with many ranks without an exchange that one may miss."""
        loop.settle(wait=True) if self._ranks.size == 1 else loop.wait()

    def _prune(self, saved: Saved) -> tuple[str, ...]:
        pruned = archive.prune(self._store, self.keep, valid=saved.name)
        return tuple(entry.name for entry in pruned)

    def _emit_of_tiers(self) -> None:
        for event in [] if self._tiers is None else self._tiers.drain_events():
            self.emit(event)

    def _flushing(self, copied: int) -> bool:
        """Whether to wait longer for the slow tier, whose count of bytes is `copied`."""
        if copied != self._flushed:  # shows the supervisor that the run is alive
            self._flushed = copied
            self.link.send("saving", self.kernel.step)
        self._emit_of_tiers()
        stopped = self.signals.stopped_by is not None
        return not stopped or self.grace is None or self.signals.stopped_ago() < self.grace


def sinks_of(store: Store, on_event: OnEvent | None) -> list[OnEvent]:
    """The sinks of a run: the log, `events.jsonl` in a directory, and the caller's."""
    near = store.fast if isinstance(store, Tiers) else store
    return [
        to_log(),
        *([to_file(near.path)] if isinstance(near, LocalStore) else []),
        *([on_event] if on_event else []),
    ]
