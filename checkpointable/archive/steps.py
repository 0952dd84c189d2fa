"""Checkpoints in a store, by step; what they are called there is in `names`."""

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from attrs import frozen

from checkpointable.archive import codec
from checkpointable.archive.codec import Arrays, Into
from checkpointable.archive.names import (
    Entry,
    entries,
    is_delta,
    is_rank_file,
    is_sharded,
    name_of,
    next_attempt,
    parsed,
    rank_file_name,
    step_of,
)
from checkpointable.errors import (
    CheckpointableError,
    CheckpointExists,
    CorruptCheckpoint,
    NoCheckpoint,
    StoreError,
    errors_at,
)
from checkpointable.format import Base, Header, Opened, Packed, read_arrays
from checkpointable.format import reader as opening
from checkpointable.protocol import KernelMetadata
from checkpointable.stores import Open, Store, Tiers

__all__ = [
    "Entry",
    "Found",
    "Skipped",
    "at_step",
    "create",
    "entries",
    "is_delta",
    "is_rank_file",
    "is_sharded",
    "latest",
    "load",
    "name_of",
    "newest_valid",
    "next_attempt",
    "opened",
    "rank_file_name",
    "read_header",
    "save",
    "step_of",
    "valid_at",
    "verify",
]

C = TypeVar("C")
R = TypeVar("R")
CHANGING = threading.RLock()
"""Held while a delta or shards are made, and while others are deleted, which they are to need."""

_MAX_PARENTS = 16
_MAX_DELTA_RATIO = 1  # of the deltas, times a full one


Skipped: TypeAlias = tuple[tuple[Entry, CheckpointableError], ...]
"""Checkpoints that were passed over, newest first, each with why."""


@frozen
class Found(Generic[C]):
    """A checkpoint that was loaded, and the newer ones that were passed over, each with why."""

    checkpoint: C
    entry: Entry
    skipped: Skipped


def save(
    store: Store,
    checkpoint: object,
    step: int,
    *,
    kernel: KernelMetadata | None = None,
    cls: Any = None,
    key: bytes | None = None,
    base: str | None = None,
) -> Entry:
    """Store a checkpoint under its step; durable when this returns, and whole or absent always.

    With a key it is signed. With `base`, the name of another one in the store, it is a delta: only
    blocks that differ from that one's are stored, and for the others the files are referred to that
    hold them. It is a full one all the same if the base is not there, not sound or of other arrays,
    if it would refer to more than 16 files, or if the deltas among them and itself together would
    take more than a full one.

    Raises `InvalidCheckpoint` or `UnsupportedType` before anything is written, `StoreError` if the
    store cannot take it.
    """
    encode = partial(codec.encode, checkpoint, step=step, kernel=kernel, cls=cls, key=key)
    if base is None:
        packed = encode()
        with store.lock():
            return create(store, step, packed, next_attempt(entries(store), step))
    with CHANGING, store.lock():
        packed, found = encode(base=_base(store, base, key)), entries(store)
        if not delta_is_worth_it(packed, {e.name: e.size if e.delta else 0 for e in found}):
            packed = packed.as_full()
        attempt = next_attempt(found, step)
        try:
            return create(store, step, packed, attempt)
        except NoCheckpoint:  # what it continues is not where it would be
            if not packed.header.parents:
                raise
            return create(store, step, packed.as_full(), attempt)


def create(store: Store, step: int, packed: Packed, attempt: int = 0) -> Entry:
    """Store it under the first name of its step, from `attempt` on, that is free."""
    sharded = packed.header.meta.sharded
    delta = bool(packed.header.parents) and not sharded
    while True:
        name = name_of(step, attempt, delta=delta, sharded=sharded)
        try:
            store.create(name, packed.size, packed)
        except CheckpointExists:  # by another writer, where the lock does not keep it out
            attempt += 1
        else:
            return Entry(step, attempt, name, packed.size, time.time(), delta, sharded)


def _base(store: Store, name: str, key: bytes | None) -> Base | None:
    try:
        with store.open(name) as reader:
            return opening.read_sealed(reader, name=name, step=step_of(name), key=key).as_base()
    except CheckpointableError:  # whatever it is, a full checkpoint is none the worse
        return None


def delta_is_worth_it(packed: Packed, sizes: Mapping[str, int]) -> bool:
    """Say whether a delta is worth it, and what it continues is there; True if it is none.

    `sizes` are those of the files that are there, 0 for the full ones.
    """
    names = [parent.name for parent in packed.header.parents]
    if not names:
        return True
    deltas = packed.size + sum(sizes.get(name, 0) for name in names)
    there = all(name in sizes for name in names)
    room = _MAX_DELTA_RATIO * size_of_full(packed.header)
    return there and len(names) <= _MAX_PARENTS and deltas <= room


def size_of_full(header: Header) -> int:
    """How large a delta's checkpoint would be, about, as a full one."""
    own = header.digests_offset - header.data_offset
    return header.file_size - own + header.full_size


def load(
    store: Open,
    name: str,
    cls: type[C],
    *,
    key: bytes | None = None,
    into: Into = None,
    arrays: Arrays = "read",
) -> C:
    """Load a checkpoint by its name, verified.

    Raises `NoCheckpoint`, `CorruptCheckpoint` or `SchemaMismatch`, with the name. As everywhere
    here, with a key one that was not signed with it counts as corrupt; `into` and `arrays` are as
    for `codec.decode`. With lazy arrays the files stay open until these are gone.
    """
    with errors_at(name), ExitStack() as until_made:
        stack = until_made.enter_context(ExitStack())
        checkpoint = _open(stack, store, name, key)
        made = codec.decode(checkpoint, cls, into=into, arrays=arrays)
        if arrays != "read":
            weakref.finalize(checkpoint, stack.close)
            until_made.pop_all()
        return made


