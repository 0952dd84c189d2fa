"""Checkpoints in a store, by step; and single checkpoint files.

Names carry the step: `step-000000001200.safetensors`. If that name is taken (say, by a damaged
file that the run fell back from), the next attempt is `step-000000001200.1.safetensors`; nothing
is overwritten. The newest is the one of the highest step, then attempt; never by time.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from attrs import frozen

from checkpointable import codec
from checkpointable.attributes import arrays_of
from checkpointable.container import Packed
from checkpointable.errors import (
    CheckpointableError,
    CheckpointExists,
    CorruptCheckpoint,
    InvalidCheckpoint,
    NoCheckpoint,
)
from checkpointable.layout import Header
from checkpointable.policy import Keep
from checkpointable.protocol import KernelMetadata
from checkpointable.store import Store
from checkpointable.stores.files import open_reader, write_durably

C = TypeVar("C")
R = TypeVar("R")
_NAME = re.compile(r"step-(\d{12,19})(?:\.([1-9]\d{0,8}))?\.safetensors")


@frozen
class Entry:
    """One checkpoint as a listing shows it.

    `step` and `attempt` are from its name, `size` in bytes, `created` in Unix seconds.
    """

    step: int
    attempt: int
    name: str
    size: int
    created: float


Skipped: TypeAlias = tuple[tuple[Entry, CheckpointableError], ...]
"""Checkpoints that were passed over, newest first, each with why."""


@frozen
class Found(Generic[C]):
    """A checkpoint that was loaded, and the newer ones that were passed over, each with why."""

    checkpoint: C
    entry: Entry
    skipped: Skipped


def name_of(step: int, attempt: int = 0) -> str:
    """Name a step's checkpoint.

    >>> name_of(1200), name_of(1200, attempt=1)
    ('step-000000001200.safetensors', 'step-000000001200.1.safetensors')
    """
    return f"step-{step:012d}{f'.{attempt}' if attempt else ''}.safetensors"


def step_of(name: str) -> int | None:
    """The step that a name in a store is of; None for other names.

    >>> step_of("step-000000001200.1.safetensors"), step_of("walk.safetensors")
    (1200, None)
    """
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def entries(store: Store) -> list[Entry]:
    """List the checkpoints of a store, oldest first, without opening any."""
    found = []
    for blob in store.list():
        match = _NAME.fullmatch(blob.name)
        if match and blob.name == name_of(int(match[1]), int(match[2] or 0)):
            step, attempt = int(match[1]), int(match[2] or 0)
            found.append(Entry(step, attempt, blob.name, blob.size, blob.created))
    return sorted(found, key=attrgetter("step", "attempt"))


def save(
    store: Store,
    checkpoint: object,
    step: int,
    *,
    kernel: KernelMetadata | None = None,
    cls: Any = None,
    key: bytes | None = None,
) -> Entry:
    """Store a checkpoint under its step; durable when this returns, and whole or absent always.

    With a key it is signed. Raises `InvalidCheckpoint` or `UnsupportedType` before anything is
    written, `StoreError` if the store cannot take it.
    """
    packed = codec.encode(checkpoint, step=step, kernel=kernel, cls=cls, key=key)
    with store.lock():
        attempts = [e.attempt for e in entries(store) if e.step == step]
        attempt = max(attempts, default=-1) + 1
        while not _created(store, name_of(step, attempt), packed):
            attempt += 1
    return Entry(step, attempt, name_of(step, attempt), packed.size, time.time())


def _created(store: Store, name: str, packed: Packed) -> bool:
    """Create a file; False if another thread of ours has taken the name since it was listed."""
    try:
        store.create(name, packed.size, packed.chunks())
    except CheckpointExists:
        return False
    return True


def load(
    store: Store, name: str, cls: type[C], *, key: bytes | None = None, into: object = None
) -> C:
    """Load a checkpoint by its name, verified.

    Raises `NoCheckpoint`, `CorruptCheckpoint` or `SchemaMismatch`, with the name. As everywhere
    here, with a key one that was not signed with it counts as corrupt; `into` is as for
    `load_file`.
    """
    places = None if into is None else arrays_of(cls, into)
    with errors_at(name), store.open(name) as reader:
        return codec.decode(reader, cls, step=step_of(name), key=key, into=places)


def read_header(store: Store, name: str) -> Header:
    """Read what a checkpoint says of itself, without reading its data or checking its seal."""
    with errors_at(name), store.open(name) as reader:
        return codec.read_header(reader)


def verify(store: Store, name: str, *, key: bytes | None = None) -> Header:
    """Check a checkpoint's seal and every block; `CorruptCheckpoint` names what is damaged."""
    with errors_at(name), store.open(name) as reader:
        return codec.verify(reader, step=step_of(name), key=key)


