"""Prove that a store keeps its promises: in pytest with `StoreTests`, anywhere by a call."""

from collections.abc import Callable
from typing import Any, ClassVar

import hypothesis

from checkpointable.stores import Store
from checkpointable.testing.report import few
from checkpointable.testing.stores import _promises as promises
from checkpointable.testing.stores._subject import StoreSubject

SETTINGS = few(examples=50, steps=30)
"""Enough for a store on this machine; give your own for more, or for a slow one."""


def _no_other(store: Any) -> Store | None:
    return None


def verify_store(
    make: Callable[[], Store],
    *,
    again: Callable[[Any], Store | None] = _no_other,
    settings: hypothesis.settings = SETTINGS,
) -> None:
    """Check every promise of the stores that `make()` gives; silent if all is well.

    `make` gives a new, empty store each time. `again(store)` opens the same place once more, as
    another process would; None if that cannot be (a store in memory).

    Raises `ObligationBroken`, an `AssertionError`, for the first promise that is not kept.

    >>> from checkpointable import MemoryStore
    >>> verify_store(MemoryStore)
    """
    subject = StoreSubject(make, again, settings)
    for promise in promises.PROMISES:
        promise(subject)


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

    def _check(self, promise: Callable[[StoreSubject], None]) -> None:
        promise(StoreSubject(self.make, self.again, self.settings))

    def test_lists_what_it_holds(self) -> None:
        """Every whole blob is listed once: name, size and time of creation."""
        self._check(promises.lists_what_it_holds)

    def test_gives_back_the_bytes(self) -> None:
        """What was created is read back, whole and in any range."""
        self._check(promises.gives_back_the_bytes)

    def test_uses_each_chunk_at_once(self) -> None:
        """Each chunk is used up before the next is asked for, also with blobs of many MiB."""
        self._check(promises.uses_each_chunk_at_once)

    def test_never_overwrites(self) -> None:
        """A name that is taken stays as it is."""
        self._check(promises.never_overwrites)

    def test_an_error_leaves_nothing(self) -> None:
        """If the chunks raise, that error passes and nothing is stored."""
        self._check(promises.an_error_leaves_nothing)

    def test_a_wrong_size_is_refused(self) -> None:
        """Chunks that are not of the announced size are refused, and nothing is stored."""
        self._check(promises.a_wrong_size_is_refused)

    def test_shows_nothing_unfinished(self) -> None:
        """What is being created is neither listed nor opened, under no name at all."""
        self._check(promises.shows_nothing_unfinished)

    def test_deletes(self) -> None:
        """What was deleted is gone, and what is not there cannot be deleted."""
        self._check(promises.deletes)

    def test_keeps_an_open_reader(self) -> None:
        """A reader stays readable until it is closed, also after a delete."""
        self._check(promises.keeps_an_open_reader)

    def test_refuses_bad_names(self) -> None:
        """Only plain names: 1 to 255 bytes of UTF-8, no slash, no NUL, no dot at the beginning."""
        self._check(promises.refuses_bad_names)

    def test_locks(self) -> None:
        """The lock admits its own store object again, and nobody else."""
        self._check(promises.locks)

    def test_one_of_racing_writers_wins(self) -> None:
        """Of threads that create one name, one wins, and the others are told."""
        self._check(promises.one_of_racing_writers_wins)

    def test_behaves_as_a_dict(self) -> None:
        """Any order of calls has the results that a dict of bytes would have."""
        self._check(promises.behaves_as_a_dict)
