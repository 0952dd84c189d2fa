"""The promises of a store, one function each.

The first line of a function's docstring is the promise in words; its failures begin with it.
"""

import threading
import time
from collections.abc import Callable, Iterator

from hypothesis import given
from hypothesis import strategies as st

from checkpointable.errors import (
    CheckpointExists,
    CorruptCheckpoint,
    NoCheckpoint,
    StoreError,
    StoreLocked,
)
from checkpointable.stores import Buffer, Store
from checkpointable.testing.report import ObligationBroken, words
from checkpointable.testing.stores._machine import run_machine
from checkpointable.testing.stores._subject import StoreSubject, expect, expect_raises, listed, read

BAD_NAMES = ("", ".", "..", ".hidden", "a/b", "/a", "../a", "a\0b", "ü" * 128, "\ud800")
NAMES = ("step-000000000001.safetensors", "a", "a b", "ä" * 127, "x" * 255)
KINDS: tuple[Callable[[bytes], Buffer], ...] = (bytes, bytearray, memoryview)


def gives_back_the_bytes(subject: StoreSubject) -> None:
    """What was created is read back, whole and in any range."""
    me, numbered = gives_back_the_bytes, iter(range(10**9))
    store = subject.make()

    def check(parts: list[bytes], kind: Callable[[bytes], Buffer], data: st.DataObject) -> None:
        blob, name = b"".join(parts), f"blob-{next(numbered)}"
        store.create(name, len(blob), iter([kind(part) for part in parts]))
        where = f"{len(parts)} chunks of {[len(part) for part in parts]} bytes"
        expect(me, read(store, name) == blob, "other bytes came back", "chunks mixed up", where)
        begin = data.draw(st.integers(0, len(blob)))
        end = data.draw(st.integers(begin, len(blob)))
        buffer = bytearray(b"?" * (end - begin))
        with store.open(name) as reader:
            size = f"its size is {reader.size}"
            expect(me, reader.size == len(blob), size, "a size that is not the blob's", where)
            reader.read_into(begin, memoryview(buffer))
            good = buffer == blob[begin:end]
            expect(me, good, "a range is wrong", "an offset", f"bytes {begin} to {end}, {where}")
            for at, length in ((len(blob), 1), (begin, len(blob) - begin + 1), (2**50, 1)):
                where = f"{length} bytes from {at} of {len(blob)}"
                cause = "a short read must not look like a whole one"
                with expect_raises(me, CorruptCheckpoint, where, cause):
                    reader.read_into(at, memoryview(bytearray(length)))

    parts = st.lists(st.binary(max_size=2000), max_size=5)
    subject.settings(given(parts=parts, kind=st.sampled_from(KINDS), data=st.data())(check))()


def uses_each_chunk_at_once(subject: StoreSubject) -> None:
    """Each chunk is used up before the next is asked for, also with blobs of many MiB."""
    store, block = subject.make(), bytearray(1 << 20)

    def chunks() -> Iterator[Buffer]:
        for number in range(5):
            block[:] = bytes([number]) * len(block)
            yield memoryview(block)

    store.create("a", 5 * len(block), chunks())
    expected = b"".join(bytes([number]) * len(block) for number in range(5))
    cause = "chunks are collected first: write each one when it comes"
    good = read(store, "a") == expected
    expect(uses_each_chunk_at_once, good, "earlier chunks hold the bytes of later ones", cause)


def never_overwrites(subject: StoreSubject) -> None:
    """A name that is taken stays as it is."""
    store, cause = subject.make(), "a put that replaces: create it exclusively"
    store.create("a", 3, [b"old"])
    with expect_raises(never_overwrites, CheckpointExists, "create of a name that is taken", cause):
        store.create("a", 5, [b"newer"])
    expect(never_overwrites, read(store, "a") == b"old", "the old bytes are gone", cause)

    def meanwhile() -> Iterator[bytes]:
        store.create("b", 5, [b"first"])
        yield b"second"

    where = "a name that was taken while the chunks were written"
    cause = "a check at the beginning, and a rename at the end that replaces"
    with expect_raises(never_overwrites, CheckpointExists, where, cause):
        store.create("b", 6, meanwhile())
    expect(never_overwrites, read(store, "b") == b"first", "the first is gone", cause, where)
    good = listed(store) == {"a": 3, "b": 5}
    expect(never_overwrites, good, f"it lists {listed(store)}", "leftovers", where)


