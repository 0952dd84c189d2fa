"""`supervise`: the main job in a child process, which is started again when it fails.

A process whose CUDA context is broken by an illegal access, or that hangs, cannot recover by
itself. This one imports neither Numba nor the kernel: it starts, watches and ends a program that
calls `run`.
"""

import os
import random
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

try:
    import psutil  # noqa: F401
except ImportError as error:
    hint = "pip install 'checkpointable[supervise]'"
    raise ImportError(f"supervision needs {error.name}: {hint}") from error

from attrs import frozen

from checkpointable.archive import entries, step_of
from checkpointable.errors import StoreError
from checkpointable.events import Event, GaveUp, Quarantined, Restarted, Stalled
from checkpointable.runner import ENDED, EX_CONFIG, EX_GAVE_UP, EX_PREEMPTED, EX_USAGE, handled
from checkpointable.sinks import to_file
from checkpointable.stores import LocalStore, Renames, Store, open_store
from checkpointable.supervisor.child import Child, alone, end_orphan
from checkpointable.supervisor.outcome import Attempt, Outcome, outcome_of, read_ended

Backoff: TypeAlias = Callable[[int], float]
"""Seconds to wait before the next attempt, given how many failed in a row, from 1."""

_TICK_SECONDS = 0.2  # between two checks for signals and silence
_SLICES = 64
_END = ".safetensors"


@frozen
class Limits:
    """How many seconds a child may take for a slice of steps before it counts as hung.

    `start` until its first step, since it imports, compiles and restores; and for a save. After
    that `factor` times its longest recent slice, but not less than `minimum`, which is also what
    it has to exit after a failure. A child that must stop has `grace` to save before it is killed.
    """

    start: float = 300.0
    factor: float = 10.0
    minimum: float = 30.0
    grace: float = 25.0


def exponential(first: float = 1.0, most: float = 60.0, jitter: float = 1.0) -> Backoff:
    """Wait `first` seconds, then twice as long after each failure, up to `most`.

    Up to `jitter` seconds are added at random, so that runs that failed together do not start
    together.

    >>> backoff = exponential(first=2.0, most=10.0, jitter=0.0)
    >>> [backoff(failures) for failures in (1, 2, 3, 4)]
    [2.0, 4.0, 8.0, 10.0]
    """

    def backoff(failures: int) -> float:
        return min(first * 2.0 ** min(failures - 1, 64) + random.uniform(0, jitter), most)

    return backoff


def supervise(
    command: Sequence[str],
    store: str | os.PathLike[str] | Store,
    *,
    directory: str | os.PathLike[str] | None = None,
    limits: Limits | None = None,
    failures: int = 5,
    backoff: Backoff | None = None,
    on_event: Callable[[Event], object] | None = None,
) -> Outcome:
    """Run a program to its end, and start it again from the newest checkpoint when it fails.

    `command` is a program that calls `run` on `store` once, such as `[sys.executable, "heat.py"]`.
    `run` finds its supervisor by itself, reports each slice of steps to it, and saves and stops if
    it dies. Events go to `on_event` and to `events.jsonl` in `directory`, by default the directory
    of a `LocalStore`.

    Why a child ended is its exit code, and in `ended.json` in the directory, since codes get lost
    in shells and pipes. 0: done. 75: preempted, with its state saved. 64 and 78: wrong usage or
    configuration, never started again. After anything else it is started again, `backoff(n)`
    seconds after the n-th failure in a row (default: `exponential()`): a crash, a signal, a lost
    device, an unhealthy kernel, or a child that does no step for as long as `limits` allow. After
    `failures` of them without a new checkpoint in between the supervisor gives up: code 1.

    A checkpoint whose reader crashes twice in a row is renamed, and the one before it is used, if
    there is one and the store can `rename`, as a `LocalStore` can; else it stays, and counts as any
    other failure. On SIGTERM and SIGINT the child saves and stops: code 75; a second SIGINT kills
    it at once.

    Raises `StoreLocked` if the run has a supervisor already, `OSError` if `command` cannot be run.
    """
    place, limits = open_store(store), limits or Limits()
    path = _directory(place, directory)
    path.mkdir(parents=True, exist_ok=True)
    backoff = exponential() if backoff is None else backoff
    job = _Job(command, place, path, limits, failures, backoff, on_event or (lambda event: None))
    with alone(path), handled((signal.SIGTERM, signal.SIGINT), job.signals.append):
        end_orphan(path, limits.grace)
        return job.work()


