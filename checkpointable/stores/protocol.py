"""What a store must promise: one capability per Protocol, the guarantee in its docstring.

A store keeps named, immutable blobs. `checkpointable.archive` builds checkpoints on it; anything
that keeps these promises can be a store, and proves it with `checkpointable.testing.StoreTests`.

`Store` is what every store can do. What only some can do, `SharedWriters`, `Renames` and `Tiers` of
stores and `Remote` of readers, is asked by `isinstance`.

A name is 1 to 255 bytes of UTF-8 without slash, NUL, or a dot at its beginning; any other raises
`StoreError`. A store may be used from many threads.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from attrs import frozen

from checkpointable.events import Event

Buffer = bytes | bytearray | memoryview


@frozen
class Entry:
    """One blob as a listing shows it: name, size in bytes, time of creation (Unix seconds)."""

    name: str
    size: int
    created: float


class Reader(Protocol):
    """One open blob; it stays readable until closed, even if it is deleted meanwhile."""

    @property
    def size(self) -> int:
        """Size of the blob in bytes."""
        ...

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Fill all of `buffer` (writable bytes) from `offset`.

        Raises `CorruptCheckpoint` if the blob ends before the buffer is full, or if the medium
        cannot give the bytes back.
        """
        ...


@runtime_checkable
class Remote(Reader, Protocol):
    """A reader to which each call is a long way: few large ones are better than many small ones."""

    @property
    def part(self) -> int:
        """How many bytes are worth asking for at once."""
        ...


class Create(Protocol):
    """Creation, all or nothing."""

    def create(self, name: str, size: int, chunks: Iterable[Buffer], /) -> None:
        """Store the `size` bytes of `chunks` under `name`.

        Whole or absent: no reader and no crash ever shows a part. Durable when the call returns.
        Never overwrites. `chunks` is consumed once, in order, each used up before the next.

        Raises `CheckpointExists` if the name is taken, `StoreLocked` if another writer holds the
        store, `StoreFull` if the space ends, `StoreError` for anything else; in each case nothing
        has changed. An error raised by `chunks` itself passes through, likewise.
        """
        ...


class Open(Protocol):
    """Reading ranges of a blob."""

    def open(self, name: str, /) -> AbstractContextManager[Reader]:
        """Open a blob for reading; raises `NoCheckpoint` if there is none of that name."""
        ...


class List(Protocol):
    """Listing, without opening anything."""

    def list(self) -> Iterator[Entry]:
        """Yield every whole blob, in any order; what is being created is not among them."""
        ...


class Delete(Protocol):
    """Deletion."""

    def delete(self, name: str, /) -> None:
        """Remove a blob, durably; raises `NoCheckpoint` if there is none of that name."""
        ...


class Lock(Protocol):
    """One writer at a time."""

    def lock(self) -> AbstractContextManager[None]:
        """Be the only writer until the context ends; may be entered again by the same store object.

        Raises `StoreLocked`, naming the holder's pid and host, if another writer has it. It ends
        with the process, however that dies. `create` and `delete` take it by themselves for as
        long as they run.
        """
        ...


@runtime_checkable
class Store(Create, Open, List, Delete, Lock, Protocol):
    """All of it: what `Checkpointer` and `run` work on."""


@runtime_checkable
class SharedWriters(Protocol):
    """For the processes of one job, of which one holds the lock for all."""

    def without_lock(self) -> Store:
        """Give the same place, for writing under a lock that another process of the job holds.

        Its `lock()` keeps nobody out and is kept out by nobody; all else is as promised, so two
        that create one name still find out. That the lock is held meanwhile is up to the caller.
        """
        ...


@runtime_checkable
class Renames(Protocol):
    """Renaming, at once."""

    def rename(self, name: str, new: str, /) -> None:
        """Give a blob another name, durably; at each moment it has one of the two.

        Raises `NoCheckpoint` if there is none of that name, `CheckpointExists` if the new is taken.
        """
        ...


@runtime_checkable
class Tiers(Store, Protocol):
    """A store made of two others, as `checkpointable.Tiered` is."""

    @property
    def fast(self) -> Store:
        """The store that is written first."""
        ...

    def views(self) -> Sequence[Open]:
        """Return ways to read the same blobs, the fastest first: try the next if one is damaged."""
        ...

    def pruning(self) -> AbstractContextManager[tuple[Store, frozenset[str]]]:
        """Give the store to prune, and the names that must stay there; handles its `StoreError`."""
        ...

    def drain_events(self) -> Sequence[Event]:
        """Return the events since the last call."""
        ...

    def flush(
        self,
        timeout: float | None = None,
        keep_waiting: Callable[[int], bool] = ...,
    ) -> bool:
        """Wait until each blob is everywhere it belongs; False if that cannot be now."""
        ...

    def close(self, timeout: float | None = None) -> bool:
        """Do the same, then copy no more until the next `create` or `lock`; at once if it is 0."""
        ...
