"""Two stores as one: durable in the fast, copied to the slow; the loss of either is survived."""

import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from checkpointable import (
    CheckpointExists,
    LocalStore,
    MemoryStore,
    NoCheckpoint,
    Store,
    StoreError,
    StoreFull,
    StoreLocked,
    Tiered,
    archive,
    every_nth,
    last,
)
from checkpointable.archive import entries, load, name_of, verify
from checkpointable.archive.keep import AnyKeep
from checkpointable.archive.prune import prune
from checkpointable.events import Copied, Damaged, Pruned, TierBack, TierLost
from checkpointable.stores.protocol import Buffer, Entry, Reader
from checkpointable.testing import FaultyStore, StoreTests
from checkpointable.testing.stores import listed, read
from checkpointable.tiers.copier import Copier
from tests.distributed.test_checkpoints import GridCheckpoint, rows, shared
from tests.helpers.equality import same
from tests.helpers.small_blocks import small_blocks
from tests.runner.test_delta_runs import SweepCheckpoint, after


@pytest.fixture(autouse=True)
def _small_blocks() -> Iterator[None]:
    with small_blocks(64):
        yield


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> Callable[[Tiered], bool]:
    """No thread: `driven(tiered)` copies what is missing."""
    monkeypatch.setattr(Copier, "wake", lambda self: 0)
    monkeypatch.setattr(Copier, "wait_for_room", lambda self, pending: None)
    return lambda tiered: tiered._copier.copy_missing()


Driven = Callable[[Tiered], bool]


class TestInMemory(StoreTests):
    def make(self) -> Store:
        return Tiered(MemoryStore(), MemoryStore())


class TestInDirectories(StoreTests):
    settings = settings(StoreTests.settings, max_examples=15, stateful_step_count=20)

    def make(self) -> Store:
        return Tiered(tempfile.mkdtemp(), tempfile.mkdtemp())

    def again(self, store: Any) -> Store:
        return Tiered(store.fast.path, store.slow.path)


