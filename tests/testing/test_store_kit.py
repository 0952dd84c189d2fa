"""The conformance kit for stores: ours pass, each broken one is rejected for its reason."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checkpointable import (
    Checkpointer,
    CorruptCheckpoint,
    LocalStore,
    MemoryStore,
    StoreError,
    archive,
)
from checkpointable.testing import FaultyStore, ObligationBroken, StoreTests, verify_store
from checkpointable.testing.report import name_of, obligations_of
from tests.helpers.kernels import CounterCheckpoint, after
from tests.stores.test_stores import without_tmpfile
from tests.testing import broken_stores as broken


class TestLocalStore(StoreTests):
    @pytest.fixture(autouse=True)
    def _give_it_a_place(self, tmp_path: Path) -> None:
        self.places = (tmp_path / str(number) / "store" for number in range(10**9))

    def make(self) -> LocalStore:
        return LocalStore(next(self.places))

    def again(self, store: LocalStore) -> LocalStore:
        return LocalStore(store.path)


class TestLocalStoreWithoutTmpfile(TestLocalStore):
    @pytest.fixture(autouse=True)
    def _take_it_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        without_tmpfile(monkeypatch)


class TestMemoryStore(StoreTests):
    def make(self) -> MemoryStore:
        return MemoryStore()


class TestPlain(StoreTests):
    """The store that the broken ones derive from."""

    def make(self) -> broken.Plain:
        return broken.Plain()

    def again(self, store: broken.Plain) -> broken.Plain:
        return broken.Plain(store.path)


class TestFaultyStore(StoreTests):
    """Without a fault it behaves like the store in it."""

    def make(self) -> FaultyStore:
        return FaultyStore(MemoryStore(), "fail", "create", at=10**9)


REASONS: list[tuple[Any, str, str]] = [
    (broken.ListsTwice, "lists_what_it_holds", "or listed twice"),
    (broken.LocalTime, "lists_what_it_holds", "Unix seconds"),
    (
        broken.ShortReads,
        "gives_back_the_bytes",
        "a short read must not look like a whole",
    ),
    (broken.Collects, "uses_each_chunk_at_once", "write each one when it comes"),
    (broken.Overwrites, "never_overwrites", "a rename at the end that replaces"),
    (broken.InPlace, "an_error_leaves_nothing", "straight to the final name"),
    (broken.AnySize, "a_wrong_size_is_refused", "count the bytes as they come"),
    (broken.ShowsUnfinished, "shows_nothing_unfinished", "leave those out"),
    (broken.CleansUp, "shows_nothing_unfinished", "write aside"),
    (broken.DeletesAnything, "deletes", "an error that is passed over"),
    (broken.ForgetsDeletes, "deletes", "open of what was deleted"),
    (broken.ReopensByName, "keeps_an_open_reader", "keep the handle"),
    (broken.AnyName, "refuses_bad_names", "before it is checked"),
    (broken.LockForNobody, "locks", "a lock that nobody else sees"),
    (broken.LockThatStays, "locks", "not released after an error"),
    (
        broken.ChecksThenWrites,
        "one_of_racing_writers_wins",
        "a check and then a rename",
    ),
    (broken.DeletesAnything, "behaves_as_a_dict", "delete("),
]


def of(cls: Any) -> StoreTests:
    class Tests(StoreTests):
        def make(self) -> Any:
            return cls()

        def again(self, store: Any) -> Any:
            return cls(store.path)

    return Tests()


def the_test(promise: str) -> Callable[..., None]:
    test: Callable[..., None] = getattr(StoreTests, f"test_{promise}")
    return test


@pytest.mark.parametrize(("cls", "promise", "text"), REASONS, ids=range(len(REASONS)))
def test_a_promise_rejects_the_store_that_breaks_it(cls: Any, promise: str, text: str) -> None:
    with pytest.raises(ObligationBroken) as error:
        the_test(promise)(of(cls))
    assert error.value.obligation == name_of(the_test(promise))
    assert text in str(error.value)


@pytest.mark.parametrize(
    "cls", dict.fromkeys(row[0] for row in REASONS), ids=lambda cls: cls.__name__
)
def test_the_whole_kit_rejects_every_broken_store(cls: Any) -> None:
    with pytest.raises(ObligationBroken):
        verify_store(cls, again=lambda store: cls(store.path))


def test_every_promise_has_a_name_and_a_store_that_breaks_it() -> None:
    promises = obligations_of(StoreTests)
    assert {the_test(promise) for _, promise, _ in REASONS} == {*promises}
    assert len({name_of(promise) for promise in promises}) == len(promises) == 13


def test_the_error_without_make_names_it() -> None:
    class TestNothing(StoreTests):
        pass

    with pytest.raises(NotImplementedError, match="TestNothing needs a method make"):
        TestNothing().test_deletes()


# --- faults --------------------------------------------------------------------------------------


def save(store: Any, steps: int) -> Any:
    return asyncio.run(Checkpointer(after(steps), store).save()).result()


@pytest.mark.parametrize("operation", ["create", "list", "lock"])
def test_a_failed_save_raises_and_changes_nothing(operation: Any) -> None:
    store = MemoryStore()
    save(store, 1)
    faulty = FaultyStore(store, "fail", operation)
    with pytest.raises(StoreError, match="a fault"):
        save(faulty, 2)
    assert faulty.happened
    assert [entry.step for entry in archive.entries(store)] == [1]
    assert save(faulty, 2).step == 2


def test_a_torn_write_is_skipped() -> None:
    store = MemoryStore()
    save(store, 1)
    with pytest.raises(StoreError, match="a fault"):
        save(FaultyStore(store, "tear", "create"), 2)
    latest = archive.latest(store, CounterCheckpoint)
    assert latest is not None
    assert latest.entry.step == 1
    assert [entry.step for entry, _ in latest.skipped] == [2]


def test_a_torn_read_is_detected() -> None:
    store = MemoryStore()
    name = save(store, 3).name
    reads = FaultyStore(store, "tear", "read", at=10**9)
    archive.load(reads, name, CounterCheckpoint)
    for number in range(1, reads._calls):  # half of the first read, the length, is zeros anyway
        faulty = FaultyStore(store, "tear", "read", at=number)
        with pytest.raises(CorruptCheckpoint):
            archive.load(faulty, name, CounterCheckpoint)
        assert faulty.happened


@pytest.mark.parametrize("operation", ["open", "list", "delete", "lock"])
def test_another_torn_operation_is_done_and_raises(operation: Any) -> None:
    store = MemoryStore()
    store.create("a", 1, [b"x"])
    faulty = FaultyStore(store, "tear", operation)
    calls: dict[str, Callable[[], Any]] = {
        "open": lambda: faulty.open("a").__enter__(),
        "list": lambda: list(faulty.list()),
        "delete": lambda: faulty.delete("a"),
        "lock": lambda: faulty.lock().__enter__(),
    }
    if operation == "lock":
        with pytest.raises(StoreError, match="a fault"), faulty.lock():
            pass
    else:
        with pytest.raises(StoreError, match="a fault"):
            calls[operation]()
    assert ("a" in {entry.name for entry in store.list()}) is (operation != "delete")


def test_a_delay_lasts_as_long_as_the_test_wants() -> None:
    store, reached, resume = MemoryStore(), threading.Event(), threading.Event()
    save(store, 1)

    def wait() -> None:
        reached.set()
        assert resume.wait(60)

    saving = threading.Thread(
        target=save, args=(FaultyStore(store, "delay", "create", wait=wait), 2)
    )
    saving.start()
    assert reached.wait(60)
    latest = archive.latest(store, CounterCheckpoint)
    resume.set()
    saving.join()
    assert latest is not None
    assert latest.entry.step == 1
    assert [entry.step for entry in archive.entries(store)] == [1, 2]


def test_only_the_chosen_call_fails() -> None:
    faulty = FaultyStore(MemoryStore(), "fail", "create", at=1, error=OSError("mine"))
    faulty.create("a", 0, [])
    assert not faulty.happened
    with pytest.raises(OSError, match="mine"):
        faulty.create("b", 0, [])
    faulty.create("c", 0, [])
    assert sorted(entry.name for entry in faulty.list()) == ["a", "c"]
