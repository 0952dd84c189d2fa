"""`run`, the main job: resume, advance, save when due, and stop on a signal with all saved."""

import os
import signal
import time
from collections.abc import Collection
from typing import TypeVar

from checkpointable.archive import AnyKeep, last
from checkpointable.checkpointer import Checkpointer
from checkpointable.distributed import Coordinator, SingleProcess, allreduce
from checkpointable.protocol import SteppableKernel, check_kernel, validate
from checkpointable.runner.job import Job, sinks_of
from checkpointable.runner.link import link as link_to_supervisor
from checkpointable.runner.link import no_link
from checkpointable.runner.loop import Loop, OnProgress, Report
from checkpointable.runner.signals import Signals
from checkpointable.runner.when import When, every
from checkpointable.sinks import OnEvent
from checkpointable.stores import Store

C = TypeVar("C")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""What stops a run by default: Kubernetes and Slurm send the first, people the second, and Slurm
the third some time before, if it is asked to."""


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
    """Run the kernel up to step `until`; resume from `store` if it holds a checkpoint.

    A checkpoint is saved when `save` says so (default: every 60 seconds) and at the end; the kernel
    continues as soon as it is copied. A save that is due by time is put off while another is under
    way; one that is due by steps waits for it. If the kernel cannot be checkpointed at the moment,
    the save is tried again after the next slice of steps. `keep` says which checkpoints stay
    (default: the last 3). With a `key` they are signed, and only those signed with it are accepted.
    With `delta` a save stores only what has changed, unless `full` says that a full one is due, or
    the deltas have become as large as a full one.

    On one of `signals` the run finishes its slice of steps, saves once more and raises `Preempted`,
    a `SystemExit` of code 75; a SIGINT after that interrupts at once. Slices are as long as lets a
    signal wait for at most `latency` seconds, but at least one step; a kernel with long steps calls
    `safe_point()` within them. If the process is killed `grace` seconds after the signal, pass
    that: the run then saves only what is predicted to fit, or waits for the save under way. Signals
    that `save` handles do not stop the run. One run at a time can use a store: `StoreLocked`.

    With a `coordinator` of many ranks, such as `MpiCoordinator()`, every rank calls this with its
    own part of the kernel. All take the same steps and saves, and stop if any gets a signal.
    `on_event` and `on_progress` are called on rank 0 only. If a rank fails, start all of them
    again, as many or others: `mpiexec` and Slurm end a job that has lost a rank.
    If `store` is a `Tiered`, `keep` is for its fast tier, and the run ends when the slow tier has
    all that it must have, or fails, or the grace time ends.

    Events go to `on_event`, to the log "checkpointable", and, if the store or its fast tier is a
    directory, to its `events.jsonl`.

    Raises what the kernel raises; `Unhealthy` if its `health_check` fails before a save;
    `InvalidKernel` if it is not a steppable kernel; and what `Checkpointer` raises. Checkpoints
    that were saved before stay.

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
    when = every(seconds=60) if save is None else save
    received = Signals(
        signals, when.signals, time.monotonic, lambda pending: allreduce(ranks, pending, any)
    )
    sinks = sinks_of(checkpointer.store, on_event)
    kept = last(3) if keep is None else keep
    job = Job(kernel, checkpointer, kept, received, link, grace, on_progress, sinks)
    return job.run(Loop(kernel, until, job, received, when, full, delta, latency, grace))
