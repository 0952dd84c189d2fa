"""The kit for stores: `StoreTests` has a test for each promise, and `verify_store` runs them.

The first line of a test's docstring is the promise in words; its failures begin with it.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import hypothesis
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from checkpointable.errors import (
    CheckpointExists,
    CorruptCheckpoint,
    NoCheckpoint,
    StoreError,
    StoreLocked,
)
from checkpointable.stores import Buffer, Reader, Store
from checkpointable.testing.report import (
    ObligationBroken,
    broken,
    obligation,
    obligations_of,
    small_settings,
)

SETTINGS = small_settings(examples=50, steps=30)
"""Enough for a store on this machine; give your own for more, or for a slow store."""

BAD_NAMES = ("", ".", "..", ".hidden", "a/b", "/a", "../a", "a\0b", "ü" * 128, "\ud800")
NAMES = ("step-000000000001.safetensors", "a", "a b", "ä" * 127, "x" * 255)
KINDS: tuple[Callable[[bytes], Buffer], ...] = (bytes, bytearray, memoryview)


class StoreTests:
    """Tests of a store's promises: subclass it in a test module, and give `make`.

    ```python
    class TestMyStore(StoreTests):
        def make(self) -> MyStore:
            return MyStore(tempfile.mkdtemp())

        def again(self, store: MyStore) -> MyStore:
            return MyStore(store.path)
    ```
    """

    settings: ClassVar[hypothesis.settings] = SETTINGS

    def make(self) -> Store:
        """Make a new, empty store."""
        raise NotImplementedError(f"{type(self).__name__} needs a method make(self)")

    def again(self, store: Any) -> Store | None:
        """Open the same place once more, as another process would; None if that cannot be."""
        return None

    @obligation
    def test_lists_what_it_holds(self) -> None:
        """Every whole blob is listed once: name, size and time of creation."""
        store, now = self.make(), time.time()
        if listed(store):
            raise broken("a new store is not empty", cause="make() has to give a new place")
        for size, name in enumerate(NAMES):
            store.create(name, size, [b"x" * size])
        for view in (store, self.again(store) or store):
            names = sorted(entry.name for entry in view.list())
            if names != sorted(NAMES):
                raise broken(f"it lists {names}", cause="names that are changed, or listed twice")
            for entry in view.list():
                where = f"the entry of {entry.name!r:.40}"
                if entry.size != NAMES.index(entry.name):
                    what, cause = f"its size is {entry.size}", "a size that is not the blob's"
                    raise broken(what, where=where, cause=cause)
                if abs(entry.created - now) >= 86_400:
                    what = f"its time of creation is {entry.created}"
                    raise broken(what, where=where, cause="it must be Unix seconds, in UTC")

    @obligation
    def test_gives_back_the_bytes(self) -> None:
        """What was created is read back, whole and in any range."""
        store, numbers = self.make(), iter(range(10**9))

        def check(parts: list[bytes], kind: Callable[[bytes], Buffer], data: st.DataObject) -> None:
            blob, name = b"".join(parts), f"blob-{next(numbers)}"
            store.create(name, len(blob), iter([kind(part) for part in parts]))
            where = f"{len(parts)} chunks of {[len(part) for part in parts]} bytes"
            if read(store, name) != blob:
                raise broken("other bytes came back", where=where, cause="chunks mixed up")
            begin = data.draw(st.integers(0, len(blob)))
            end = data.draw(st.integers(begin, len(blob)))
            buffer = bytearray(b"?" * (end - begin))
            with store.open(name) as reader:
                if reader.size != len(blob):
                    what, cause = f"its size is {reader.size}", "a size that is not the blob's"
                    raise broken(what, where=where, cause=cause)
                reader.read_into(begin, memoryview(buffer))
                if buffer != blob[begin:end]:
                    where = f"bytes {begin} to {end}, {where}"
                    raise broken("a range is wrong", where=where, cause="an offset")
                for at, length in ((len(blob), 1), (begin, len(blob) - begin + 1), (2**50, 1)):
                    where = f"{length} bytes from {at} of {len(blob)}"
                    cause = "a short read must not look like a whole one"
                    with expect_raises(CorruptCheckpoint, where, cause):
                        reader.read_into(at, memoryview(bytearray(length)))

        chunks = st.lists(st.binary(max_size=2000), max_size=5)
        self.settings(given(parts=chunks, kind=st.sampled_from(KINDS), data=st.data())(check))()

    @obligation
    def test_uses_each_chunk_at_once(self) -> None:
        """Each chunk is used up before the next is asked for, also with blobs of many MiB."""
        store, block = self.make(), bytearray(1 << 20)

        def chunks() -> Iterator[Buffer]:
            for number in range(5):
                block[:] = bytes([number]) * len(block)
                yield memoryview(block)

        store.create("a", 5 * len(block), chunks())
        if read(store, "a") != b"".join(bytes([number]) * len(block) for number in range(5)):
            cause = "chunks are collected first: write each one when it comes"
            raise broken("earlier chunks hold the bytes of later ones", cause=cause)

    @obligation
    def test_never_overwrites(self) -> None:
        """A name that is taken stays as it is."""
        store, cause = self.make(), "a put that replaces: create it exclusively"
        store.create("a", 3, [b"old"])
        with expect_raises(CheckpointExists, "create of a name that is taken", cause):
            store.create("a", 5, [b"newer"])
        if read(store, "a") != b"old":
            raise broken("the old bytes are gone", cause=cause)

        def meanwhile() -> Iterator[bytes]:
            store.create("b", 5, [b"first"])
            yield b"second"

        where = "a name that was taken while the chunks were written"
        cause = "a check at the beginning, and a rename at the end that replaces"
        with expect_raises(CheckpointExists, where, cause):
            store.create("b", 6, meanwhile())
        if read(store, "b") != b"first":
            raise broken("the first blob is gone", where=where, cause=cause)
        if listed(store) != {"a": 3, "b": 5}:
            raise broken(f"it lists {listed(store)}", where=where, cause="leftovers")

    @obligation
    def test_an_error_leaves_nothing(self) -> None:
        """If the chunks raise, that error passes and nothing is stored."""
        store = self.make()
        cause = "a put straight to the final name: write aside and publish at the end"
        for error in (ValueError("of the chunks"), OSError(28, "of the chunks")):

            def chunks(error: Exception = error) -> Iterator[bytes]:
                yield b"x" * 100
                raise error

            where = "chunks that raise"
            with expect_raises(type(error), where, "the error is replaced by another"):
                store.create("a", 200, chunks())
            _expect_absent(store, "a", "after chunks that raised", cause)
        store.create("a", 1, [b"y"])

    @obligation
    def test_a_wrong_size_is_refused(self) -> None:
        """Chunks that are not of the announced size are refused, and nothing is stored."""
        store = self.make()
        for size in (0, 9, 11, 10**7):
            where, cause = f"10 bytes came, {size} were announced", "count the bytes as they come"
            with expect_raises(StoreError, where, cause):
                store.create("a", size, [b"01234", b"56789"])
            _expect_absent(store, "a", where, "publish after the check")

    @obligation
    def test_shows_nothing_unfinished(self) -> None:
        """What is being created is neither listed nor opened, under no name at all."""
        store = self.make()
        cause = "unfinished blobs under a name that list() shows: leave those out, or write aside"

        def chunks() -> Iterator[bytes]:
            yield b"x" * 100_000
            for view in (store, self.again(store) or store):
                _expect_absent(view, "a", "in the middle of it", cause)
            yield b"y"

        store.create("a", 100_001, chunks())

    @obligation
    def test_deletes(self) -> None:
        """What was deleted is gone, and what is not there cannot be deleted."""
        store, cause = self.make(), "an error that is passed over"
        with expect_raises(NoCheckpoint, "delete of what never was", cause):
            store.delete("a")
        store.create("a", 3, [b"abc"])
        store.create("b", 1, [b"b"])
        store.delete("a")
        for view in (store, self.again(store) or store):
            if listed(view) != {"b": 1}:
                raise broken(f"it lists {listed(view)}", cause="nothing was deleted")
            with expect_raises(NoCheckpoint, "open of what was deleted", cause):
                view.open("a").__enter__()
        with expect_raises(NoCheckpoint, "delete for the second time", cause):
            store.delete("a")
        store.create("a", 3, [b"new"])
        if read(store, "a") != b"new":
            raise broken("its name gives the old bytes", cause="a cache")

    @obligation
    def test_keeps_an_open_reader(self) -> None:
        """A reader stays readable until it is closed, also after a delete."""
        store = self.make()
        store.create("a", 6, [b"abcdef"])
        buffer = bytearray(3)
        with store.open("a") as reader:
            store.delete("a")
            try:
                reader.read_into(3, memoryview(buffer))
            except Exception as error:
                what = f"it raised {type(error).__name__}: {error}"
                cause = "each read opens by name again: keep the handle"
                raise broken(what, cause=cause) from error
        if buffer != b"def":
            raise broken(f"it read {bytes(buffer)!r}", cause="a handle reused")

    @obligation
    def test_refuses_bad_names(self) -> None:
        """Only plain names: 1 to 255 bytes of UTF-8, no slash, no NUL, no dot at the beginning."""
        store = self.make()
        calls: dict[str, Callable[[str], object]] = {
            "create": lambda name: store.create(name, 0, []),
            "open": lambda name: store.open(name).__enter__(),
            "delete": lambda name: store.delete(name),
        }
        for name in BAD_NAMES:
            for method, call in calls.items():
                cause = "a name that is used as a path or key before it is checked"
                with expect_raises(StoreError, f"{method}({name!r:.40})", cause):
                    call(name)
        if listed(store):
            raise broken(f"it lists {listed(store)}", cause="a check that comes too late")

    @obligation
    def test_locks(self) -> None:
        """The lock admits its own store object again, and nobody else."""
        store = self.make()
        with store.lock():
            with store.lock():
                store.create("a", 1, [b"x"])
            store.create("b", 1, [b"x"])
            other = self.again(store)
            if other is not None:
                cause = "a lock that nobody else sees, or that ends with the innermost block"
                with expect_raises(StoreLocked, "lock() of another object", cause):
                    other.lock().__enter__()
                with expect_raises(StoreLocked, "create() of another object", cause):
                    other.create("c", 0, [])
                if listed(other) != {"a": 1, "b": 1}:
                    raise broken("others cannot read", cause="reading needs no lock")
        try:
            with store.lock():
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        for name, view in (("c", store), ("d", self.again(store) or store)):
            try:
                view.create(name, 0, [])
            except StoreLocked as error:
                cause = "it is not released after an error"
                raise broken("it is still held after its block", cause=cause) from error

    @obligation
    def test_one_of_racing_writers_wins(self) -> None:
        """Of threads that create one name, one wins, and the others are told."""
        store, count = self.make(), 4
        for turn in range(20):
            name, barrier, outcomes = f"race-{turn}", threading.Barrier(count), [""] * count
            threads = [
                threading.Thread(target=_race, args=(store, name, number, barrier, outcomes))
                for number in range(count)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if sorted(outcomes) != ["exists"] * (count - 1) + ["won"]:
                cause = "a check and then a rename: link, or exclusive"
                raise broken(f"the outcomes are {outcomes}", cause=cause)
            if read(store, name) != bytes([outcomes.index("won")]) * 4:
                raise broken("it holds the bytes of a loser", cause="a rename")

    @obligation
    def test_behaves_as_a_dict(self) -> None:
        """Any order of calls has the results that a dict of bytes would have."""
        run_state_machine_as_test(_history(self), settings=self.settings)


def verify_store(
    make: Callable[[], Store],
    *,
    again: Callable[[Any], Store | None] = lambda store: None,
    settings: hypothesis.settings = SETTINGS,
) -> None:
    """Check every promise of the stores that `make()` gives; silent if all is well.

    `make` gives a new, empty store each time. `again(store)` opens the same place once more, as
    another process would; None if that cannot be (a store in memory).

    Raises `ObligationBroken`, an `AssertionError`, for the first promise that is not kept.

    >>> from checkpointable import MemoryStore
    >>> verify_store(MemoryStore)
    """

    class Tests(StoreTests):
        def make(self) -> Store:
            return make()

        def again(self, store: Any) -> Store | None:
            return again(store)

    Tests.settings = settings
    for test in obligations_of(StoreTests):
        test(Tests())


def read(store: Store, name: str) -> bytes:
    """Return all bytes of a blob."""
    with store.open(name) as reader:
        buffer = bytearray(reader.size)
        reader.read_into(0, memoryview(buffer))
    return bytes(buffer)


def listed(store: Store) -> dict[str, int]:
    """Return the sizes of all blobs, by name."""
    return {entry.name: entry.size for entry in store.list()}


@contextmanager
def expect_raises(expected: type[Exception], where: str, cause: str) -> Iterator[None]:
    """Raise `ObligationBroken` unless the block raises this error."""
    try:
        yield
    except expected:
        return
    except ObligationBroken:
        raise
    except Exception as error:  # whatever a user's store raises
        what = f"it raised {type(error).__name__}: {error}, not {expected.__name__}"
        raise broken(what, where=where, cause=cause) from error
    what = f"it succeeded, but must raise {expected.__name__}"
    raise broken(what, where=where, cause=cause)


def _expect_absent(store: Store, name: str, where: str, cause: str) -> None:
    names = sorted(listed(store))
    if names:
        raise broken(f"it lists {names}", where=where, cause=cause)
    with expect_raises(NoCheckpoint, f"open({name!r}) {where}", cause):
        store.open(name).__enter__()


def _race(
    store: Store, name: str, number: int, barrier: threading.Barrier, outcomes: list[str]
) -> None:
    barrier.wait()
    try:
        store.create(name, 4, [bytes([number]) * 4])
    except CheckpointExists:
        outcomes[number] = "exists"
    except Exception as error:  # reported by the thread that compares the outcomes
        outcomes[number] = f"{type(error).__name__}: {error}"
    else:
        outcomes[number] = "won"


def _history(tests: StoreTests) -> type[RuleBasedStateMachine]:
    """Return a machine that makes random calls of a store, and compares each result with a dict's.

    Its attributes are the store, the dict that it must equal, and the readers that are open.
    """
    names = st.sampled_from(["a", "b", "c.1", "step-000000000001.safetensors"])

    class History(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.store = tests.make()
            self.model: dict[str, bytes] = {}
            self.readers: list[tuple[Reader, bytes]] = []
            self.stack = ExitStack()

        @rule(name=names, parts=st.lists(st.binary(max_size=50), max_size=3))
        def create(self, name: str, parts: list[bytes]) -> None:
            blob = b"".join(parts)
            if name in self.model:
                with expect_raises(CheckpointExists, f"create({name!r})", "a put that replaces"):
                    self.store.create(name, len(blob), parts)
            else:
                self.store.create(name, len(blob), parts)
                self.model[name] = blob

        @rule(name=names)
        def fail_to_create(self, name: str) -> None:
            def chunks() -> Iterator[bytes]:
                yield b"half"
                raise ZeroDivisionError

            error = CheckpointExists if name in self.model else ZeroDivisionError
            with expect_raises(error, f"create({name!r}) with chunks that raise", ""):
                self.store.create(name, 8, chunks())

        @rule(name=names)
        def read(self, name: str) -> None:
            if name not in self.model:
                with expect_raises(NoCheckpoint, f"open({name!r})", ""):
                    self.store.open(name).__enter__()
            elif read(self.store, name) != self.model[name]:
                raise broken("other bytes came back", where=f"open({name!r})")

        @rule(name=names)
        def delete(self, name: str) -> None:
            if self.model.pop(name, None) is not None:
                self.store.delete(name)
            else:
                with expect_raises(NoCheckpoint, f"delete({name!r})", ""):
                    self.store.delete(name)

        @rule(name=names)
        def hold_a_reader(self, name: str) -> None:
            if name in self.model:
                reader = self.stack.enter_context(self.store.open(name))
                self.readers.append((reader, self.model[name]))

        @rule()
        def open_the_place_again(self) -> None:
            self.store = tests.again(self.store) or self.store

        @invariant()
        def it_lists_what_the_dict_has(self) -> None:
            expected = {name: len(blob) for name, blob in self.model.items()}
            if listed(self.store) != expected:
                raise broken(f"it lists {listed(self.store)}, not {expected}")

        @invariant()
        def readers_stay_valid(self) -> None:
            for reader, blob in self.readers:
                buffer = bytearray(len(blob))
                reader.read_into(0, memoryview(buffer))
                if buffer != blob:
                    raise broken("an open reader gives other bytes")

        def teardown(self) -> None:
            self.stack.close()

    return History
