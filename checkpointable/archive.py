"""Checkpoints in a store, by step.

Names carry the step: `step-000000001200.safetensors`, and `step-000000001200.delta.safetensors` for
a delta, which is of no use without others. `step-000000001200.sharded.safetensors` is the head of a
checkpoint that many ranks have saved; what each has written, `step-000000001200.rank-0003.5b2c….`,
is no checkpoint before there is one. If a step has one already (say, a damaged one that the
run fell back from), the next attempt is `step-000000001200.1.safetensors`; nothing is overwritten.
The newest is the one of the highest step, then attempt; never by time.
"""

import re
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from attrs import evolve, frozen

from checkpointable import codec, container, opening, reading
from checkpointable.codec import Arrays, Into
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
_NAME = re.compile(r"step-(\d{12,19})(?:\.([1-9]\d{0,8}))?(\.delta|\.sharded)?\.safetensors")
_RANK_FILE = re.compile(r"step-(\d{12,19})\.rank-\d{4,9}\.[0-9a-f]{16}\.safetensors")


@frozen
class Entry:
    """One checkpoint as a listing shows it.

    `step`, `attempt`, `delta` and `sharded` are from its name, `size` in bytes, `created` in Unix
    seconds. The size of a sharded one is that of all its step's files.
    """

    step: int
    attempt: int
    name: str
    size: int
    created: float
    delta: bool = False
    sharded: bool = False


Skipped: TypeAlias = tuple[tuple[Entry, CheckpointableError], ...]
"""Checkpoints that were passed over, newest first, each with why."""


@frozen
class Found(Generic[C]):
    """A checkpoint that was loaded, and the newer ones that were passed over, each with why."""

    checkpoint: C
    entry: Entry
    skipped: Skipped


def name_of(step: int, attempt: int = 0, *, delta: bool = False, sharded: bool = False) -> str:
    """Name a step's checkpoint.

    >>> name_of(1200), name_of(1200, attempt=1), name_of(1300, delta=True)
    ('step-000000001200.safetensors', 'step-000000001200.1.safetensors', \
'step-000000001300.delta.safetensors')
    """
    kind = ".sharded" if sharded else ".delta" if delta else ""
    return f"step-{step:012d}{f'.{attempt}' if attempt else ''}{kind}.safetensors"


def rank_file_name(step: int, rank: int, nonce: str) -> str:
    """Name what a rank writes of a step, in an attempt that has these 16 hex digits.

    >>> rank_file_name(1200, 3, "5b2c0f1e9a8d7c6b")
    'step-000000001200.rank-0003.5b2c0f1e9a8d7c6b.safetensors'
    """
    return f"step-{step:012d}.rank-{rank:04d}.{nonce}.safetensors"


def is_rank_file(name: str) -> bool:
    """Whether a name in a store is of what a rank has written.

    >>> is_rank_file("step-000000001200.rank-0003.5b2c0f1e9a8d7c6b.safetensors")
    True
    """
    return _RANK_FILE.fullmatch(name) is not None


