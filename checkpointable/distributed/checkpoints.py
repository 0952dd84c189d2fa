"""Checkpoints of a job of many ranks: each writes a file, and rank 0 commits them all by a head.

The head says which rank's file has which box of each array, and by their seals which files these
are. What is no `Shard` is in rank 0's file alone. There is no checkpoint before the head is there:
whatever dies before, the one before that is the newest.

After each phase the ranks tell each other how it went, not only that they have come so far: the
failure of one is the error of all, and nobody is left waiting.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any, TypeAlias, TypeVar

import orjson
from attrs import evolve, frozen

from checkpointable import archive
from checkpointable.archive import Entry, Skipped, codec, listed, next_step
from checkpointable.arrays import check_boxes, on_host
from checkpointable.arrays.boxes import Box
from checkpointable.distributed.agreement import (
    Failure,
    attempt,
    attempted,
    first_failure,
    on_root,
)
from checkpointable.distributed.coordinator import Coordinator
from checkpointable.errors import (
    CheckpointableError,
    CorruptCheckpoint,
    InvalidCheckpoint,
    NoCheckpoint,
    StoreError,
)
from checkpointable.format import Base, Meta, Packed, Parent, Part, Spec, container, digest, layout
from checkpointable.protocol import Checkpointable, KernelMetadata
from checkpointable.schema import Shard, shard_fields
from checkpointable.stores import SharedWriters, Store
from checkpointable.threads import in_thread

C = TypeVar("C")
Shards: TypeAlias = Mapping[str, Shard[Any]]


@frozen(eq=False)
class Previous:
    """A rank's file of the save before, which the next delta is made against.

    `sizes` are those of itself and of what it continues, 0 for a full one.
    """

    base: Base
    sizes: dict[str, int]


@frozen
class Written:
    """What a rank has written: its file, what this continues, and which boxes of arrays it has.

    `same` are the digests of what has to be the same on all ranks, `specs` the dtypes and global
    shapes of the arrays; rank 0 has those of all.
    """

    file: Parent
    size: int
    parents: tuple[Parent, ...]
    boxes: dict[str, Box]
    specs: dict[str, Spec]
    same: dict[str, bytes]


@frozen
class _Outcome:
    """How a save ended: with an entry, or with a failure before or after a head was tried."""

    entry: Entry | None = None
    failure: Failure | None = None
    manifest_tried: bool = False


def save(
    store: Store,
    checkpoint: object,
    step: int | None,
    *,
    coordinator: Coordinator,
    kernel: KernelMetadata | None = None,
    cls: Any = None,
    key: bytes | None = None,
    previous: Previous | None = None,
) -> tuple[Entry, Previous]:
    """Store a checkpoint together with all other ranks, each of which calls this.

    Without a step it is the one after the newest. With `previous`, which the save before has
    returned, each rank's file is a delta against its own of then, if that is worth it.

    All raise the error of the rank that failed: `InvalidCheckpoint` if the shards do not make the
    whole, or if what is no shard differs between ranks; else as `archive.save`. Nothing was stored
    then; what ranks have written is deleted, now or by the next `prune`.
    """
    rank, cls = coordinator.rank, cls or type(checkpoint)
    with ExitStack() as stack:
        if rank == 0:  # who prunes: not before there is a head that has what is written now
            stack.enter_context(archive.CHANGING)

        def begin() -> tuple[int, str]:
            stack.enter_context(store.lock())
            return (next_step(store) if step is None else step), os.urandom(8).hex()

        number, nonce = on_root(coordinator, begin)
        name = archive.rank_file_name(number, rank, nonce)
        made: list[tuple[Meta, Previous]] = []

        def write() -> Written:
            if step not in (None, number):
                raise InvalidCheckpoint(f"it is at step {step}, and rank 0 at step {number}")
            meta, arrays = codec.describe(checkpoint, cls, step=number, kernel=kernel)
            shards = {f"{field}.local": getattr(checkpoint, field) for field in shard_fields(cls)}
            meta = evolve(meta, tree=_whole(meta.tree, shards))
            place = of_rank(rank, store)
            written, kept = _write(place, name, meta, arrays, shards, rank, key, previous)
            made.append((meta, kept))
            return written

        told = coordinator.gather(attempt(coordinator, write))
        ended = _committed(store, told, made, coordinator, cls, key) if told else None
        outcome: Any = coordinator.broadcast(ended)
    if outcome.failure is not None:
        if not outcome.manifest_tried:
            with suppress(CheckpointableError):  # or by the next prune
                of_rank(rank, store).delete(name)
        raise outcome.failure.error()
    return outcome.entry, made[0][1]


async def restore(
    store: Store,
    kernel: Checkpointable[C],
    cls: type[C],
    *,
    coordinator: Coordinator,
    step: int | None = None,
    key: bytes | None = None,
    on_read: Callable[[str], object] | None = None,
) -> tuple[Entry, Skipped] | None:
    """Restore the kernels of all ranks from the newest checkpoint (of a step) that all can read.

    None if the store has none at all. `on_read` is told the name of each before it is read. Each
    rank reads what is no shard, and of these what its kernel's `restore` takes of them. One that is
    damaged for any of them is passed over by all: then a kernel is restored again, from another.

    All raise `NoCheckpoint` if none is left, and what a kernel's `restore` raises but
    `CorruptCheckpoint`; else as `archive.latest`.
    """
    entries = on_root(coordinator, lambda: archive.entries(store))
    skipped: list[tuple[Entry, CheckpointableError]] = []
    for entry in reversed(entries):
        if step not in (None, entry.step):
            continue
        if on_read is not None:
            on_read(entry.name)
        mine = await attempted(coordinator.rank, _restored(store, entry.name, kernel, cls, key))
        failure = first_failure(coordinator, mine)
        if failure is None:
            return entry, tuple(skipped)
        if not issubclass(failure.kind, CorruptCheckpoint | NoCheckpoint):
            raise failure.error()
        skipped.append((entry, failure.error()))
    if skipped:
        raise archive.none_is_valid(tuple(skipped))
    if step is not None:
        raise archive.not_there(step, [entry.step for entry in entries])
    return None


async def _restored(
    store: Store, name: str, kernel: Checkpointable[C], cls: type[C], key: bytes | None
) -> None:
    checkpoint = await in_thread(lambda: archive.load(store, name, cls, key=key, arrays="shards"))
    await kernel.restore(checkpoint)


def of_rank(rank: int, store: Store) -> Store:
    """The store as a rank writes to it: rank 0 holds the lock for all.

    Raises `StoreError` if it cannot be written so.
    """
    if rank == 0:
        return store
    if not isinstance(store, SharedWriters):
        hint = "use a directory, or an object store, or give it a method without_lock()"
        raise StoreError("not a store that many ranks can write to", where=repr(store), hint=hint)
    return store.without_lock()


def _whole(tree: Mapping[str, Any], shards: Shards) -> dict[str, Any]:
    """The tree of the global checkpoint, whose arrays begin at its own beginning."""
    fields = {name.removesuffix(".local"): shard for name, shard in shards.items()}
    return {
        name: {**value, "offset": {"$tuple": [0] * len(fields[name].shape)}}
        if name in fields
        else value
        for name, value in tree.items()
    }


def _write(
    store: Store, name: str, meta: Meta, arrays: Mapping[str, Any], shards: Shards, rank: int,
    key: bytes | None, previous: Previous | None,
) -> tuple[Written, Previous]:  # fmt: skip
    """Write this rank's file: its shards, and on rank 0 all else."""
    own = {n: array for n, array in arrays.items() if rank == 0 or n in shards}
    sizes = {} if previous is None else previous.sizes
    base = None if previous is None else previous.base
    packed = container.pack(evolve(meta, tree={"rank": rank}), own, key, base)
    if not archive.delta_is_worth_it(packed, sizes):
        packed = packed.as_full()
    store.create(name, packed.size, packed)
    assert packed.end is not None  # the store has taken all chunks
    table, seal = packed.end
    header = packed.header
    boxes = {n: (_offset(n, a.shape, shards), a.shape) for n, a in header.arrays.items()}
    shapes = {n: shards[n].shape if n in shards else a.shape for n, a in header.arrays.items()}
    specs = {n: (a.dtype, shapes[n]) for n, a in header.arrays.items() if rank == 0}
    same = _same(meta, {n: a for n, a in arrays.items() if n not in shards}, shards)
    file = Parent(name, seal.hex())
    written = Written(file, packed.size, header.parents, boxes, specs, same)
    sizes = {parent.name: sizes[parent.name] for parent in header.parents}
    sizes[name] = packed.size if header.parents else 0
    return written, Previous(Base(name, header, table, seal), sizes)