def an_error_leaves_nothing(subject: StoreSubject) -> None:
    """If the chunks raise, that error passes and nothing is stored."""
    me, store = an_error_leaves_nothing, subject.make()
    cause = "a put straight to the final name: write aside and publish at the end"
    for error in (ValueError("of the chunks"), OSError(28, "of the chunks")):

        def chunks(error: Exception = error) -> Iterator[bytes]:
            yield b"x" * 100
            raise error

        with expect_raises(me, type(error), "chunks that raise", "errors are not to be changed"):
            store.create("a", 200, chunks())
        _expect_absent(me, store, "a", cause, "after chunks that raised")
    store.create("a", 1, [b"y"])


def a_wrong_size_is_refused(subject: StoreSubject) -> None:
    """Chunks that are not of the announced size are refused, and nothing is stored."""
    me, store = a_wrong_size_is_refused, subject.make()
    for size in (0, 9, 11, 10**7):
        where, cause = f"10 bytes came, {size} were announced", "count the bytes as they come"
        with expect_raises(me, StoreError, where, cause):
            store.create("a", size, [b"01234", b"56789"])
        _expect_absent(me, store, "a", "publish after the check", where)


def _expect_absent(
    promise: Callable[..., None], store: Store, name: str, cause: str, where: str
) -> None:
    names = sorted(listed(store))
    expect(promise, not names, f"it lists {names}", cause, where)
    with expect_raises(promise, NoCheckpoint, f"open({name!r}) {where}", cause):
        store.open(name).__enter__()


def shows_nothing_unfinished(subject: StoreSubject) -> None:
    """What is being created is neither listed nor opened, under no name at all."""
    store = subject.make()
    cause = "unfinished blobs under a name that list() shows: leave those out, or write aside"

    def chunks() -> Iterator[bytes]:
        yield b"x" * 100_000
        for view in (store, subject.again(store)):
            if view is not None:
                _expect_absent(shows_nothing_unfinished, view, "a", cause, "in the middle of it")
        yield b"y"

    store.create("a", 100_001, chunks())


def lists_what_it_holds(subject: StoreSubject) -> None:
    """Every whole blob is listed once: name, size and time of creation."""
    me, store, now = lists_what_it_holds, subject.make(), time.time()
    expect(me, listed(store) == {}, "a new store is not empty", "make() has to give a new place")
    for size, name in enumerate(NAMES):
        store.create(name, size, [b"x" * size])
    for view in (store, subject.again(store) or store):
        names = sorted(entry.name for entry in view.list())
        expect(me, names == sorted(NAMES), f"it lists {names}", "names that are changed, or twice")
        for entry in view.list():
            where = f"the entry of {entry.name!r:.40}"
            good = entry.size == NAMES.index(entry.name)
            expect(me, good, f"its size is {entry.size}", "a size that is not the blob's", where)
            good = abs(entry.created - now) < 86_400
            cause = "Unix seconds, in UTC"
            expect(me, good, f"it was created at {entry.created}", cause, where)


def deletes(subject: StoreSubject) -> None:
    """What was deleted is gone, and what is not there cannot be deleted."""
    me, store, cause = deletes, subject.make(), "an error that is passed over"
    with expect_raises(me, NoCheckpoint, "delete of what never was", cause):
        store.delete("a")
    store.create("a", 3, [b"abc"])
    store.create("b", 1, [b"b"])
    store.delete("a")
    for view in (store, subject.again(store) or store):
        expect(me, listed(view) == {"b": 1}, f"it lists {listed(view)}", "nothing was deleted")
        with expect_raises(me, NoCheckpoint, "open of what was deleted", cause):
            view.open("a").__enter__()
    with expect_raises(me, NoCheckpoint, "delete for the second time", cause):
        store.delete("a")
    store.create("a", 3, [b"new"])
    expect(me, read(store, "a") == b"new", "its name gives the old bytes", "a cache")