class _Job:
    """One supervision of a run; its methods are the parts of the loop."""

    def __init__(
        self,
        command: Sequence[str],
        store: Store,
        directory: Path,
        limits: Limits,
        failures: int,
        backoff: Backoff,
        on_event: Callable[[Event], object],
    ) -> None:
        self.command = command
        self.store = store
        self.directory = directory
        self.limits = limits
        self.failures = failures
        self.backoff = backoff
        self.on_event = on_event
        self.signals: list[int] = []
        self.slices = deque[float](maxlen=_SLICES)
        self.failed: list[Attempt] = []
        self.deaths = ("", 0)  # a checkpoint, and how many of its readers died, in a row
        self.reading, self.phase = "", "start"
        self.first_step = self.step = self.best = self._newest_step()

    def work(self) -> Outcome:
        number = 0
        while True:
            number += 1
            attempt = self._attempt(number)
            if attempt.code in (0, EX_USAGE, EX_CONFIG):
                return self._outcome(attempt.code, attempt.cause, attempt)
            if not self.signals:
                if (newest := self._newest_step()) > self.best:
                    self.best = newest
                    self.failed.clear()
                else:
                    self.failed.append(attempt)
                if len(self.failed) >= self.failures:
                    why = f"{len(self.failed)} attempts without one new checkpoint"
                    return self._outcome(EX_GAVE_UP, f"{why}; the last: {attempt.cause}", attempt)
                self._quarantine()
                self._wait(attempt)
            if self.signals:
                return self._outcome(EX_PREEMPTED, "stopped by a signal", attempt)

    def _attempt(self, number: int) -> Attempt:
        """Run one child until it ends."""
        (self.directory / ENDED).unlink(missing_ok=True)
        begin, self.reading, self.phase = time.monotonic(), "", "start"
        self.first_step = self.step = self._newest_step()
        child = Child(self.command, self.directory, self.limits.grace)
        try:
            stalled = self._follow(child)
        except BaseException:
            child.kill()
            raise
        finally:
            stderr = child.close()
        record = read_ended(self.directory)
        code, cause = outcome_of(child.process.returncode, record, stalled)
        if self.reading and code not in (0, EX_PREEMPTED):
            cause += f", while it read {self.reading}"
            if stalled or record.get("error") in (
                None,
                "DeviceLost",
            ):  # else the reader reported it
                name, deaths = self.deaths
                self.deaths = (self.reading, deaths + 1 if name == self.reading else 1)
        seconds, trace = time.monotonic() - begin, record.get("traceback") or stderr
        return Attempt(number, self.first_step, self.step, seconds, code, cause, trace)

    def _follow(self, child: Child) -> str:
        """Follow a child until it has ended; return how it hung, if it was ended for that."""
        stalled, quiet, before, kill_at = "", 0.0, time.monotonic(), None
        while not child.ended():
            messages = child.receive(_TICK_SECONDS)
            now = time.monotonic()
            # At most one tick, so that time in which this process was stopped does not count.
            quiet += min(now - before, 2 * _TICK_SECONDS)
            before = now
            for word, value in messages:
                self._handle(word, value, quiet)
                quiet = 0.0
            if kill_at is None:
                limit = self._limit()
                if quiet > limit:
                    stalled = f"hang: no step for {quiet:.1f} s ({self.phase})"
                    self._emit(Stalled(self.step, quiet, limit))
                    child.dump_tracebacks()
                if stalled or self.signals:
                    child.terminate()
                    kill_at = now + self.limits.grace
            elif now > kill_at or self.signals.count(signal.SIGINT) > 1:
                child.kill()
        for word, value in child.receive(0):
            self._handle(word, value, quiet)
        return stalled

    def _handle(self, word: str, value: str, seconds: float) -> None:
        if word == "reading":
            self.reading = value
        elif word == "restored":
            self.reading, self.deaths = "", ("", 0)
            self.first_step = self.step = int(value)
        elif word == "step":
            if self.phase == "step":
                self.slices.append(seconds)
            self.step, self.phase = int(value), "step"
        elif word == "saving":
            self.phase = "save"
        elif word == "ended":
            self.phase = "end" if value == "0" else "failure"

    def _limit(self) -> float:
        if self.phase == "failure":
            return self.limits.minimum
        if self.phase != "step":
            return self.limits.start
        return max(self.limits.minimum, self.limits.factor * max(self.slices, default=0.0))

    def _quarantine(self) -> None:
        """Rename the checkpoint whose readers crashed, if an older one can be used instead."""
        name, deaths = self.deaths
        names = [entry.name for entry in entries(self.store)]
        if deaths < 2 or not isinstance(self.store, Renames) or name not in names[1:]:
            return
        taken = {entry.name for entry in self.store.list()}
        stem, end = name.removesuffix(_END), ".quarantined{}" + _END
        tries = (stem + end.format(f".{n}" if n else "") for n in range(len(taken) + 1))
        new_name = next(new for new in tries if new not in taken)
        self.store.rename(name, new_name)
        self.deaths = ("", 0)
        self._emit(Quarantined(step_of(name) or 0, name, new_name))

    def _wait(self, attempt: Attempt) -> None:
        """Wait before the next attempt, until a signal arrives."""
        delay = self.backoff(max(len(self.failed), 1))
        self._emit(Restarted(attempt.number + 1, attempt.step, attempt.cause, delay))
        end = time.monotonic() + delay
        while not self.signals and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _TICK_SECONDS))

    def _outcome(self, code: int, why: str, attempt: Attempt) -> Outcome:
        failed = () if code in (0, EX_PREEMPTED) else tuple(dict.fromkeys([*self.failed, attempt]))
        outcome = Outcome(code, why, attempt.step, attempt.number, failed)
        if failed:
            self._emit(GaveUp(attempt.step, attempt.number, why))
        return outcome

    def _newest_step(self) -> int:
        checkpoints = entries(self.store)
        return checkpoints[-1].step if checkpoints else 0

    def _emit(self, event: Event) -> None:
        to_file(self.directory)(event)
        self.on_event(event)


def _directory(store: Store, given: str | os.PathLike[str] | None) -> Path:
    if given is not None:
        return Path(given).absolute()
    if isinstance(store, LocalStore):
        return store.path
    raise StoreError(
        "supervision needs a directory, for its log and the child's records",
        where=repr(store),
        hint="pass directory=, a local one",
    )
