"""The main job: resume, advance, save when due, stop on a signal with everything saved."""

import os
import signal
import time
from collections.abc import Collection
from contextlib import ExitStack, suppress
from functools import partial
from typing import TypeVar

from checkpointable import archive, events
from checkpointable.archive import AnyKeep, last, prune
from checkpointable.checkpointer import Checkpointer, Restored, Saved, Saving
from checkpointable.distributed import (
    Coordinator,
    SingleProcess,
    allreduce,
    leave_together,
    on_all,
    on_root,
)
from checkpointable.errors import CheckpointableError, in_one_line
from checkpointable.events import Event
from checkpointable.protocol import SteppableKernel, check_health, check_kernel, validate
from checkpointable.runner.exit_codes import EX_PREEMPTED
from checkpointable.runner.link import link as link_to_supervisor
from checkpointable.runner.link import no_link
from checkpointable.runner.loop import Loop, Means, OnProgress, Progress, Report, merged
from checkpointable.runner.signals import Signals
from checkpointable.runner.when import When, every
from checkpointable.sinks import OnEvent, to_file, to_log
from checkpointable.stores import LocalStore, Store, Tiers
from checkpointable.threads import complete

__all__ = ["EX_PREEMPTED", "Preempted", "Progress", "Report", "run"]

C = TypeVar("C")


STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""What stops a run unless told: Kubernetes and Slurm send the first, people the second, and Slurm
the third if it is asked to, some time before."""


class Preempted(SystemExit):
    """A signal ended the run, with the state saved; `report` says how far it came.

    As a `SystemExit` it ends the program with code 75 unless it is caught.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(EX_PREEMPTED)
        self.report = report


