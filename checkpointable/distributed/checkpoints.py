"""Checkpoints of many ranks: each writes a file, and rank 0 commits them all with a manifest.

The manifest says which rank's file has which box of each array, and identifies the files by their
seals. What is not a `Shard` is in rank 0's file only. Without the manifest there is no checkpoint:
whatever fails before it is created, the previous checkpoint is the newest.

After each phase the ranks exchange how it went. The failure of one is the error of all, and no rank
is left waiting.
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
    """A rank's file of the previous save, which the next delta is made against.

    `sizes` are those of the file and its parents, 0 for full ones.
    """

    base: Base
    sizes: dict[str, int]


@frozen
class Written:
    """What a rank has written: its file, the parents of that, and its boxes of arrays.

    `same` are the digests of what must be equal on all ranks, `specs` the dtypes and global shapes
    of the arrays; rank 0 has all of them.
    """

    file: Parent
    size: int
    parents: tuple[Parent, ...]
    boxes: dict[str, Box]
    specs: dict[str, Spec]
    same: dict[str, bytes]


@frozen
class _Outcome:
    """How a save ended: with an entry, or with a failure, before the manifest or in it."""

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
    """Store a checkpoint together with all other ranks, which call this too.

    The default of `step` is the one after the newest. With `previous`, which the previous save
    returned, each rank's file is a delta against its previous file, if that saves space.

    All ranks raise the error of the one that failed: `InvalidCheckpoint` if the shards do not cover
    an array, or if anything else differs between ranks; otherwise as `archive.save`. Nothing was
    stored then; the rank files are deleted now or by the next `prune`.
    """
    rank, cls = coordinator.rank, cls or type(checkpoint)
    with ExitStack() as stack:
        if rank == 0:  # which prunes, but not before the manifest refers to these files
            stack.enter_context(archive.CHANGING)

        def begin() -> tuple[int, str]:
            stack.enter_context(store.lock())
            return (next_step(store) if step is None else step), os.urandom(8).hex()

        number, nonce = on_root(coordinator, begin)
        name = archive.rank_file_name(number, rank, nonce)
        made: list[tuple[Meta, Previous]] = []

        def write() -> Written:
            if step not in (None, number):
                raise InvalidCheckpoint(f"it is at step {step}, but rank 0 at step {number}")
            meta, arrays = codec.describe(checkpoint, cls, step=number, kernel=kernel)
            shards = {f"{field}.local": getattr(checkpoint, field) for field in shard_fields(cls)}
            meta = evolve(meta, tree=_whole(meta.tree, shards))
            place = of_rank(rank, store)
            written, kept = _write(place, name, meta, arrays, shards, rank, key, previous)
            made.append((meta, kept))
            return written

        results = coordinator.gather(attempt(coordinator, write))
        ended = _commit(store, results, made, coordinator, cls, key) if results else None
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

    Returns None if the store has no checkpoint. `on_read` is called with the name of each before it
    is read. Each rank reads everything that is not a shard, and of the shards what its kernel's
    `restore` uses. A checkpoint that is damaged for any rank is passed over by all; then a kernel
    may be restored twice.

    All raise `NoCheckpoint` if none is left, and what a kernel's `restore` raises except
    `CorruptCheckpoint`; otherwise as `archive.latest`.
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
    """The store that a rank writes to: rank 0 holds the lock for all.

    Raises `StoreError` if the store does not support that.
    """
    if rank == 0:
        return store
    if not isinstance(store, SharedWriters):
        hint = "use a directory, or an object store, or give it a method without_lock()"
        raise StoreError("not a store that many ranks can write to", where=repr(store), hint=hint)
    return store.without_lock()


def _whole(tree: Mapping[str, Any], shards: Shards) -> dict[str, Any]:
    """The tree of the global checkpoint, where every shard has offset 0."""
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
    """Write this rank's file: its shards, and on rank 0 everything else."""
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
    """The digests of what must be equal on all ranks, by its place in the checkpoint."""
    values = {**meta.tree, "(schema)": meta.schema}
    texts = {name: orjson.dumps(value) for name, value in values.items()}
    for name, shard in shards.items():
        texts[name] = f"{shard.local.dtype} {shard.shape}".encode()
    for name, array in arrays.items():
        host = on_host(array)
        blocks = range(-(-host.nbytes // layout.BLOCK))
        content = b"".join(digest(layout.gather(host, index)) for index in blocks)
        texts[name] = f"{host.dtype} {host.shape}".encode() + content
    return {name: digest(text) for name, text in texts.items()}


def _commit(
    store: Store, results: Sequence[Written | Failure], made: Sequence[tuple[Meta, Previous]],
    coordinator: Coordinator, cls: Any, key: bytes | None,
) -> _Outcome:  # fmt: skip
    """Create the manifest, if all ranks have written and their files fit together."""
    written = [one for one in results if isinstance(one, Written)]
    failures = [one for one in results if isinstance(one, Failure)]
    if failures:
        return _Outcome(failure=failures[0])
    existing = attempt(coordinator, lambda: _check_saved(store, written, cls))
    if isinstance(existing, Failure):
        return _Outcome(failure=existing)
    entry = attempt(
        coordinator, lambda: _create_manifest(store, made[0][0], written, existing, key)
    )
    if isinstance(entry, Failure):
        return _Outcome(failure=entry, manifest_tried=True)
    return _Outcome(evolve(entry, size=entry.size + sum(one.size for one in written)))


def _check_saved(store: Store, written: Sequence[Written], cls: Any) -> list[Entry]:
    """Check that the ranks' files fit together and are in this store; return its checkpoints.

    Raises as `check_together`, and `StoreError` if a rank wrote elsewhere, as to a local disk.
    """
    check_together(written, cls)
    existing, rank_files = listed(store)
    _check_there(store, written, set(rank_files))
    return existing


def check_together(written: Sequence[Written], cls: Any) -> None:
    """Raise `InvalidCheckpoint` unless the ranks agree and their shards cover the arrays."""
    first, name = written[0], getattr(cls, "__name__", str(cls))
    for rank, one in enumerate(written):
        for at in first.same.keys() | one.same.keys():
            if one.same.get(at) != first.same.get(at):
                raise InvalidCheckpoint(
                    f"it differs on rank {rank}",
                    where=f"{name}.{at}",
                    hint="compute the same on all ranks, or make the field a Shard",
                )
    for at, (_, shape) in first.specs.items():
        boxes = [one.boxes[at] for one in written if at in one.boxes]
        check_boxes(boxes, shape, f"{name}.{at.removesuffix('.local')}")


def _check_there(store: Store, written: Sequence[Written], there: set[str]) -> None:
    for rank, one in enumerate(written):
        if one.file.name not in there and not _is_there(store, one.file.name):
            raise StoreError(
                f"the file of rank {rank} is missing",
                where=f"{store!r}: {one.file.name}",
                hint="give all ranks one store, such as a directory that all machines share",
            )


def _is_there(store: Store, name: str) -> bool:
    """Whether the file exists, by name: network file systems list from their cache."""
    try:
        with store.open(name):
            return True
    except NoCheckpoint:
        return False


def _create_manifest(
    store: Store, meta: Meta, written: Sequence[Written], existing: list[Entry], key: bytes | None
) -> Entry:
    packed = manifest_from(meta, written, key)
    return archive.create(store, meta.step, packed, archive.next_attempt(existing, meta.step))


def manifest_from(meta: Meta, written: Sequence[Written], key: bytes | None = None) -> Packed:
    """The manifest of the ranks' files, in the order of ranks."""
    files = [one.file for one in written]
    parents = dict.fromkeys(parent for one in written for parent in one.parents)
    specs = written[0].specs
    parts: dict[str, list[Part]] = {name: [] for name in specs}
    for source, one in enumerate(written, 1):
        for name, box in one.boxes.items():
            parts[name].append(Part(source, box))
    given = {name: tuple(listed) for name, listed in parts.items()}
    return container.pack_manifest(meta, specs, (*files, *parents), given, key)
