"""One of two stores, and whether it works; listing and locking both."""

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
    """One of the stores.

    `lost` is whether it fails, `listing_failed` whether it could not be listed, and `was_empty`
    whether it had nothing when it was listed last.
    """

    store: Store
    address: str
    emit: Callable[[Event], object]
    lost: bool = False
    listing_failed: bool = False
    was_empty: bool = False
    _guard: threading.Lock = field(factory=threading.Lock, repr=False)

    def fails(self, error: BaseException) -> None:
        """Report once that the tier is lost."""
        with self._guard:
            known, self.lost = self.lost, True
        if not known:
            self.emit(events.TierLost(self.address, in_one_line(error)))

    def works(self) -> None:
        """Report that the tier works again, if it was lost."""
        with self._guard:
            known, self.lost = self.lost, False
        if known:
            self.emit(events.TierBack(self.address))


Held: TypeAlias = list[tuple[Tier, AbstractContextManager[None]]]
"""The locks that are held."""


def listed(fast: Tier, slow: Tier) -> list[Entry]:
    """The blobs of both tiers, the fast one's first; a tier that cannot be listed is left out.

    Raises its error if the other tier has nothing, and this one may have something.
    """
    entries: dict[str, Entry] = {}
    errors: list[tuple[Tier, StoreError]] = []
    for tier in (fast, slow):
        if tier is slow and tier.listing_failed and entries:
            continue  # it is not worth waiting for
        try:
            blobs = [*tier.store.list()]
        except StoreError as error:
            tier.listing_failed = True
            tier.fails(error)
            errors.append((tier, error))
        else:
            tier.listing_failed, tier.was_empty = False, not blobs
            entries = {entry.name: entry for entry in blobs} | entries
    if errors and not entries and (len(errors) == 2 or not errors[0][0].was_empty):
        raise errors[0][1]
    return [*entries.values()]


def locked(fast: Tier, slow: Tier) -> Held:
    """Lock both tiers, or the one that works; raises `StoreLocked` if either is locked."""
    held: Held = []
    errors: list[StoreError] = []
    try:
        for tier in (fast, slow):
            if tier is slow and tier.lost and held:
                continue  # it is not worth waiting for; copying locks it by itself
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
    """Release the locks; a tier that fails then is reported."""
    for tier, lock in reversed(held):
        try:
            lock.__exit__(None, None, None)
        except StoreError as error:
            tier.fails(error)


class Source:
    """Chunks that may be iterated again, and the error that they raised themselves."""

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