class Switched:
    """A store that works, is down altogether, or takes nothing; `created` is in which order."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.down = self.full = False
        self.created: list[str] = []

    def _check(self) -> None:
        if self.down:
            raise StoreError("it is down")

    def create(self, name: str, size: int, chunks: Iterable[Buffer], /) -> None:
        self._check()
        if self.full:
            raise StoreFull("it is full")
        self.store.create(name, size, chunks)
        self.created.append(name)

    def open(self, name: str, /) -> AbstractContextManager[Reader]:
        self._check()
        return self.store.open(name)

    def list(self) -> Iterator[Entry]:
        self._check()
        return self.store.list()

    def delete(self, name: str, /) -> None:
        self._check()
        self.store.delete(name)

    def lock(self) -> AbstractContextManager[None]:
        self._check()
        return self.store.lock()


def save(store: Store, step: int, base: str | None = None) -> str:
    return archive.save(store, after(step), step, base=base).name


def names(store: Store) -> list[str]:
    return [entry.name for entry in entries(store)]


def damage(store: MemoryStore, name: str, at: int = 4096) -> None:
    blob, _ = store._blobs[name]
    blob[at] ^= 1


def kinds(tiered: Tiered) -> list[type]:
    return [type(event) for event in tiered.drain_events()]


# --- the copy ------------------------------------------------------------------------------------


def test_it_is_durable_in_the_fast_tier_and_then_in_the_slow(driven: Driven) -> None:
    fast, slow = MemoryStore(), MemoryStore()
    tiered = Tiered(fast, slow)
    name = save(tiered, 3)
    assert (names(fast), names(slow), tiered.drain_events()) == ([name], [], [])
    assert driven(tiered)
    assert read(slow, name) == read(fast, name)
    (copied,) = tiered.drain_events()
    assert isinstance(copied, Copied)
    assert (copied.step, copied.name, copied.bytes) == (3, name, len(read(slow, name)))
    assert copied.address == repr(slow)


def test_a_signed_one_is_copied_with_its_signature(driven: Driven) -> None:
    fast, slow, key = MemoryStore(), MemoryStore(), b"k" * 16
    tiered = Tiered(fast, slow, key=key)
    name = archive.save(tiered, after(3), 3, key=key).name
    unsigned = save(tiered, 4)
    driven(tiered)
    assert names(slow) == [name]
    verify(slow, name, key=key)
    assert [e.name for e in tiered.drain_events() if isinstance(e, Damaged)] == [unsigned]


def test_what_a_delta_continues_is_copied_before_it(driven: Driven) -> None:
    fast, slow = MemoryStore(), Switched()
    tiered = Tiered(fast, slow, keep=lambda steps: [])  # only the newest, and what that needs
    full = save(tiered, 3)
    first = save(tiered, 4, full)
    second = save(tiered, 5, first)
    driven(tiered)
    assert slow.created == [full, first, second]
    assert [e.name for e in tiered.drain_events() if isinstance(e, Copied)] == slow.created
    verify(slow, second)


def test_the_oldest_is_copied_first(driven: Driven) -> None:
    slow = Switched()
    tiered = Tiered(MemoryStore(), slow)
    made = [save(tiered, step) for step in (1, 2, 3)]
    driven(tiered)
    assert slow.created == made


def test_each_tier_keeps_what_it_is_to_keep(driven: Driven) -> None:
    fast, slow = MemoryStore(), MemoryStore()
    tiered = Tiered(fast, slow, keep=every_nth(10))
    for step in range(5, 40, 5):
        save(tiered, step)
        driven(tiered)
        prune(tiered, last(2))
        assert entries(slow)[-1].step == step
    assert [e.step for e in entries(fast)] == [30, 35]
    assert [e.step for e in entries(slow)] == [5, 10, 20, 30, 35]
    deleted = [e for e in tiered.drain_events() if isinstance(e, Pruned)]
    assert [(e.names, e.address) for e in deleted] == [
        ((name_of(step),), repr(slow)) for step in (15, 25)
    ]


def test_what_the_slow_tier_does_not_want_is_not_copied(driven: Driven) -> None:
    slow = Switched()
    tiered = Tiered(MemoryStore(), slow, keep=last(1))
    for step in (1, 2, 3):
        save(tiered, step)
    driven(tiered)
    assert slow.created == [name_of(3)]


def test_what_is_still_to_be_copied_is_not_deleted(driven: Driven) -> None:
    fast, slow = MemoryStore(), Switched()
    tiered = Tiered(fast, slow, pending=9)
    base = save(tiered, 1)
    save(tiered, 2, base)
    save(tiered, 3)
    assert prune(tiered, last(1)) == []
    slow.full = True
    driven(tiered)
    assert [e.step for e in prune(tiered, last(1))] == [1, 2]  # or the fast one would fill up


def test_a_damaged_one_is_not_copied_which_is_told_once(driven: Driven) -> None:
    fast, slow = MemoryStore(), MemoryStore()
    tiered = Tiered(fast, slow)
    name, other = save(tiered, 3), save(tiered, 4)
    damage(fast, name)
    assert driven(tiered)
    driven(tiered)
    assert names(slow) == [other]
    (event, _) = tiered.drain_events()
    assert isinstance(event, Damaged)
    assert (event.step, event.name, event.address) == (3, name, repr(fast))
    assert event.why == "the data is damaged (array 'grid', block 0 of 32)"


def test_a_delta_of_a_damaged_one_is_not_copied(driven: Driven) -> None:
    fast, slow = MemoryStore(), MemoryStore()
    tiered = Tiered(fast, slow)
    name = save(tiered, 3)
    delta = save(tiered, 4, name)
    damage(fast, name)
    driven(tiered)
    assert names(slow) == []
    assert [e.name for e in tiered.drain_events() if isinstance(e, Damaged)] == [name, delta]


@pytest.mark.parametrize("call", range(6))
def test_what_is_read_wrong_is_not_copied(driven: Driven, call: int) -> None:
    fast, slow = MemoryStore(), MemoryStore()
    name = save(fast, 3)
    faulty = FaultyStore(fast, "tear", "read", at=call)
    driven(Tiered(faulty, slow))
    assert faulty.happened
    for copied in names(slow):
        assert read(slow, copied) == read(fast, name)


def test_a_new_process_goes_on_copying() -> None:
    fast, slow = MemoryStore(), MemoryStore()
    made = [save(fast, step) for step in (1, 2)]
    with Tiered(fast, slow).lock():
        pass
    tiered = Tiered(fast, slow)
    assert tiered.close()
    assert names(slow) == made


# --- backpressure --------------------------------------------------------------------------------


@pytest.mark.parametrize("pending", [1, 2])
def test_a_save_waits_for_a_slow_tier_that_is_far_behind(
    monkeypatch: pytest.MonkeyPatch, pending: int
) -> None:
    gate, reported = threading.Event(), list[str]()
    slow = FaultyStore(MemoryStore(), "delay", "create", wait=gate.wait)
    fast = Switched()
    tiered = Tiered(fast, slow, pending=pending)
    real = tiered._copier._wait

    def wait(*args: Any) -> bool:
        reported.extend(fast.created)
        gate.set()
        return real(*args)

    monkeypatch.setattr(tiered._copier, "_wait", wait)
    made = [save(tiered, step) for step in range(pending)]
    assert reported == []
    made.append(save(tiered, 9))
    assert reported == made[:-1]
    assert tiered.flush()
    assert names(slow) == made


def test_nobody_waits_for_a_slow_tier_that_takes_nothing() -> None:
    gate = threading.Event()
    slow = FaultyStore(MemoryStore(), "delay", "create", wait=gate.wait)
    tiered = Tiered(MemoryStore(), slow, pending=1, timeout=0.01)
    made = [save(tiered, step) for step in (1, 2, 3)]
    assert [e.why for e in tiered.drain_events() if isinstance(e, TierLost)] == [
        "it has taken nothing for 0.01 seconds"
    ]
    gate.set()
    tiered._copier.timeout = 60.0
    while not tiered.flush():
        pass
    assert names(slow) == made
    assert TierBack in kinds(tiered)


# --- the slow tier is lost -----------------------------------------------------------------------


def test_a_slow_tier_that_fails_is_told_once_and_so_is_its_return(driven: Driven) -> None:
    slow = Switched()
    tiered = Tiered(MemoryStore(), slow, pending=1)
    slow.full = True
    for step in (1, 2, 3):
        save(tiered, step)
        assert not driven(tiered)
    assert tiered.drain_events() == [TierLost(repr(slow), "it is full", time=mock.ANY)]
    slow.full = False
    assert driven(tiered)
    assert kinds(tiered) == [Copied, Copied, Copied, TierBack]


def test_a_run_begins_and_goes_on_without_its_slow_tier(driven: Driven) -> None:
    fast, slow = MemoryStore(), Switched()
    save(fast, 1)
    slow.down = True
    tiered = Tiered(fast, slow)
    with tiered.lock():
        result = archive.latest(tiered, SweepCheckpoint)
        assert result is not None
        assert result.entry.step == 1
        save(tiered, 2)
        prune(tiered, last(1))
    assert kinds(tiered) == [TierLost]
    assert [e.step for e in entries(fast)] == [2]


def test_an_empty_fast_tier_is_no_fresh_start_if_the_slow_one_cannot_be_asked() -> None:
    slow = Switched()
    save(slow, 7)
    slow.down = True
    with pytest.raises(StoreError, match="it is down"):
        archive.latest(Tiered(MemoryStore(), slow), SweepCheckpoint)


def test_a_policy_that_raises_is_told(driven: Driven) -> None:
    tiered = Tiered(MemoryStore(), MemoryStore(), keep=lambda steps: [1 // 0])
    save(tiered, 1)
    assert not driven(tiered)
    (event,) = tiered.drain_events()
    assert isinstance(event, TierLost)
    assert event.why.startswith("ZeroDivisionError: ")


# --- the fast tier is lost -----------------------------------------------------------------------


def test_after_the_loss_of_the_fast_tier_the_slow_one_is_restored(driven: Driven) -> None:
    slow = MemoryStore()
    tiered = Tiered(MemoryStore(), slow)
    save(tiered, 3)
    driven(tiered)
    fast = MemoryStore()
    tiered = Tiered(fast, slow)
    result = archive.latest(tiered, SweepCheckpoint)
    assert result is not None
    assert same(result.checkpoint, after(3))
    name = save(tiered, 4, result.entry.name)
    assert not archive.is_delta(name)  # the fast tier does not need the slow one
    verify(fast, name)


@pytest.mark.parametrize("how", ["full", "down"])
@pytest.mark.parametrize("delta", [False, True])
def test_what_the_fast_tier_cannot_take_is_in_the_slow_one(
    driven: Driven, how: str, delta: bool
) -> None:
    fast, slow = Switched(), MemoryStore()
    tiered = Tiered(fast, slow)
    base = save(tiered, 3)
    tiered.drain_events()
    setattr(fast, how, True)
    name = save(tiered, 4, base if delta else None)
    assert name in names(slow)
    assert same(load(slow, name, SweepCheckpoint), after(4))
    assert archive.is_delta(name) == (delta and how == "full")  # what it continues came along
    reported = tiered.drain_events()
    assert [e.address for e in reported if isinstance(e, TierLost)] == [repr(fast)]
    assert [e.name for e in reported if isinstance(e, Copied)][-1] == name
    prune(tiered, last(1))
    setattr(fast, how, False)
    save(tiered, 5)
    assert [type(e) for e in tiered.drain_events()] == [TierBack]


def test_if_both_fail_the_error_is_the_fast_ones(driven: Driven) -> None:
    fast, slow = Switched(), Switched()
    tiered = Tiered(fast, slow)
    fast.full = slow.full = True
    with pytest.raises(StoreFull):
        save(tiered, 3)
    fast.down = slow.down = True
    with pytest.raises(StoreError, match="it is down"):
        entries(tiered)
    with pytest.raises(StoreError, match="it is down"), tiered.lock():
        pass


def test_chunks_that_cannot_be_asked_for_again_are_not_written_twice(driven: Driven) -> None:
    fast, slow = Switched(), MemoryStore()
    fast.full = True
    with pytest.raises(StoreFull):
        Tiered(fast, slow).create("a", 1, iter([b"x"]))
    Tiered(fast, slow).create("a", 1, [b"x"])
    assert listed(slow) == {"a": 1}


def test_an_error_of_the_chunks_is_no_failure_of_a_tier(driven: Driven) -> None:
    class Chunks:
        def __iter__(self) -> Iterator[bytes]:
            raise StoreError("mine")

    tiered = Tiered(MemoryStore(), MemoryStore())
    with pytest.raises(StoreError, match="mine"):
        tiered.create("a", 1, Chunks())
    with pytest.raises(StoreError, match="announced"):
        tiered.create("a", 1, [b"xy"])
    assert tiered.drain_events() == []


def test_a_name_that_only_the_slow_tier_has_is_taken(driven: Driven) -> None:
    slow = MemoryStore()
    slow.create("a", 1, [b"x"])
    with pytest.raises(CheckpointExists):
        Tiered(MemoryStore(), slow).create("a", 1, [b"y"])


def test_the_lock_of_either_keeps_others_out() -> None:
    fast, slow, other = (tempfile.mkdtemp() for _ in range(3))
    with Tiered(fast, slow).lock():
        for tiered in (Tiered(fast, other), Tiered(other, slow)):
            with pytest.raises(StoreLocked), tiered.lock():
                pass
    with LocalStore(fast).lock(), LocalStore(slow).lock():
        pass


# --- what is read --------------------------------------------------------------------------------


def test_a_damaged_one_is_read_from_the_slow_tier_before_an_older_one(driven: Driven) -> None:
    fast, slow = MemoryStore(), MemoryStore()
    tiered = Tiered(fast, slow)
    save(tiered, 2)
    name = save(tiered, 3)
    driven(tiered)
    tiered.drain_events()
    damage(fast, name)
    result = archive.latest(tiered, SweepCheckpoint)
    assert result is not None
    assert (result.entry.name, result.skipped) == (name, ())
    assert same(result.checkpoint, after(3))
    (event,) = tiered.drain_events()
    assert isinstance(event, Damaged)
    assert (event.name, event.address) == (name, repr(fast))
    assert not archive.is_delta(save(tiered, 4, name))  # a damaged one is not continued


def test_of_a_chain_each_file_is_read_where_it_is_sound(driven: Driven) -> None:
    fast, slow = MemoryStore(), MemoryStore()
    tiered = Tiered(fast, slow)
    chain = [save(tiered, 2)]
    for step in (3, 4):
        chain.append(save(tiered, step, chain[-1]))
    driven(tiered)
    for store, name in ((fast, chain[0]), (slow, chain[1]), (fast, chain[2])):
        damage(store, name)
    result = archive.latest(tiered, SweepCheckpoint)
    assert result is not None
    assert same(result.checkpoint, after(4))


def test_one_that_is_damaged_in_both_is_passed_over(driven: Driven) -> None:
    fast, slow = MemoryStore(), MemoryStore()
    tiered = Tiered(fast, slow)
    save(tiered, 2)
    name = save(tiered, 3)
    driven(tiered)
    damage(fast, name)
    damage(slow, name)
    result = archive.latest(tiered, SweepCheckpoint)
    assert result is not None
    assert (result.entry.step, [entry.name for entry, _ in result.skipped]) == (2, [name])


def test_delete_deletes_from_both(driven: Driven) -> None:
    fast, slow = MemoryStore(), MemoryStore()
    tiered = Tiered(fast, slow)
    name = save(tiered, 2)
    driven(tiered)
    tiered.delete(name)
    assert (names(fast), names(slow)) == ([], [])
    with pytest.raises(NoCheckpoint):
        tiered.delete(name)


@pytest.mark.parametrize("pending", [0, 1.5, True])
def test_wrong_arguments_are_refused(pending: Any) -> None:
    with pytest.raises(ValueError, match="pending"):
        Tiered("a", "b", pending=pending)


# --- any history ---------------------------------------------------------------------------------

TIERS = st.sampled_from(["fast", "slow"])


class History(RuleBasedStateMachine):
    """Saves, deltas, damage, losses, faults, prunes and crashes, in any order."""

    keep: AnyKeep | None = None

    def __init__(self) -> None:
        super().__init__()
        self.bare = {"fast": MemoryStore(), "slow": MemoryStore()}
        self.parents: dict[str, set[str]] = {}
        self.damaged: set[tuple[str, str]] = set()
        self.step = 0
        self.base: str | None = None
        self.crash()

    @rule()
    def crash(self) -> None:
        self.faulty = {
            tier: FaultyStore(store, "fail", "create", at=-1) for tier, store in self.bare.items()
        }
        self.tiered = Tiered(self.faulty["fast"], self.faulty["slow"], keep=self.keep, pending=99)
        self.base = None

    @rule(steps=st.integers(1, 5), delta=st.booleans())
    def save(self, steps: int, delta: bool) -> None:
        self.step += steps
        try:
            name = save(self.tiered, self.step, self.base if delta else None)
        except StoreError:  # both have failed
            assert any(faulty.happened for faulty in self.faulty.values())
            return
        self.base = name
        where = [tier for tier, store in self.bare.items() if name in names(store)]
        assert where
        with self.bare[where[0]].open(name):
            header = archive.read_header(self.bare[where[0]], name)
        self.parents[name] = {parent.name for parent in header.parents}

    @rule()
    def copy(self) -> None:
        good = self.tiered._copier.copy_missing()
        if good and self.keep is None:
            lost = {name for tier, name in self.damaged if tier == "fast"}
            fit = set(names(self.bare["fast"])) - lost - self.tiered._copier.distrusted
            assert fit <= set(names(self.bare["slow"]))

    @rule(tier=TIERS)
    def lose(self, tier: str) -> None:
        self.bare[tier]._blobs.clear()
        self.damaged = {(t, name) for t, name in self.damaged if t != tier}

    @rule(tier=TIERS, which=st.integers(0, 9), at=st.floats(0, 1, exclude_max=True))
    def damage(self, tier: str, which: int, at: float) -> None:
        result = [n for n in names(self.bare[tier]) if (tier, n) not in self.damaged]
        if result:
            name = result[which % len(result)]
            damage(self.bare[tier], name, int(at * len(self.bare[tier]._blobs[name][0])))
            self.damaged.add((tier, name))

    @rule(
        tier=TIERS,
        fault=st.sampled_from(["fail", "tear"]),
        operation=st.sampled_from(["create", "open", "read", "list", "delete", "lock"]),
        at=st.integers(0, 3),
    )
    def arm(self, tier: str, fault: Any, operation: Any, at: int) -> None:
        """Have one of the next calls fail; a torn create is no store's."""
        faulty = self.faulty[tier]
        faulty.fault = "fail" if operation == "create" else fault
        faulty.operation, faulty.at, faulty._calls = operation, at, 0

    @rule(n=st.integers(1, 3))
    def prune(self, n: int) -> None:
        before = {tier: names(store) for tier, store in self.bare.items()}
        with suppress(StoreError):
            prune(self.tiered, last(n))
        steps = sorted({archive.step_of(name) or 0 for name in before["fast"]})[-n:]
        kept = {name for name in before["fast"] if archive.step_of(name) in steps}
        assert kept <= set(names(self.bare["fast"]))
        assert names(self.bare["slow"]) == before["slow"]

    @invariant()
    def each_tier_has_what_its_deltas_continue(self) -> None:
        for store in self.bare.values():
            there = set(names(store))
            for name in there:
                assert self.parents[name] <= there

    @invariant()
    def the_slow_tier_has_nothing_that_does_not_verify(self) -> None:
        for name in names(self.bare["slow"]):
            if not any(("slow", n) in self.damaged for n in {name} | self.parents[name]):
                verify(self.bare["slow"], name)

    @rule()
    def restore(self) -> None:
        def sound(name: str) -> bool:
            return any(
                name in names(store) and (tier, name) not in self.damaged
                for tier, store in self.bare.items()
            )

        for faulty in self.faulty.values():
            faulty.at = -1
        there = [e.name for e in entries(self.tiered)]
        good = [n for n in there if all(map(sound, {n} | self.parents[n]))]
        if good:
            result = archive.latest(self.tiered, SweepCheckpoint)
            assert result is not None
            assert result.entry.name == good[-1]
            assert same(result.checkpoint, after(result.entry.step))
            self.base = result.entry.name
        elif there:
            with pytest.raises(NoCheckpoint):
                archive.latest(self.tiered, SweepCheckpoint)