def run(
    kernel: SteppableKernel[C],
    store: str | os.PathLike[str] | Store,
    until: int,
    *,
    save: When | None = None,
    keep: AnyKeep | None = None,
    cls: type[C] | None = None,
    key: bytes | None = None,
    delta: bool = False,
    full: When | None = None,
    signals: Collection[int] = STOP_SIGNALS,
    latency: float = 1.0,
    grace: float | None = None,
    on_event: OnEvent | None = None,
    on_progress: OnProgress | None = None,
    coordinator: Coordinator | None = None,
) -> Report:
    """Run the kernel up to step `until`, saved on the way, resumed if `store` holds anything.

    Saves when `save` says (default: every 60 seconds), and at the end; the kernel goes on as soon
    as it is copied. A save that is due by time is put off while one is under way, one that is due
    by steps waits for it; if the kernel cannot be checkpointed then, it is tried again after the
    next slice of steps. Keeps what `keep` says (default: the last 3). With a `key` it signs them,
    and believes no others. With `delta` a save stores only what has changed, unless `full` says
    that it is time for a full one, or the deltas have become as large.

    On one of `signals` it finishes the slice of steps in hand, saves once more and raises
    `Preempted`, a `SystemExit` of code 75; a SIGINT after that interrupts at once. Slices are made
    so long that a signal waits no more than `latency` seconds, one step at least; a kernel with
    long ones asks `safe_point()` within. If the process is killed `grace` seconds after the signal,
    say so: then it saves what is predicted to fit, else only waits for the save under way. Signals
    that `save` names do not stop it. Only one run at a time can use a store: `StoreLocked`.

    With a `coordinator` of many ranks, as `MpiCoordinator()`, each calls this with its own part of
    the kernel, and all do the same: as many steps at once, saves, and a stop if any has the signal.
    `on_event` and `on_progress` are called on rank 0 alone. If a rank fails, all have to be started
    again, as many or others: `mpiexec` and SLURM end a job that has lost one.
    Where `store` is a `Tiered`, `keep` is about its fast tier, and the run ends when the slow one
    has what it is to have, or fails, or the grace time ends.

    What happens is told to `on_event`, as `events` has it, to the log "checkpointable", and, if the
    store is a directory, or the fast tier is, to its `events.jsonl`.

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
    ranks = SingleProcess() if coordinator is None else coordinator
    link = link_to_supervisor() if ranks.rank == 0 else no_link()
    with link.failing():
        check_kernel(kernel, steppable=True)
        validate(kernel)
        if not latency > 0 or not (grace is None or grace > 0):
            raise ValueError(f"latency is {latency!r} and grace {grace!r}, but must be above 0")
        checkpointer = Checkpointer(kernel, store, cls=cls, key=key, delta=delta, coordinator=ranks)
    place, kept = checkpointer.store, last(3) if keep is None else keep
    tiers = place if isinstance(place, Tiers) else None
    nearest = place if tiers is None else tiers.fast
    sinks = [to_log(), *([to_file(nearest.path)] if isinstance(nearest, LocalStore) else [])]

    def tell(event: Event) -> None:
        for sink in [*sinks, *([on_event] if on_event else [])] if ranks.rank == 0 else []:
            sink(event)

    def tell_of_tiers() -> None:
        for event in [] if tiers is None else tiers.told():
            tell(event)

    def begin_save(full_one: bool) -> Saving:
        on_all(ranks, lambda: check_health(kernel))
        link.tell("saving", kernel.step)
        return complete(checkpointer.save(full=full_one))

    def prune_after(saved: Saved) -> tuple[str, ...]:
        return tuple(e.name for e in prune(place, kept, sound=saved.name))

    def tell_progress(progress: Progress) -> None:
        link.tell("step", progress.step)
        tell_of_tiers()
        if on_progress is not None and ranks.rank == 0:
            on_progress(progress)

    means = Means(
        save=begin_save,
        dirty=lambda saved: _dirty(place, saved),
        prune=lambda saved: on_root(ranks, lambda: prune_after(saved)),
        when=every(seconds=60) if save is None else save,
        full=full,
        delta=delta,
        latency=latency,
        grace=grace,
        clock=time.monotonic,
        on_event=tell,
        on_progress=tell_progress,
        finish=lambda: finish(),
        agree=lambda heard: allreduce(ranks, heard, merged),
    )
    caught = Signals(signals, means.when.signals, time.monotonic)
    caught.agree = lambda wanted: allreduce(ranks, wanted, any)
    loop = Loop(kernel, until, means, caught)

    def finish() -> None:
        """Wait for the slow tier, if there is one, as long as a signal leaves."""
        moved = 0

        def going_on(now_moved: int) -> bool:
            nonlocal moved
            if now_moved != moved:  # a sign of life for the supervisor
                moved = now_moved
                link.tell("saving", kernel.step)
            tell_of_tiers()
            return caught.stopped_by is None or grace is None or caught.stopped_ago() < grace

        if tiers is not None:
            tiers.flush(going_on=going_on)
            tell_of_tiers()
            if loop.saves and (gone := prune_after(loop.saves[-1])):  # what was to be copied yet
                tell(events.Pruned(gone))

    def settle() -> None:
        loop.settle(wait=True) if ranks.size == 1 else loop.wait()

    with leave_together(ranks), link.failing(), ExitStack() as held, caught.taken():
        on_root(ranks, lambda: held.enter_context(place.lock()))
        begin = means.clock()
        restored = complete(checkpointer.restore_latest(partial(link.tell, "reading")))
        tell_of_tiers()
        link.tell("restored", kernel.step)
        for event in _begun(kernel.step, until, restored, means.clock() - begin):
            tell(event)
        try:
            report = loop.work(restored)
        except Exception:
            with suppress(Exception):  # the kernel has failed: what was begun is not given up
                settle()
                finish()
            raise
        finally:
            with suppress(Exception):  # interrupted, perhaps
                settle()
            if tiers is not None:
                tiers.close(0)
        ranks.barrier()  # one that ends with a code other than 0 ends the others
        if report.step < until:
            raise Preempted(report)
        link.ended(0, "done")
    return report


def _begun(step: int, until: int, restored: Restored | None, seconds: float) -> list[Event]:
    if restored is None:
        return [events.Started(step, until)]
    passed = restored.skipped
    return [
        *(events.FellBack(at.step, at.name, in_one_line(why, at.name)) for at, why in passed),
        events.Restored(step, until, restored.name, seconds),
    ]


def _dirty(store: Store, saved: Saved) -> float:
    """The share of a full checkpoint that a save has written."""
    if not archive.is_delta(saved.name):
        return 1.0
    try:
        return saved.bytes / archive.size_of_full(archive.read_header(store, saved.name))
    except CheckpointableError:  # the next save says so
        return 1.0
