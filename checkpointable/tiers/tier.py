"""One of two stores: whether it works, which is told; what both have; the locks of both."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TypeAlias

from attrs import define, field

from checkpointable import events
from checkpointable.errors import StoreError, StoreLocked, in_one_line
from checkpointable.events import Event
from checkpointable.stores import Buffer, Entry, Store, exactly


@define(eq=False)
class Tier:
    """One of the stores. `lost` says that it fails, `listing_failed` that it could not be listed.

    `was_empty` says that it had nothing when it was listed.
    """

    store: Store
    address: str
    tell: Callable[[Event], object]
    lost: bool = False
    listing_failed: bool = False
    was_empty: bool = False
    _guard: threading.Lock = field(factory=threading.Lock, repr=False)

    def fails(self, error: BaseException) -> None:
        """Tell that it is lost, once."""
        with self._guard:
            known, self.lost = self.lost, True
        if not known:
            self.tell(events.TierLost(self.address, in_one_line(error)))

    def works(self) -> None:
        """Tell that it is back, if it was lost."""
        with self._guard:
            known, self.lost = self.lost, False
        if known:
            self.tell(events.TierBack(self.address))


Held: TypeAlias = list[tuple[Tier, AbstractContextManager[None]]]
"""Locks that are held."""


def listed(fast: Tier, slow: Tier) -> list[Entry]:
    """What either has, the fast one's entries first; a tier that cannot be listed is left out.

    Raises what it raised if the other one has nothing, and it may have something.
    """
    found: dict[str, Entry] = {}
    errors: list[tuple[Tier, StoreError]] = []
    for tier in (fast, slow):
        if tier is slow and tier.listing_failed and found:
            continue  # nobody waits for it
        try:
            blobs = [*tier.store.list()]
        except StoreError as error:
            tier.listing_failed = True
            tier.fails(error)
            errors.append((tier, error))
        else:
            tier.listing_failed, tier.was_empty = False, not blobs
            found = {entry.name: entry for entry in blobs} | found
    if errors and not found and (len(errors) == 2 or not errors[0][0].was_empty):
        raise errors[0][1]
    return [*found.values()]


def locked(fast: Tier, slow: Tier) -> Held:
    """Take the locks of both, or of the one that can be had; `StoreLocked` of either passes."""
    held: Held = []
    errors: list[StoreError] = []
    try:
        for tier in (fast, slow):
            if tier is slow and tier.lost and held:
                continue  # nobody waits for it; what is copied takes it by itself
            try:
                lock = tier.store.lock()
                lock.__enter__()
                held.append((tier, lock))
            except StoreLocked:
                raise
            except StoreError as error:
                tier.fails(error)
                errors.append(error)
        if not held:
            raise errors[0]
    except BaseException:
        release(held)
        raise
    return held


def release(held: Held) -> None:
    """Give the locks back; what fails then is told."""
    for tier, lock in reversed(held):
        try:
            lock.__exit__(None, None, None)
        except StoreError as error:
            tier.fails(error)


class Source:
    """Chunks that may be asked for again, and the error that they themselves have raised."""

    def __init__(self, chunks: Iterable[Buffer], size: int, name: str) -> None:
        self._chunks, self._size, self._name = chunks, size, name
        self.again = iter(chunks) is not chunks
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[Buffer]:
        try:
            yield from exactly(self._size, self._chunks, self._name)
        except Exception as error:
            self.error = error
            raise