def latest(
    store: Store, cls: type[C], *, key: bytes | None = None, into: object = None
) -> Found[C] | None:
    """Load the newest checkpoint that verifies; None if the store has none at all.

    Damaged ones are passed over and named in `skipped`. A sound one of another class or version
    is not: it raises `SchemaMismatch`, since going back further would lose work silently. If
    there are checkpoints, but none verifies, it raises `NoCheckpoint` and says why for each.
    """
    found, skipped = newest_sound(store, lambda name: load(store, name, cls, key=key, into=into))
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
    store: Store, step: int, cls: type[C], *, key: bytes | None = None, into: object = None
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
                    skipped.append((entry, error))
        before, listed = listed, entries(store)
        if listed == before:
            return None, tuple(skipped)


def prune(
    store: Store, keep: Keep, *, sound: str | None = None, key: bytes | None = None
) -> list[Entry]:
    """Delete the checkpoints that `keep` does not name, oldest first, and return them.

    The newest that verifies always stays, whatever `keep` says, and so does all that is newer: a
    medium that cannot be read at the moment may be readable later. `sound` is the name of one
    that the caller has just written, which saves reading it.
    """
    with store.lock():
        found = entries(store)
        kept = set(keep([*dict.fromkeys(e.step for e in found)]))
        if all(e.step in kept for e in found):
            return []
        names = [e.name for e in found]
        newest = names.index(sound) if sound in names else _newest_sound(store, found, key)
        surplus = [e for e in found[:newest] if e.step not in kept]
        for entry in surplus:
            store.delete(entry.name)
    return surplus


def _newest_sound(store: Store, found: list[Entry], key: bytes | None) -> int:
    for index in reversed(range(len(found))):
        try:
            verify(store, found[index].name, key=key)
        except InvalidCheckpoint:
            continue
        return index
    raise NoCheckpoint(
        f"none of the {len(found)} checkpoints verifies, so none is deleted",
        hint="look at them with `checkpointable verify`",
    )


def save_file(
    checkpoint: object,
    path: str | os.PathLike[str],
    *,
    step: int = 0,
    cls: Any = None,
    key: bytes | None = None,
) -> None:
    """Write one checkpoint to a file; durable when this returns, whole or absent always.

    `cls` is needed only for a generic class: `Box[int]`. With a key, of at least 16 random bytes,
    the file is signed: `load_file` with that key refuses whatever was not. Raises
    `CheckpointExists` if the path is taken: nothing is overwritten.

    >>> import attrs, pathlib, tempfile
    >>> @attrs.frozen
    ... class Walk:
    ...     step: int
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_file(Walk(step=3), f"{folder}/walk.safetensors")
    ...     load_file(f"{folder}/walk.safetensors", Walk)
    Walk(step=3)
    """
    target = Path(path)
    packed = codec.encode(checkpoint, step=step, cls=cls, key=key)
    with errors_at(str(target)):
        write_durably(target.parent, target.name, packed.size, packed.chunks())


def load_file(
    path: str | os.PathLike[str],
    cls: type[C],
    *,
    key: bytes | None = None,
    into: object = None,
) -> C:
    """Load a checkpoint of class `cls` from a file, every byte verified.

    With `into`, a kernel, the arrays are read into its own of the same names, and are those of the
    checkpoint that is returned: without a second copy, and in half of the memory. If any is of
    another dtype or shape, none is. If the file turns out to be damaged on the way, the kernel has
    to be restored from another one.

    Raises `NoCheckpoint` if there is no such file, `CorruptCheckpoint` if it is damaged, not a
    checkpoint or, where a key is given, not signed with it, and `SchemaMismatch` if it is one of
    another class or version.
    """
    places = None if into is None else arrays_of(cls, into)
    with errors_at(str(path)), open_reader(path) as reader:
        return codec.decode(reader, cls, key=key, into=places)


@contextmanager
def errors_at(name: str) -> Iterator[None]:
    """Say in every error which checkpoint it is about."""
    try:
        yield
    except CheckpointableError as error:
        if name not in error.where:
            error.where = f"{name}: {error.where}" if error.where else name
        raise
