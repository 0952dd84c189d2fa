"""Checkpoints in a store, by step.

Names carry the step: `step-000000001200.safetensors`, and `step-000000001200.delta.safetensors` for
a delta, which is of no use without others. If a step has one already (say, a damaged one that the
run fell back from), the next attempt is `step-000000001200.1.safetensors`; nothing is overwritten.
The newest is the one of the highest step, then attempt; never by time.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from attrs import frozen

from checkpointable import codec, container, opening, reading
from checkpointable.codec import Into
from checkpointable.container import Packed
from checkpointable.delta import Base
from checkpointable.errors import (
    CheckpointableError,
    CheckpointExists,
    CorruptCheckpoint,
    NoCheckpoint,
    errors_at,
)
from checkpointable.layout import Header
from checkpointable.opening import Opened
from checkpointable.protocol import KernelMetadata
from checkpointable.store import Store

C = TypeVar("C")
R = TypeVar("R")
CHANGING = threading.RLock()
"""Held while a delta is made, and while others are deleted: it must not lose what it continues."""

_MOST_PARENTS = 16
_MOST_ROOM = 1  # of the deltas, times a full one
_NAME = re.compile(r"step-(\d{12,19})(?:\.([1-9]\d{0,8}))?(\.delta)?\.safetensors")


@frozen
class Entry:
    """One checkpoint as a listing shows it.

    `step`, `attempt` and `delta` are from its name, `size` in bytes, `created` in Unix seconds.
    """

    step: int
    attempt: int
    name: str
    size: int
    created: float
    delta: bool = False


Skipped: TypeAlias = tuple[tuple[Entry, CheckpointableError], ...]
"""Checkpoints that were passed over, newest first, each with why."""


@frozen
class Found(Generic[C]):
    """A checkpoint that was loaded, and the newer ones that were passed over, each with why."""

    checkpoint: C
    entry: Entry
    skipped: Skipped


def name_of(step: int, attempt: int = 0, *, delta: bool = False) -> str:
    """Name a step's checkpoint.

    >>> name_of(1200), name_of(1200, attempt=1), name_of(1300, delta=True)
    ('step-000000001200.safetensors', 'step-000000001200.1.safetensors', \
'step-000000001300.delta.safetensors')
    """
    tried, kind = f".{attempt}" if attempt else "", ".delta" if delta else ""
    return f"step-{step:012d}{tried}{kind}.safetensors"


def _parsed(name: str) -> tuple[int, int, bool] | None:
    """Step, attempt, and whether it is a delta, if a name says so in the way of `name_of`."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), int(match[2] or 0), bool(match[3])) if match else None


def step_of(name: str) -> int | None:
    """The step that a name in a store is of; None for other names.

    >>> step_of("step-000000001200.1.safetensors"), step_of("walk.safetensors")
    (1200, None)
    """
    parsed = _parsed(name)
    return parsed[0] if parsed else None


def is_delta(name: str) -> bool:
    """Whether a name in a store is a delta's.

    >>> is_delta("step-000000001300.delta.safetensors"), is_delta("walk.safetensors")
    (True, False)
    """
    parsed = _parsed(name)
    return parsed is not None and parsed[2]


def entries(store: Store) -> list[Entry]:
    """List the checkpoints of a store, oldest first, without opening any."""
    found = []
    for blob in store.list():
        if parsed := _parsed(blob.name):
            step, attempt, delta = parsed
            if blob.name == name_of(step, attempt, delta=delta):
                found.append(Entry(step, attempt, blob.name, blob.size, blob.created, delta))
    return sorted(found, key=lambda entry: (entry.step, entry.attempt, not entry.delta))


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
            return create(store, step, packed, _next_attempt(entries(store), step))
    with CHANGING, store.lock():
        packed, found = encode(base=_base(store, base, key)), entries(store)
        if packed.header.parents and not _pays(packed, found):
            packed = container.pack_whole(packed)
        return create(store, step, packed, _next_attempt(found, step))


def _next_attempt(found: list[Entry], step: int) -> int:
    return max((entry.attempt for entry in found if entry.step == step), default=-1) + 1


