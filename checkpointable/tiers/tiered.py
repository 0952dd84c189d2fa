"""Two stores as one: durable in the fast tier, then copied to the slow one by a thread."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

from attrs import frozen

from checkpointable import events
from checkpointable.archive import AnyKeep, is_delta, is_rank_file, parsed, step_of
from checkpointable.errors import (
    CheckpointableError,
    CheckpointExists,
    InvalidCheckpoint,
    NoCheckpoint,
    StoreError,
    StoreLocked,
)
from checkpointable.events import Event
from checkpointable.format import Packed, Parent, check_key, raw_bytes, read_sealed
from checkpointable.stores import (
    Buffer,
    Entry,
    Open,
    Reader,
    SharedLock,
    Store,
    check_name,
    open_store,
)
from checkpointable.tiers.copier import Copier, Unfit
from checkpointable.tiers.tier import Held, Source, Tier, listed, locked, release

_MOST_EVENTS = 1000  # that were not drained


class Tiered:
    """A fast store and a slow one as one, such as a node's disk and a bucket that outlives it.

    `fast` and `slow` are directories, addresses or stores. A checkpoint is durable in the fast tier
    when `create` returns; a thread copies it to the slow one, verified on the way, and never before
    its parents. The slow tier keeps the newest, and of the others what `keep` says (default: all);
    a run's own `keep` is for the fast tier. While `pending` checkpoints are still to be copied, the
    next `create` waits. With a `key` only checkpoints that are signed with it are copied.

    It lists and reads what either tier has, the fast one first. If a tier fails, the other one
    continues alone: a slow tier is retried at each `create`, and after increasing pauses; what the
    fast one cannot take is written to the slow one directly. A slow tier that takes nothing for
    `timeout` seconds has failed, too. `drain_events()` returns what has happened; `run` reports
    it.

    >>> import attrs
    >>> from checkpointable import MemoryStore
    >>> from checkpointable.archive import save
    >>> @attrs.frozen
    ... class Walk:
    ...     step: int
    >>> fast, slow = MemoryStore(), MemoryStore()
    >>> tiered = Tiered(fast, slow)
    >>> save(tiered, Walk(step=7), step=7).name
    'step-000000000007.safetensors'
    >>> tiered.flush()  # until the slow tier has it too
    True
    >>> [entry.name for entry in slow.list()]
    ['step-000000000007.safetensors']
    """

    def __init__(
        self,
        fast: str | os.PathLike[str] | Store,
        slow: str | os.PathLike[str] | Store,
        *,
        keep: AnyKeep | None = None,
        pending: int = 2,
        key: bytes | None = None,
        timeout: float = 60.0,
    ) -> None:
        if type(pending) is not int or pending < 1:
            raise ValueError(f"pending is {pending!r}, but must be an int of at least 1")
        check_key(key)
        self.fast, self.slow = open_store(fast), open_store(slow)
        self.pending = pending
        self._events: deque[Event] = deque(maxlen=_MOST_EVENTS)
        self._fast = Tier(self.fast, _address(fast), self._events.append)
        self._slow = Tier(self.slow, _address(slow), self._events.append)
        self._copier = Copier(self._fast, self._slow, keep, key, timeout)
        self._lock = SharedLock(self._acquire, release)

    def __repr__(self) -> str:
        return f"Tiered({self._fast.address!r}, {self._slow.address!r})"

    def drain_events(self) -> list[Event]:
        """Return what has happened to the tiers since the last call: see `events`."""
        drained: list[Event] = []
        while self._events:
            drained.append(self._events.popleft())
        return drained

    def flush(
        self,
        timeout: float | None = None,
        keep_waiting: Callable[[int], bool] = lambda moved: True,
    ) -> bool:
        """Wait until the slow tier has all that it must have, or fails; return whether it has.

        Waits for at most `timeout` seconds, and as long as `keep_waiting` returns True. That is
        called several times a second, with a number that grows while something is copied.
        """
        return self._copier.flush(timeout, keep_waiting)

    def close(self, timeout: float | None = None) -> bool:
        """Flush (not if `timeout` is 0), and copy no more until the next `create` or `lock`."""
        try:
            return timeout != 0 and self.flush(timeout)
        finally:
            self._copier.stop()

    # --- as a store ------------------------------------------------------------------------------

    def create(self, name: str, size: int, chunks: Iterable[Buffer], /) -> None:
        """See `checkpointable.stores.Create`.

        Raises `NoCheckpoint` for a delta if the fast tier lacks its parents.
        """
        check_name(name)
        self._copier.wait_for_room(self.pending)
        if self._slow_has(name):
            raise CheckpointExists("the slow tier has a checkpoint of this name", where=name)
        parents = chunks.header.parents if isinstance(chunks, Packed) else ()
        source = Source(chunks, size, name)
        try:
            if self._lacks(parents):
                if is_delta(name):
                    raise NoCheckpoint("its parents are not in the fast tier", where=name)
                raise _NotInFast("its rank files are not in the fast tier", where=name)
            self.fast.create(name, size, source)
        except (CheckpointExists, StoreLocked):
            raise
        except StoreError as error:
            if error is source.error or not source.again:
                raise
            if isinstance(error, NoCheckpoint) and is_delta(name):
                raise
            if not isinstance(error, _NotInFast):
                self._fast.fails(error)
            self._create_in_slow(name, size, source, parents, error)
        else:
            self._fast.works()
            if parsed(name):
                self._copier.add(name)

    def _slow_has(self, name: str) -> bool:
        if not self._slow.lost:
            try:
                with self.slow.open(name):
                    return True
            except (NoCheckpoint, InvalidCheckpoint):
                pass
            except StoreError as error:
                self._slow.fails(error)
        return False

    def _lacks(self, parents: Sequence[Parent]) -> bool:
        """Whether the fast tier lacks one of these files, or has it damaged."""
        if not parents:
            return False
        names = {entry.name for entry in self.fast.list()} - self._copier.distrusted
        return not names.issuperset(parent.name for parent in parents)

    def _create_in_slow(
        self, name: str, size: int, source: Source, parents: Sequence[Parent], why: StoreError
    ) -> None:
        """Write to the slow tier what the fast one could not take; `why` is its error."""
        begin, step = time.monotonic(), step_of(name) or 0
        try:
            with self._copier.changing:
                self._copier.bring(parents, step)
                self.slow.create(name, size, source)
                self._copier.unclaimed -= {parent.name for parent in parents}
                if is_rank_file(name):  # which a prune would delete before there is a manifest
                    self._copier.unclaimed.add(name)
        except (CheckpointExists, StoreLocked):
            raise
        except (Unfit, CheckpointableError) as error:
            if error is source.error:
                raise
            if not isinstance(error, StoreError):  # of a parent
                if is_delta(name):
                    what = "a parent is in neither tier"
                    raise NoCheckpoint(what, where=name) from error
                raise why from error
            self._slow.fails(error)
            raise why from error
        self._slow.works()
        seconds = time.monotonic() - begin
        self._events.append(events.Copied(step, name, self._slow.address, size, seconds))
        if parsed(name):
            self._copier.direct = name
            self._copier.wake()  # to prune

    @contextmanager
    def open(self, name: str, /) -> Iterator[Reader]:
        """See `checkpointable.stores.Open`."""
        check_name(name)
        with ExitStack() as stack:
            yield self._opened(name, stack)

    def _opened(self, name: str, stack: ExitStack) -> Reader:
        errors: list[CheckpointableError] = []
        tiers = [self._fast, self._slow]
        for tier in reversed(tiers) if name in self._copier.distrusted else tiers:
            try:
                return stack.enter_context(tier.store.open(name))
            except NoCheckpoint as error:
                errors.append(error)
            except (StoreError, InvalidCheckpoint) as error:
                errors.insert(0, error)
        raise errors[0]

    def list(self) -> Iterator[Entry]:
        """See `checkpointable.stores.List`; a tier that cannot be listed is reported and left out.

        Raises its error if the other tier has nothing, and this one may have something.
        """
        return iter(listed(self._fast, self._slow))

    def delete(self, name: str, /) -> None:
        """See `checkpointable.stores.Delete`: from both tiers."""
        check_name(name)
        deleted, errors = False, list[StoreError]()
        with self._copier.changing:
            for store in (self.fast, self.slow):
                try:
                    store.delete(name)
                    deleted = True
                except NoCheckpoint as error:
                    errors.append(error)
                except StoreError as error:
                    errors.insert(0, error)
            self._copier.forget([name])
            self._copier.unclaimed.discard(name)
        if errors and not (deleted and isinstance(errors[0], NoCheckpoint)):
            raise errors[0]
        self._copier.distrusted.discard(name)

    def lock(self) -> AbstractContextManager[None]:
        """See `checkpointable.stores.Lock`: of both tiers, or of the one that works."""
        return self._lock.held()

    def _acquire(self) -> Held:
        held = locked(self._fast, self._slow)
        self._copier.wake()
        return held

    # --- as one of two ---------------------------------------------------------------------------

    def views(self) -> Sequence[Open]:
        """See `checkpointable.stores.Tiers`: the fast tier's first, then whichever is valid."""
        return [self, _ValidView(self._fast, self._slow, self._copier)]

    @contextmanager
    def pruning(self) -> Iterator[tuple[Store, frozenset[str]]]:
        """See `checkpointable.stores.Tiers`: the fast tier, without what must still be copied.

        If the slow tier fails, that is pruned as well, or the fast tier would fill up.
        """
        try:
            yield self.fast, frozenset() if self._slow.lost else self._copier.pending_copies
        except StoreLocked:
            raise
        except StoreError as error:
            self._fast.fails(error)


