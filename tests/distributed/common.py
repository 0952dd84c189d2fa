"""What the programs of the tests have in common: their ranks, what they leave, and bad stores."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import orjson

from checkpointable import MpiCoordinator, Store
from checkpointable.errors import CheckpointableError
from checkpointable.stores.protocol import Buffer, Entry, Reader

RANKS = MpiCoordinator()
RANK = RANKS.rank


def note(folder: Path, **facts: Any) -> None:
    """Leave it for the test, whole or not at all."""
    scratch = folder / f"rank-{RANK}.tmp"
    scratch.write_bytes(orjson.dumps(facts))
    scratch.replace(folder / f"rank-{RANK}.json")


def in_short(error: CheckpointableError) -> str:
    return f"{type(error).__name__}: {error.what}"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Troubled:
    """A store with a trouble, which is called before, within or after each `create`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.before: Callable[[str], object] = lambda name: None
        self.within: Callable[[str], object] = lambda name: None
        self.after: Callable[[str], object] = lambda name: None

    def create(self, name: str, size: int, chunks: Iterable[Buffer], /) -> None:
        def troubled() -> Iterator[Buffer]:
            for number, chunk in enumerate(chunks):
                if number == 1:
                    self.within(name)
                yield chunk

        self.before(name)
        self.store.create(name, size, troubled())
        self.after(name)

    def open(self, name: str, /) -> AbstractContextManager[Reader]:
        return self.store.open(name)

    def list(self) -> Iterator[Entry]:
        return self.store.list()

    def delete(self, name: str, /) -> None:
        self.store.delete(name)

    def lock(self) -> AbstractContextManager[None]:
        return self.store.lock()

    def without_lock(self) -> "Troubled":
        made = Troubled(self.store.without_lock())  # type: ignore[attr-defined]
        made.__dict__.update(before=self.before, within=self.within, after=self.after)
        return made