def create(store: Store, step: int, packed: Packed, attempt: int = 0) -> Entry:
    """Store it under the first name of its step, from `attempt` on, that is free."""
    delta = bool(packed.header.parents)
    while True:
        name = name_of(step, attempt, delta=delta)
        try:
            store.create(name, packed.size, packed.chunks())
        except CheckpointExists:  # by another writer, where the lock does not keep it out
            attempt += 1
        else:
            return Entry(step, attempt, name, packed.size, time.time(), delta)


def _base(store: Store, name: str, key: bytes | None) -> Base | None:
    try:
        with store.open(name) as reader:
            return opening.read_sealed(reader, name=name, step=step_of(name), key=key).as_base()
    except CheckpointableError:  # whatever it is, a full checkpoint is none the worse
        return None


def _pays(packed: Packed, found: list[Entry]) -> bool:
    """Say whether a delta is worth it, and what it continues is there."""
    header, names = packed.header, {parent.name for parent in packed.header.parents}
    parents = [entry for entry in found if entry.name in names]
    full = size_of_full(header)
    deltas = packed.size + sum(entry.size for entry in parents if entry.delta)
    return len(parents) == len(names) <= _MOST_PARENTS and deltas <= _MOST_ROOM * full


def size_of_full(header: Header) -> int:
    """How large a delta's checkpoint would be, about, as a full one."""
    own = header.digests_offset - header.data_offset
    return header.file_size - own + header.full_size


def load(
    store: Store, name: str, cls: type[C], *, key: bytes | None = None, into: Into = None
) -> C:
    """Load a checkpoint by its name, verified.

    Raises `NoCheckpoint`, `CorruptCheckpoint` or `SchemaMismatch`, with the name. As everywhere
    here, with a key one that was not signed with it counts as corrupt; `into` is as for
    `codec.decode`.
    """
    with opened(store, name, key=key) as checkpoint:
        return codec.decode(checkpoint, cls, into=into)


@contextmanager
def opened(store: Store, name: str, *, key: bytes | None = None) -> Iterator[Opened]:
    """Open a checkpoint, its seal verified, together with those that it continues."""
    parsed = _parsed(name)
    with errors_at(name), ExitStack() as stack:
        checkpoint = opening.opened(
            stack.enter_context(store.open(name)),
            lambda parent: stack.enter_context(store.open(parent)),
            name=name,
            step=step_of(name),
            key=key,
        )
        if parsed and parsed[2] != bool(checkpoint.header.parents):
            what = f"it is {'no' if parsed[2] else 'a'} delta, and its name says otherwise"
            raise CorruptCheckpoint(what, hint="rename nothing in a store; use an older checkpoint")
        yield checkpoint


def read_header(store: Store, name: str) -> Header:
    """Read what a checkpoint says of itself, without reading its data or checking its seal."""
    with errors_at(name), store.open(name) as reader:
        return opening.read_header(reader)


def verify(store: Store, name: str, *, key: bytes | None = None) -> Header:
    """Check a checkpoint's seal and every block; `CorruptCheckpoint` names what is damaged."""
    with opened(store, name, key=key) as checkpoint:
        return reading.verify(checkpoint)


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

    def read(name: str) -> C:
        if on_read is not None:
            on_read(name)
        return load(store, name, cls, key=key, into=into)

    found, skipped = newest_sound(store, read)
    if found is not None:
        return Found(*found, skipped)
    if not skipped:
        return None
    reasons = "".join(f"\n  - {entry.name}: {error.what}" for entry, error in skipped)
    raise NoCheckpoint(
        f"the store holds {len(skipped)} checkpoints, and none verifies:{reasons}",
        hint="restore a copy of the store, or start in an empty one",
    )


def at_step(
    store: Store, step: int, cls: type[C], *, key: bytes | None = None, into: Into = None
) -> Found[C]:
    """Load the checkpoint of one step; of several attempts the newest that verifies."""
    found, skipped = newest_sound(
        store, lambda name: load(store, name, cls, key=key, into=into), step
    )
    if found is not None:
        return Found(*found, skipped)
    if skipped:
        raise skipped[0][1]
    steps = [e.step for e in entries(store)]
    raise NoCheckpoint(
        f"there is no checkpoint of step {step}",
        hint=f"there are {len(steps)}, from step {steps[0]} to {steps[-1]}"
        if steps
        else "the store is empty",
    )


def newest_sound(
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
