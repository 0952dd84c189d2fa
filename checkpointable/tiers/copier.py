"""Copying from one store to another what the other lacks, in a thread.

No state is kept: what is missing is determined by listing both stores. So a copier that was killed
is succeeded by one that continues where it stopped.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from checkpointable import events
from checkpointable.archive import AnyKeep, Entry, chosen, entries, history, prune_locked, step_of
from checkpointable.errors import (
    CheckpointableError,
    CheckpointExists,
    CorruptCheckpoint,
    InvalidCheckpoint,
    NoCheckpoint,
    StoreError,
    in_one_line,
)
from checkpointable.format import Bytes, Opened, Parent, raw_bytes, read_sealed
from checkpointable.tiers.tier import Tier

_TICK_SECONDS = 0.2
_FIRST_DELAY = 1.0  # seconds until a tier that fails is retried; doubled each time
_LAST_DELAY = 60.0


class _Stopped(Exception):
    """The copier was requested to stop."""


class Unfit(Exception):
    """A file of the fast tier cannot be read, or is invalid: `error`."""

    def __init__(self, name: str, error: CheckpointableError) -> None:
        super().__init__(name)
        self.name = name
        self.error = error


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except CheckpointableError as error:
        raise Unfit(name, error) from error


class Copier:
    """Copies from `fast` to `slow` what `keep` wants there, the oldest first.

    `pending_copies` are the names still to be copied; `distrusted` those whose copy in the fast
    tier is invalid; `direct` is one that was written to the slow tier directly; `unclaimed` are
    rank files written there that no manifest refers to yet. `changing` is held to write or delete
    in the slow tier.
    """

    def __init__(
        self, fast: Tier, slow: Tier, keep: AnyKeep | None, key: bytes | None, timeout: float
    ) -> None:
        self.fast, self.slow, self.keep, self.key = fast, slow, keep, key
        self.timeout = timeout
        self.changing = threading.RLock()
        self.pending_copies: frozenset[str] = frozenset()
        self.distrusted: set[str] = set()
        self.direct = ""
        self.unclaimed: set[str] = set()
        self._pruned: set[str] = set()
        self._seals: dict[str, str] = {}  # of the slow tier's files
        self._state = threading.Condition()
        self._requested = self._answered = 0
        self._moved = 0  # bytes, and passes
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    # --- what is copied --------------------------------------------------------------------------

    def copy_missing(self, stop: threading.Event | None = None) -> bool:
        """Copy what is missing, and prune; return whether all went well. Errors are reported."""
        try:
            whole = self._copy_missing(stop or threading.Event())
        except _Stopped:
            return False
        except Exception as error:  # whatever a user's store or policy raises
            self.slow.fails(error)
            return False
        self.slow.works()
        return whole

    def _copy_missing(self, stop: threading.Event) -> bool:
        """Copy what is missing; return False if the fast tier failed meanwhile."""
        with self._state:
            known = self.pending_copies
        missing, whole = self._missing()
        with self._state:
            self.pending_copies = frozenset(e.name for e in missing) | (self.pending_copies - known)
            self._state.notify_all()
        copied, self.direct = self.direct, ""
        for entry in missing:
            if entry.name in self.distrusted:  # discovered meanwhile
                continue
            try:
                with self.changing:
                    self._copy(entry.name, entry.step, stop)
                copied = entry.name
            except Unfit as unfit:
                if not self._excused(entry, unfit):
                    whole = False
                    continue
            with self._state:
                self.pending_copies -= {entry.name}
                self._state.notify_all()
        if copied and self.keep is not None:
            with self.changing:
                spared = frozenset(self.unclaimed)
                pruned = prune_locked(
                    self.slow.store, self.keep, valid=copied, key=self.key, spared=spared
                )
                self.forget([entry.name for entry in pruned])
            if pruned:
                names = tuple(entry.name for entry in pruned)
                self.slow.emit(events.Pruned(names, self.slow.address))
        return whole

    def forget(self, names: list[str]) -> None:
        """Record that these are no longer in the slow tier, nor wanted there."""
        self._pruned.update(names)
        for name in names:
            self._seals.pop(name, None)

    def _missing(self) -> tuple[list[Entry], bool]:
        """What must be copied: what only the fast tier has and the slow one would keep.

        Returns also whether the fast tier could be listed.
        """
        near, listed = list[Entry](), True
        try:
            near = entries(self.fast.store)
        except StoreError as error:
            self.fast.fails(error)
            listed = False
        far = entries(self.slow.store)
        self.slow.listing_failed = False
        self.slow.was_empty &= not far
        names = {entry.name for entry in far}
        if any(step_of(name) is not None and name not in names for name in self._seals):
            self._seals.clear()  # another process deleted some of it
        excluded = names | self.distrusted | self._pruned
        new = [entry for entry in near if entry.name not in excluded]
        if not new or self.keep is None:
            return new, listed
        both = sorted([*far, *new], key=lambda e: (e.step, e.attempt, not e.delta))
        stores = [self.slow.store if e.name in names else self.fast.store for e in both]
        past = {e.step: history(s, [e])[0] for e, s in zip(both, stores, strict=True)}
        steps = chosen(self.keep, [*past.values()]) | {both[-1].step}
        return [entry for entry in new if entry.step in steps], listed

    def bring(self, parents: Sequence[Parent], step: int) -> None:
        """Make sure that the slow tier has these files; raises `Unfit` if it cannot."""
        self._seals.clear()
        for parent in parents:
            self._bring_for("", parent, step, threading.Event())

    def _bring_for(self, name: str, parent: Parent, step: int, stop: threading.Event) -> None:
        if self._seal_in_slow(parent.name) is None:
            try:
                self._copy(parent.name, step, stop)
            except Unfit as unfit:
                error = unfit.error
                if isinstance(error, InvalidCheckpoint):
                    self.distrust(parent.name, error)
                    error = CorruptCheckpoint(f"its parent {parent.name!r} is damaged")
                raise Unfit(name, error) from unfit
        if self._seal_in_slow(parent.name) != parent.seal:
            what = f"its parent {parent.name!r} is a different file in {self.slow.address}"
            raise Unfit(name, CorruptCheckpoint(what))

    def _copy(self, name: str, step: int, stop: threading.Event) -> None:
        """Copy a file, and its parents before it."""
        begin = time.monotonic()
        with ExitStack() as stack:
            with _reading(name):
                if name in self.distrusted:
                    raise CorruptCheckpoint("it does not verify")
                reader = stack.enter_context(self.fast.store.open(name))
                file = read_sealed(reader, name=name, step=step_of(name), key=self.key)
            for parent in file.header.parents:
                self._bring_for(name, parent, step, stop)
            try:
                self.slow.store.create(name, reader.size, self._chunks(name, file, stop))
            except CheckpointExists:  # by another process, since it was listed
                return
        self._seals[name] = file.seal.hex()
        seconds = time.monotonic() - begin
        self.slow.emit(
            events.Copied(step_of(name) or step, name, self.slow.address, reader.size, seconds)
        )

    def _seal_in_slow(self, name: str) -> str | None:
        """The seal of a file in the slow tier; None if it is absent, "" if it is damaged."""
        if name not in self._seals:
            try:
                with self.slow.store.open(name) as reader:
                    self._seals[name] = read_sealed(reader, key=self.key).seal.hex()
            except NoCheckpoint:
                return None
            except InvalidCheckpoint:
                return ""
        return self._seals[name]

    def _chunks(self, name: str, file: Opened, stop: threading.Event) -> Iterator[Bytes]:
        with _reading(name):
            for chunk in raw_bytes(file, self.key):
                if stop.is_set():
                    raise _Stopped
                yield chunk
                self._move(len(chunk))

    def _excused(self, entry: Entry, unfit: Unfit) -> bool:
        """Report why a checkpoint is not copied; return False if it must be retried."""
        if isinstance(unfit.error, InvalidCheckpoint):
            self.distrust(entry.name, unfit.error)
        elif not isinstance(unfit.error, NoCheckpoint):
            self.fast.fails(unfit.error)
            return False
        return True

    def distrust(self, name: str, error: BaseException) -> None:
        """Record and report that the fast tier's copy is invalid."""
        if name not in self.distrusted:
            self.distrusted.add(name)
            why = in_one_line(error, name)
            self.slow.emit(events.Damaged(step_of(name) or 0, name, self.fast.address, why))

    # --- the thread ------------------------------------------------------------------------------

    def add(self, name: str) -> None:
        """Record that the fast tier has this checkpoint now."""
        with self._state:
            self.pending_copies |= {name}
            self._pruned.discard(name)
        self.wake()

    def wake(self) -> int:
        """Have the thread look for what is missing; returns the number of the request."""
        with self._state:
            self._requested += 1
            if self._thread is None:
                self._stop = threading.Event()
                self._thread = threading.Thread(
                    target=self._work, args=(self._stop,), name="checkpointable-copy", daemon=True
                )
                self._thread.start()
            self._state.notify_all()
            return self._requested

    def _work(self, stop: threading.Event) -> None:
        """Copy until nothing is missing; a slow tier that fails is retried, later each time."""
        delay = _FIRST_DELAY
        while True:
            with self._state:
                seen = self._requested
            good = self.copy_missing(stop)
            with self._state:
                self._answered, self._moved = seen, self._moved + 1
                self._state.notify_all()
                if self._requested == seen and not good and not stop.is_set():
                    # The lambda is not kept: it sees no later `seen`.
                    self._state.wait_for(lambda: self._requested != seen or stop.is_set(), delay)  # noqa: B023
                    delay = min(2 * delay, _LAST_DELAY)
                if stop.is_set() or (good and self._requested == seen):
                    if self._stop is stop:
                        self._thread = None
                    return

    def _move(self, count: int) -> None:
        with self._state:
            self._moved += count
            self._state.notify_all()

    def wait_for_room(self, pending: int) -> None:
        """Wait until fewer than `pending` are to be copied, or the slow tier fails."""
        if len(self.pending_copies) >= pending and not self.slow.lost:
            self.wake()
            self._wait(lambda: len(self.pending_copies) < pending or self.slow.lost)

    def flush(self, timeout: float | None, keep_waiting: Callable[[int], bool]) -> bool:
        """Look once more, and wait until nothing is left to copy or the slow tier fails."""
        requested = self.wake()
        done = self._wait(lambda: self._answered >= requested, timeout, keep_waiting)
        return done and not self.pending_copies and not self.slow.lost

    def _wait(
        self,
        ready: Callable[[], bool],
        timeout: float | None = None,
        keep_waiting: Callable[[int], bool] = lambda moved: True,
    ) -> bool:
        begin = since = time.monotonic()
        moved, end = self._moved, float("inf") if timeout is None else begin + timeout
        while True:
            with self._state:
                if self._state.wait_for(ready, max(0.0, min(_TICK_SECONDS, end - begin))):
                    return True
                moved, before = self._moved, moved
            begin = time.monotonic()
            since = begin if moved != before else since
            if begin - since >= self.timeout:
                self.slow.fails(StoreError(f"it has taken nothing for {self.timeout:g} seconds"))
                return False
            if begin >= end or not keep_waiting(moved):
                return False

    def stop(self) -> None:
        """Stop the thread between two chunks; what it was copying is not stored."""
        with self._state:
            self._stop.set()
            thread, self._thread = self._thread, None
            self._state.notify_all()
        if thread is not None:
            thread.join(_TICK_SECONDS)