def _offset(name: str, shape: tuple[int, ...], shards: Shards) -> tuple[int, ...]:
    return shards[name].offset if name in shards else (0,) * len(shape)


def _same(meta: Meta, arrays: Mapping[str, Any], shards: Shards) -> dict[str, bytes]:
    """The digests of what has to be the same on all ranks, by where it is in the checkpoint."""
    said = {**meta.tree, "(schema)": meta.schema}
    found = {name: orjson.dumps(value) for name, value in said.items()}
    for name, shard in shards.items():
        found[name] = f"{shard.local.dtype} {shard.shape}".encode()
    for name, array in arrays.items():
        host = on_host(array)
        blocks = range(-(-host.nbytes // layout.BLOCK))
        content = b"".join(digest(layout.gather(host, index)) for index in blocks)
        found[name] = f"{host.dtype} {host.shape}".encode() + content
    return {name: digest(value) for name, value in found.items()}


def _committed(
    store: Store, told: Sequence[Written | Failure], made: Sequence[tuple[Meta, Previous]],
    coordinator: Coordinator, cls: Any, key: bytes | None,
) -> _Outcome:  # fmt: skip
    """Create the head, if all have written, and it fits."""
    written = [one for one in told if isinstance(one, Written)]
    failures = [one for one in told if isinstance(one, Failure)]
    if failures:
        return _Outcome(failure=failures[0])
    found = attempt(coordinator, lambda: _check_saved(store, written, cls))
    if isinstance(found, Failure):
        return _Outcome(failure=found)
    entry = attempt(coordinator, lambda: _create_manifest(store, made[0][0], written, found, key))
    if isinstance(entry, Failure):
        return _Outcome(failure=entry, manifest_tried=True)
    return _Outcome(evolve(entry, size=entry.size + sum(one.size for one in written)))


def _check_saved(store: Store, written: Sequence[Written], cls: Any) -> list[Entry]:
    """The same, and raise `StoreError` if they wrote to different places, as to each machine's.

    Gives the checkpoints that are there.
    """
    check_together(written, cls)
    found, rank_files = listed(store)
    _check_there(store, written, set(rank_files))
    return found


def check_together(written: Sequence[Written], cls: Any) -> None:
    """Raise `InvalidCheckpoint` unless the ranks agree, and their shards make the whole."""
    first, name = written[0], getattr(cls, "__name__", str(cls))
    for rank, one in enumerate(written):
        for at in first.same.keys() | one.same.keys():
            if one.same.get(at) != first.same.get(at):
                raise InvalidCheckpoint(
                    f"it is not the same on rank {rank}",
                    where=f"{name}.{at}",
                    hint="compute it alike on all ranks, or make the field a Shard",
                )
    for at, (_, shape) in first.specs.items():
        boxes = [one.boxes[at] for one in written if at in one.boxes]
        check_boxes(boxes, shape, f"{name}.{at.removesuffix('.local')}")


def _check_there(store: Store, written: Sequence[Written], there: set[str]) -> None:
    for rank, one in enumerate(written):
        if one.file.name not in there and not _is_there(store, one.file.name):
            raise StoreError(
                f"what rank {rank} has written is not there",
                where=f"{store!r}: {one.file.name}",
                hint="give all ranks one store, such as a directory that all machines share",
            )


def _is_there(store: Store, name: str) -> bool:
    """Ask for it by name: network file systems list what they remember."""
    try:
        with store.open(name):
            return True
    except NoCheckpoint:
        return False


def _create_manifest(
    store: Store, meta: Meta, written: Sequence[Written], found: list[Entry], key: bytes | None
) -> Entry:
    packed = manifest_from(meta, written, key)
    return archive.create(store, meta.step, packed, archive.next_attempt(found, meta.step))


def manifest_from(meta: Meta, written: Sequence[Written], key: bytes | None = None) -> Packed:
    """The head of what the ranks have written, in the order of ranks."""
    files = [one.file for one in written]
    continued = dict.fromkeys(parent for one in written for parent in one.parents)
    specs = written[0].specs
    parts: dict[str, list[Part]] = {name: [] for name in specs}
    for source, one in enumerate(written, 1):
        for name, box in one.boxes.items():
            parts[name].append(Part(source, box))
    given = {name: tuple(found) for name, found in parts.items()}
    return container.pack_manifest(meta, specs, (*files, *continued), given, key)