@pytest.mark.parametrize("keep", [None, last(2)], ids=["all", "last 2"])
def test_whatever_happens_the_newest_that_is_anywhere_is_restored(
    driven: Driven, keep: AnyKeep | None
) -> None:
    class Kept(History):
        pass

    Kept.keep = keep
    run_state_machine_as_test(Kept, settings=settings(max_examples=60, stateful_step_count=25))


@pytest.mark.parametrize("behind", [False, True], ids=["alone", "after another"])
def test_shards_that_the_slow_tier_gets_at_once_stay_until_there_is_a_head(behind: bool) -> None:
    """A pass of the copier between a rank's file and the manifest, as it may come at any time."""

    class Passing(Tiered):
        passes = False

        def list(self) -> Iterator[Entry]:  # which a save does between the two
            if self.passes:
                if behind and not entries(fast):
                    save(fast, 1)  # to be copied, and then to prune
                self._copier.copy_missing()
            return super().list()

    fast, slow = MemoryStore(), MemoryStore()
    refusing: Any = FaultyStore(fast, "fail", "create")
    tiered = Passing(refusing, slow, keep=last(1))
    tiered.passes = True
    whole = np.arange(12.0).reshape(3, 4)
    shared(tiered, whole, rows((3, 4), 1), step=2)
    tiered.close()
    result = archive.latest(slow, GridCheckpoint)
    assert result is not None
    assert (result.entry.step, result.entry.sharded) == (2, True)
    assert same(result.checkpoint.grid[:], whole)
