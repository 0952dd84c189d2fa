"""Saving and loading checkpoints in a store, by step."""

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
    name_of,
    next_attempt,
    parsed,
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

C = TypeVar("C")
R = TypeVar("R")
CHANGING = threading.RLock()
"""Held while a delta or shards are written, and while files that they may need are deleted."""

_MAX_PARENTS = 16
_MAX_DELTA_RATIO = 1  # the size of the deltas, relative to a full checkpoint


Skipped: TypeAlias = tuple[tuple[Entry, CheckpointableError], ...]
"""Checkpoints that were passed over, newest first, each with its error."""


@frozen
class Found(Generic[C]):
    """A loaded checkpoint, and the newer ones that were passed over, each with its error."""

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
    """Store a checkpoint under its step; whole or absent, and durable when this returns.

    With a key it is signed. With `base`, the name of another checkpoint in the store, it is a
    delta: only blocks that differ from the base are stored, and the others are referred to in the
    files that hold them. It is a full checkpoint all the same if the base is absent, invalid or of
    other arrays, if it would refer to more than 16 files, or if it and the deltas among these would
    together take more space than a full checkpoint.

    Raises `InvalidCheckpoint` or `UnsupportedType` before anything is written, `StoreError` if the
    store cannot take it.
    """
    encode = partial(codec.encode, checkpoint, step=step, kernel=kernel, cls=cls, key=key)
    if base is None:
        packed = encode()
        with store.lock():
            return create(store, step, packed, next_attempt(entries(store), step))
    with CHANGING, store.lock():
        packed, listed = encode(base=_base(store, base, key)), entries(store)
        if not delta_is_worth_it(packed, {e.name: e.size if e.delta else 0 for e in listed}):
            packed = packed.as_full()
        attempt = next_attempt(listed, step)
        try:
            return create(store, step, packed, attempt)
        except NoCheckpoint:  # a parent is not in the store that is written
            if not packed.header.parents:
                raise
            return create(store, step, packed.as_full(), attempt)


def create(store: Store, step: int, packed: Packed, attempt: int = 0) -> Entry:
    """Store a packed checkpoint under the first free name of its step, from `attempt` on."""
    sharded = packed.header.meta.sharded
    delta = bool(packed.header.parents) and not sharded
    while True:
        name = name_of(step, attempt, delta=delta, sharded=sharded)
        try:
            store.create(name, packed.size, packed)
        except CheckpointExists:  # another writer, which the lock does not exclude
            attempt += 1
        else:
            return Entry(step, attempt, name, packed.size, time.time(), delta, sharded)


def _base(store: Store, name: str, key: bytes | None) -> Base | None:
    try:
        with store.open(name) as reader:
            return opening.read_sealed(reader, name=name, step=step_of(name), key=key).as_base()
    except CheckpointableError:  # whatever it is, a full checkpoint does not need the base
        return None


def delta_is_worth_it(packed: Packed, sizes: Mapping[str, int]) -> bool:
    """Whether a delta saves space and its parents exist; True for a full checkpoint.

    `sizes` are those of the existing files, 0 for full ones.
    """
    names = [parent.name for parent in packed.header.parents]
    if not names:
        return True
    if len(names) > _MAX_PARENTS or not all(name in sizes for name in names):
        return False
    deltas = packed.size + sum(sizes[name] for name in names)
    return deltas <= _MAX_DELTA_RATIO * size_of_full(packed.header)


def size_of_full(header: Header) -> int:
    """About how large the checkpoint of a delta would be as a full one."""
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

    Raises `NoCheckpoint`, `CorruptCheckpoint` or `SchemaMismatch`, with the name. With a key, here
    and everywhere in this module, a checkpoint that was not signed with it counts as corrupt.
    `into` and `arrays` are as for `codec.decode`. The files stay open as long as lazy arrays of
    them exist.
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
    """Open a checkpoint and its parents, and verify their seals."""
    with errors_at(name), ExitStack() as stack:
        yield _open(stack, store, name, key)


def _open(stack: ExitStack, store: Open, name: str, key: bytes | None) -> Opened:
    """Open a checkpoint; the stack closes its files, and does not keep the result alive."""
    checkpoint = opening.opened(
        stack.enter_context(store.open(name)),
        lambda parent: stack.enter_context(store.open(parent)),
        name=name,
        step=step_of(name),
        key=key,
    )
    header, parts = checkpoint.header, parsed(name)
    kind = "sharded" if header.meta.sharded else "delta" if header.parents else ""
    if parts and parts[2] != kind:
        what = f"it is {kind or 'full'}, but its name says otherwise"
        raise CorruptCheckpoint(what, hint="rename nothing in a store; use an older checkpoint")
    return checkpoint


def read_header(store: Store, name: str) -> Header:
    """Read the header of a checkpoint, without reading its data or checking its seal."""
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
    """Load the newest valid checkpoint; returns None if the store has no checkpoint.

    `on_read` is called with the name of each checkpoint before it is read.

    Damaged checkpoints are passed over and listed in `skipped`. A valid one of another class or
    version is not: it raises `SchemaMismatch`, since going back further would silently lose work.
    If there are checkpoints but none is valid, this raises `NoCheckpoint` with the reason for each.
    """

    def read(view: Open, name: str) -> C:
        if on_read is not None:
            on_read(name)
        return load(view, name, cls, key=key, into=into)

    newest, skipped = newest_valid(store, from_any_view(store, read))
    if newest is not None:
        return Found(*newest, skipped)
    if not skipped:
        return None
    raise none_is_valid(skipped)


def none_is_valid(skipped: Skipped) -> NoCheckpoint:
    """The error for a store whose checkpoints were all passed over."""
    reasons = "".join(f"\n  - {entry.name}: {error.what}" for entry, error in skipped)
    return NoCheckpoint(
        f"the store holds {len(skipped)} checkpoints, but none is valid:{reasons}",
        hint="restore a copy of the store, or start in an empty one",
    )


def at_step(
    store: Store, step: int, cls: type[C], *, key: bytes | None = None, into: Into = None
) -> Found[C]:
    """Load the checkpoint of one step; of several attempts the newest valid one."""

    def read(view: Open, name: str) -> C:
        return load(view, name, cls, key=key, into=into)

    return Found(*valid_at(store, step, from_any_view(store, read)))


def valid_at(store: Store, step: int, read: Callable[[str], R]) -> tuple[R, Entry, Skipped]:
    """Read the newest valid checkpoint of a step; return also the attempts passed over.

    Raises `NoCheckpoint` if the step has none, and the error of the newest if none is valid.
    """
    newest, skipped = newest_valid(store, read, step)
    if newest is not None:
        return *newest, skipped
    if skipped:
        raise skipped[0][1]
    raise not_there(step, [entry.step for entry in entries(store)])


def not_there(step: int, steps: list[int]) -> NoCheckpoint:
    """The error for a step without a checkpoint; `steps` are those that have one."""
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
    """Read the newest checkpoint (of a step) that can be read; return also those passed over.

    Damaged ones are passed over, and those that were pruned since they were listed. If none is
    left, the store is listed again, until that makes no difference.
    """
    listed = entries(store)
    while True:
        skipped: list[tuple[Entry, CheckpointableError]] = []
        for entry in reversed(listed):
            if step in (None, entry.step):
                try:
                    return (read(entry.name), entry), tuple(skipped)
                except (CorruptCheckpoint, NoCheckpoint) as error:
                    # Its frames would keep alive what was read so far.
                    skipped.append((entry, error.with_traceback(None)))
        before, listed = listed, entries(store)
        if listed == before:
            return None, tuple(skipped)