@frozen(eq=False)
class _ValidView:
    """Each file from the first tier where it verifies by itself; reads all of it for that."""

    fast: Tier
    slow: Tier
    copier: Copier

    @contextmanager
    def open(self, name: str, /) -> Iterator[Reader]:
        """Open a file where it is valid, and report where it is not."""
        with ExitStack() as stack:
            yield self._first_valid(name, stack)

    def _first_valid(self, name: str, stack: ExitStack) -> Reader:
        passed, absent = list[tuple[Tier, CheckpointableError]](), list[CheckpointableError]()
        key = self.copier.key
        for tier in (self.fast, self.slow):
            with ExitStack() as own:
                try:
                    reader = own.enter_context(tier.store.open(name))
                    for _ in raw_bytes(read_sealed(reader, key=key), key):
                        pass
                except NoCheckpoint as error:
                    absent.append(error)
                    continue
                except (InvalidCheckpoint, StoreError) as error:
                    passed.append((tier, error))
                    continue
                stack.push(own.pop_all())
            for other, why in passed:
                if isinstance(why, StoreError):
                    other.fails(why)
                else:  # the fast one's
                    self.copier.distrust(name, why)
            return reader
        raise (*(why for _, why in passed), *absent)[0]


class _NotInFast(StoreError):
    """The fast tier works, but cannot hold this checkpoint."""


def _address(where: str | os.PathLike[str] | Store) -> str:
    return os.fspath(where) if isinstance(where, (str, os.PathLike)) else repr(where)