def keeps_an_open_reader(subject: StoreSubject) -> None:
    """A reader stays readable until it is closed, also after a delete."""
    store = subject.make()
    store.create("a", 6, [b"abcdef"])
    buffer = bytearray(3)
    with store.open("a") as reader:
        store.delete("a")
        try:
            reader.read_into(3, memoryview(buffer))
        except Exception as error:
            raise ObligationBroken(
                words(keeps_an_open_reader),
                f"it raised {type(error).__name__}: {error}",
                cause="each read opens by name again: keep the handle",
            ) from error
    expect(keeps_an_open_reader, buffer == b"def", f"it read {bytes(buffer)!r}", "a handle reused")


def refuses_bad_names(subject: StoreSubject) -> None:
    """Only plain names: 1 to 255 bytes of UTF-8, no slash, no NUL, no dot at the beginning."""
    me, store = refuses_bad_names, subject.make()
    calls: dict[str, Callable[[str], object]] = {
        "create": lambda name: store.create(name, 0, []),
        "open": lambda name: store.open(name).__enter__(),
        "delete": lambda name: store.delete(name),
    }
    for name in BAD_NAMES:
        for method, call in calls.items():
            cause = "a name that is used as a path or key before it is checked"
            with expect_raises(me, StoreError, f"{method}({name!r:.40})", cause):
                call(name)
    expect(me, listed(store) == {}, f"it lists {listed(store)}", "a check that comes too late")


def locks(subject: StoreSubject) -> None:
    """The lock admits its own store object again, and nobody else."""
    me, store = locks, subject.make()
    with store.lock():
        with store.lock():
            store.create("a", 1, [b"x"])
        store.create("b", 1, [b"x"])
        other = subject.again(store)
        if other is not None:
            cause = "a lock that nobody else sees, or that ends with the innermost block"
            with expect_raises(me, StoreLocked, "lock() of another object", cause):
                other.lock().__enter__()
            with expect_raises(me, StoreLocked, "create() of another object", cause):
                other.create("c", 0, [])
            good = listed(other) == {"a": 1, "b": 1}
            expect(me, good, "others cannot read", "reading needs no lock")
    try:
        with store.lock():
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    for name, view in (("c", store), ("d", subject.again(store) or store)):
        try:
            view.create(name, 0, [])
        except StoreLocked as error:
            what, cause = "it is still held after its block", "it is not released after an error"
            raise ObligationBroken(words(me), what, cause=cause) from error


def one_of_racing_writers_wins(subject: StoreSubject) -> None:
    """Of threads that create one name, one wins, and the others are told."""
    me, store, count = one_of_racing_writers_wins, subject.make(), 4
    for turn in range(20):
        barrier, ended = threading.Barrier(count), [""] * count

        def write(number: int) -> None:
            barrier.wait()  # noqa: B023  (the threads end within the turn)
            try:
                store.create(f"race-{turn}", 4, [bytes([number]) * 4])  # noqa: B023
            except CheckpointExists:
                ended[number] = "exists"  # noqa: B023
            except Exception as error:  # told below
                ended[number] = f"{type(error).__name__}: {error}"  # noqa: B023
            else:
                ended[number] = "won"  # noqa: B023

        threads = [threading.Thread(target=write, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        good = sorted(ended) == ["exists"] * (count - 1) + ["won"]
        expect(me, good, f"they ended so: {ended}", "a check and then a rename: link, or exclusive")
        winner = bytes([ended.index("won")]) * 4
        expect(me, read(store, f"race-{turn}") == winner, "a loser's bytes are there", "a rename")


def behaves_as_a_dict(subject: StoreSubject) -> None:
    """Any order of calls has the results that a dict of bytes would have."""
    run_machine(subject, behaves_as_a_dict)


PROMISES: tuple[Callable[[StoreSubject], None], ...] = (
    lists_what_it_holds,
    gives_back_the_bytes,
    uses_each_chunk_at_once,
    never_overwrites,
    an_error_leaves_nothing,
    a_wrong_size_is_refused,
    shows_nothing_unfinished,
    deletes,
    keeps_an_open_reader,
    refuses_bad_names,
    locks,
    one_of_racing_writers_wins,
    behaves_as_a_dict,
)
"""All of them."""
