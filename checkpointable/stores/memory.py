"""A store in memory: for tests, and for checkpoints that need not outlive the process."""

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from attrs import define, field, frozen

from checkpointable.errors import CheckpointExists, CorruptCheckpoint, NoCheckpoint
from checkpointable.stores.local.file import check_name, exactly
from checkpointable.stores.protocol import Buffer, Entry, Reader


@define(eq=False)
class MemoryStore:
    """A `Store` that keeps its blobs in a dict: everything but durable. Safe to use from threads.

    >>> store = MemoryStore()
    >>> store.create("greeting", 5, [b"he", b"llo"])
    >>> [(entry.name, entry.size) for entry in store.list()]
    [('greeting', 5)]
    """

    _blobs: dict[str, tuple[bytearray, float]] = field(factory=dict, init=False, repr=False)

    def create(self, name: str, size: int, chunks: Iterable[Buffer], /) -> None:
        """See `checkpointable.stores.Create`."""
        check_name(name)
        if name not in self._blobs:
            blob, begin = bytearray(size), 0
            for chunk in exactly(size, chunks, name):
                blob[begin : begin + len(chunk)] = chunk
                begin += len(chunk)
            # One step under the interpreter's lock, so of two racing writers only one succeeds.
            if self._blobs.setdefault(name, (mine := (blob, time.time()))) is mine:
                return
        raise CheckpointExists("the name is taken", where=name, hint="save under another name")

    def open(self, name: str, /) -> AbstractContextManager[Reader]:
        """See `checkpointable.stores.Open`."""
        return _open(self._blobs, name)

    def list(self) -> Iterator[Entry]:
        """See `checkpointable.stores.List`."""
        blobs = self._blobs.copy().items()
        return iter([Entry(name, len(blob), created) for name, (blob, created) in blobs])

    def delete(self, name: str, /) -> None:
        """See `checkpointable.stores.Delete`."""
        check_name(name)
        if self._blobs.pop(name, None) is None:
            raise NoCheckpoint("no such checkpoint in this store", where=name)

    def lock(self) -> AbstractContextManager[None]:
        """See `checkpointable.stores.Lock`: there is only this object, so none is locked out."""
        return nullcontext()

    def without_lock(self) -> "MemoryStore":
        """See `checkpointable.stores.SharedWriters`: `lock` does not lock out anyone anyway."""
        return self


@frozen(eq=False)
class _Reader:
    _blob: memoryview

    @property
    def size(self) -> int:
        return len(self._blob)

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        part = self._blob[offset : offset + len(buffer)]
        if offset < 0 or len(part) != len(buffer):
            raise CorruptCheckpoint(f"it ends at {self.size}, before {offset + len(buffer)}")
        buffer[:] = part


@contextmanager
def _open(blobs: dict[str, tuple[bytearray, float]], name: str) -> Iterator[Reader]:
    check_name(name)
    if name not in blobs:
        raise NoCheckpoint("no such checkpoint in this store", where=name)
    yield _Reader(memoryview(blobs[name][0]).toreadonly())