def _parsed(name: str) -> tuple[int, int, str] | None:
    """Step, attempt and kind, if a name says them in the way of `name_of`."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), int(match[2] or 0), (match[3] or "")[1:]) if match else None


def step_of(name: str) -> int | None:
    """The step that a name in a store is of; None for other names.

    >>> step_of("step-000000001200.1.safetensors"), step_of("walk.safetensors")
    (1200, None)
    """
    match = _NAME.fullmatch(name) or _RANK_FILE.fullmatch(name)
    return int(match[1]) if match else None


def is_sharded(name: str) -> bool:
    """Whether a name in a store is of the head of a sharded checkpoint.

    >>> is_sharded("step-000000001300.sharded.safetensors")
    True
    """
    parsed = _parsed(name)
    return parsed is not None and parsed[2] == "sharded"


def is_delta(name: str) -> bool:
    """Whether a name in a store is a delta's.

    >>> is_delta("step-000000001300.delta.safetensors"), is_delta("walk.safetensors")
    (True, False)
    """
    parsed = _parsed(name)
    return parsed is not None and parsed[2] == "delta"


def entries(store: Store) -> list[Entry]:
    """List the checkpoints of a store, oldest first, without opening any."""
    found, ranks = [], Counter[int]()
    for blob in store.list():
        if match := _RANK_FILE.fullmatch(blob.name):
            ranks[int(match[1])] += blob.size
        elif parsed := _parsed(blob.name):
            (step, attempt, kind), size = parsed, blob.size
            delta, sharded = kind == "delta", kind == "sharded"
            if blob.name == name_of(step, attempt, delta=delta, sharded=sharded):
                found.append(Entry(step, attempt, blob.name, size, blob.created, delta, sharded))
    found = [evolve(e, size=e.size + ranks[e.step]) if e.sharded else e for e in found]
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
            return create(store, step, packed, next_attempt(entries(store), step))
    with CHANGING, store.lock():
        packed, found = encode(base=_base(store, base, key)), entries(store)
        if not pays(packed, {e.name: e.size if e.delta else 0 for e in found}):
            packed = container.pack_whole(packed)
        return create(store, step, packed, next_attempt(found, step))


def next_attempt(found: list[Entry], step: int) -> int:
    """The number of the next attempt at a step, after those that were found."""
    return max((entry.attempt for entry in found if entry.step == step), default=-1) + 1


def create(store: Store, step: int, packed: Packed, attempt: int = 0) -> Entry:
    """Store it under the first name of its step, from `attempt` on, that is free."""
    sharded = packed.header.meta.sharded
    delta = bool(packed.header.parents) and not sharded
    while True:
        name = name_of(step, attempt, delta=delta, sharded=sharded)
        try:
            store.create(name, packed.size, packed.chunks())
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


def pays(packed: Packed, sizes: Mapping[str, int]) -> bool:
    """Say whether a delta is worth it, and what it continues is there; True if it is none.

    `sizes` are those of the files that are there, 0 for the full ones.
    """
    names = [parent.name for parent in packed.header.parents]
    if not names:
        return True
    deltas = packed.size + sum(sizes.get(name, 0) for name in names)
    there = all(name in sizes for name in names)
    room = _MOST_ROOM * size_of_full(packed.header)
    return there and len(names) <= _MOST_PARENTS and deltas <= room


def size_of_full(header: Header) -> int:
    """How large a delta's checkpoint would be, about, as a full one."""
    own = header.digests_offset - header.data_offset
    return header.file_size - own + header.full_size


def load(
    store: Store,
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
def opened(store: Store, name: str, *, key: bytes | None = None) -> Iterator[Opened]:
    """Open a checkpoint, its seal verified, together with those that it continues."""
    with errors_at(name), ExitStack() as stack:
        yield _open(stack, store, name, key)


def _open(stack: ExitStack, store: Store, name: str, key: bytes | None) -> Opened:
    """Open it; its files are closed by the stack, which holds nothing of what is returned."""
    checkpoint = opening.opened(
        stack.enter_context(store.open(name)),
        lambda parent: stack.enter_context(store.open(parent)),
        name=name,
        step=step_of(name),
        key=key,
    )
    header, parsed = checkpoint.header, _parsed(name)
    kind = "sharded" if header.meta.sharded else "delta" if header.parents else ""
    if parsed and parsed[2] != kind:
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
    raise none_verifies(skipped)


def none_verifies(skipped: Skipped) -> NoCheckpoint:
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
    found, skipped = newest_sound(
        store, lambda name: load(store, name, cls, key=key, into=into), step
    )
    if found is not None:
        return Found(*found, skipped)
    if skipped:
        raise skipped[0][1]
    raise not_there(step, [e.step for e in entries(store)])


def not_there(step: int, steps: list[int]) -> NoCheckpoint:
    """The error where there is none of a step; `steps` are those that there are."""
    return NoCheckpoint(
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
