"""A store that fails once, where a test wants it to."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

from attrs import define, field, frozen

from checkpointable.errors import StoreError
from checkpointable.stores import Buffer, Entry, Reader, Store, exactly

Operation: TypeAlias = Literal["create", "open", "read", "list", "delete", "lock"]
Fault: TypeAlias = Literal["fail", "tear", "delay"]


@define(eq=False)
class FaultyStore:
    """Passes every call to another store, except for one call of one operation.

    That is call `at` (from 0) of `operation`. `fault` is what happens to it:

    - "fail": it raises `error` and does nothing.
    - "tear": `create` leaves the first half of the bytes under the name, as a store that is not
      atomic does when it is killed, and raises; `read` gives the first half and zeros, silently;
      any other operation is done, and then raises.
    - "delay": it calls `wait` first, which returns when the test wants it to.

    `happened` is whether the fault has happened.

    >>> from checkpointable import MemoryStore
    >>> store = FaultyStore(MemoryStore(), "fail", "create", at=1)
    >>> store.create("a", 0, [])
    >>> store.create("b", 0, [])
    Traceback (most recent call last):
        ...
    checkpointable.errors.StoreError: a fault, as the test wants it
    >>> store.happened, [entry.name for entry in store.list()]
    (True, ['a'])
    """

    store: Store
    fault: Fault
    operation: Operation
    at: int = 0
    error: Exception = field(factory=lambda: StoreError("a fault, as the test wants it"))
    wait: Callable[[], object] = lambda: None
    happened: bool = field(default=False, init=False)
    _calls: int = field(default=0, init=False)
    _guard: threading.Lock = field(factory=threading.Lock, init=False)

    def _hits(self, operation: Operation) -> Fault | None:
        """Count this call; if it is the chosen one, raise or wait, and return the fault."""
        if operation != self.operation:
            return None
        with self._guard:
            number, self._calls = self._calls, self._calls + 1
        if number != self.at:
            return None
        self.happened = True
        if self.fault == "fail":
            raise self.error
        if self.fault == "delay":
            self.wait()
        return self.fault

    def create(self, name: str, size: int, chunks: Iterable[Buffer], /) -> None:
        """See `checkpointable.stores.Create`."""
        if self._hits("create") == "tear":
            torn = b"".join(bytes(chunk) for chunk in exactly(size, chunks, name))[: size // 2]
            self.store.create(name, len(torn), [torn])
            raise self.error
        self.store.create(name, size, chunks)

    @contextmanager
    def open(self, name: str, /) -> Iterator[Reader]:
        """See `checkpointable.stores.Open`."""
        torn = self._hits("open") == "tear"
        with self.store.open(name) as reader:
            if torn:
                raise self.error
            yield _Reader(reader, self._hits)

    def list(self) -> Iterator[Entry]:
        """See `checkpointable.stores.List`."""
        with self._torn_afterwards("list"):
            yield from self.store.list()

    def delete(self, name: str, /) -> None:
        """See `checkpointable.stores.Delete`."""
        with self._torn_afterwards("delete"):
            self.store.delete(name)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """See `checkpointable.stores.Lock`."""
        with self._torn_afterwards("lock"), self.store.lock():
            yield

    @contextmanager
    def _torn_afterwards(self, operation: Operation) -> Iterator[None]:
        torn = self._hits(operation) == "tear"
        yield
        if torn:
            raise self.error


@frozen(eq=False)
class _Reader:
    reader: Reader
    hits: Callable[[Operation], Fault | None]

    @property
    def size(self) -> int:
        return self.reader.size

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        torn = self.hits("read") == "tear"
        self.reader.read_into(offset, buffer)
        if torn:
            half = len(buffer) // 2
            buffer[half:] = bytes(len(buffer) - half)