@contextmanager
def opened(store: Open, name: str, *, key: bytes | None = None) -> Iterator[Opened]:
    """Open a checkpoint, its seal verified, together with those that it continues."""
    with errors_at(name), ExitStack() as stack:
        yield _open(stack, store, name, key)


def _open(stack: ExitStack, store: Open, name: str, key: bytes | None) -> Opened:
    """Open it; its files are closed by the stack, which holds nothing of what is returned."""
    checkpoint = opening.opened(
        stack.enter_context(store.open(name)),
        lambda parent: stack.enter_context(store.open(parent)),
        name=name,
        step=step_of(name),
        key=key,
    )
    header, said = checkpoint.header, parsed(name)
    kind = "sharded" if header.meta.sharded else "delta" if header.parents else ""
    if said and said[2] != kind:
        what = f"it is {kind or 'full'}, and its name says otherwise"
        raise CorruptCheckpoint(what, hint="rename nothing in a store; use an older checkpoint")
    return checkpoint


def read_header(store: Store, name: str) -> Header:
    """Read what a checkpoint says of itself, without reading its data or checking its seal."""
    with errors_at(name), store.open(name) as reader:
        return opening.read_header(reader)


def verify(store: Store, name: str, *, key: bytes | None = None) -> Header:
    """Check a checkpoint's seal and every block; `CorruptCheckpoint` names what is damaged."""
    with opened(store, name, key=key) as checkpoint:
        return read_arrays.verify(checkpoint)


def latest(
    store: Store,
    cls: type[C],
    *,
    key: bytes | None = None,
    into: Into = None,
    on_read: Callable[[str], object] | None = None,
) -> Found[C] | None:
    """Load the newest checkpoint that verifies; None if the store has none at all.

    `on_read` is told the name of each before it is read.

    Damaged ones are passed over and named in `skipped`. A sound one of another class or version
    is not: it raises `SchemaMismatch`, since going back further would lose work silently. If
    there are checkpoints, but none verifies, it raises `NoCheckpoint` and says why for each.
    """

    def read(view: Open, name: str) -> C:
        if on_read is not None:
            on_read(name)
        return load(view, name, cls, key=key, into=into)

    found, skipped = newest_valid(store, from_any_view(store, read))
    if found is not None:
        return Found(*found, skipped)
    if not skipped:
        return None
    raise none_is_valid(skipped)


def none_is_valid(skipped: Skipped) -> NoCheckpoint:
    """The error where there are checkpoints, and all were passed over."""
    reasons = "".join(f"\n  - {entry.name}: {error.what}" for entry, error in skipped)
    return NoCheckpoint(
        f"the store holds {len(skipped)} checkpoints, and none verifies:{reasons}",
        hint="restore a copy of the store, or start in an empty one",
    )


def at_step(
    store: Store, step: int, cls: type[C], *, key: bytes | None = None, into: Into = None
) -> Found[C]:
    """Load the checkpoint of one step; of several attempts the newest that verifies."""

    def read(view: Open, name: str) -> C:
        return load(view, name, cls, key=key, into=into)

    return Found(*valid_at(store, step, from_any_view(store, read)))


def valid_at(store: Store, step: int, read: Callable[[str], R]) -> tuple[R, Entry, Skipped]:
    """Read the newest valid checkpoint of a step; also which attempts were passed over, and why.

    Raises `NoCheckpoint` if the step has none, and the error of the newest if none is valid.
    """
    newest, skipped = newest_valid(store, read, step)
    if newest is not None:
        return *newest, skipped
    if skipped:
        raise skipped[0][1]
    raise not_there(step, [entry.step for entry in entries(store)])


def not_there(step: int, steps: list[int]) -> NoCheckpoint:
    """The error where a step has no checkpoint; `steps` are those that have one."""
    hint = "the store is empty"
    if steps:
        count = f"{len(steps)} checkpoint{'s' if len(steps) > 1 else ''}"
        hint = f"the store holds {count}, from step {steps[0]} to {steps[-1]}"
    return NoCheckpoint(f"there is no checkpoint of step {step}", hint=hint)


def from_any_view(store: Store, read: Callable[[Open, str], R]) -> Callable[[str], R]:
    """Return a function that reads a name from the first view of the store where it is valid."""

    def first(name: str) -> R:
        *views, last = store.views() if isinstance(store, Tiers) else [store]
        for view in views:
            try:
                return read(view, name)
            except (CorruptCheckpoint, StoreError):
                continue
        return read(last, name)

    return first


def newest_valid(
    store: Store, read: Callable[[str], R], step: int | None = None
) -> tuple[tuple[R, Entry] | None, Skipped]:
    """Read the newest checkpoint (of a step) that can be read; say which were passed over, why.

    Passed over are damaged ones, and those that were pruned since they were listed. If there is
    none left, they are listed again, until that makes no difference.
    """
    listed = entries(store)
    while True:
        skipped: list[tuple[Entry, CheckpointableError]] = []
        for entry in reversed(listed):
            if step in (None, entry.step):
                try:
                    return (read(entry.name), entry), tuple(skipped)
                except (CorruptCheckpoint, NoCheckpoint) as error:
                    # Its frames would keep alive what was read of it so far.
                    skipped.append((entry, error.with_traceback(None)))
        before, listed = listed, entries(store)
        if listed == before:
            return None, tuple(skipped)
