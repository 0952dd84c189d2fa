"""Checkpoints of a job of many ranks: each writes a file, and rank 0 commits them by a head.

The head says of each array which rank's file has which box of it, and by their seals which files
these are. What is no `Shard` is in rank 0's file alone. There is no checkpoint before the head is
there; so whatever dies before, the one before that is the newest.

After every phase the ranks tell each other how it went, and not only that they have come so far:
the failure of one is the error of all, and none is left waiting.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import Any, TypeVar

import orjson
from attrs import evolve, field, frozen

from checkpointable import archive, codec, container, layout
from checkpointable.archive import Entry
from checkpointable.boxes import Box, check_boxes
from checkpointable.coordinator import Coordinator
from checkpointable.delta import Base
from checkpointable.device.arrays import on_host
from checkpointable.digests import digest
from checkpointable.errors import CheckpointableError, InvalidCheckpoint, StoreError
from checkpointable.layout import Bytes, Meta, Parent, Part, Spec
from checkpointable.protocol import KernelMetadata
from checkpointable.shards import Shard, shard_fields
from checkpointable.store import Store
from checkpointable.stores import without_lock

T = TypeVar("T")


@frozen
class Failure:
    """What went wrong on a rank, for the others."""

    rank: int
    kind: type[CheckpointableError]
    what: str
    where: str = ""
    hint: str = ""

    def error(self) -> CheckpointableError:
        """The error that all ranks raise."""
        return self.kind(f"rank {self.rank}: {self.what}", where=self.where, hint=self.hint)


@frozen
class _Written:
    """What a rank has written: its file, which box of which array it has, and what all must have.

    `same` has the digest of each thing that has to be the same on all ranks.
    """

    file: Parent
    size: int
    parents: tuple[Parent, ...]
    boxes: dict[str, Box]
    specs: dict[str, Spec]
    same: dict[str, bytes]


@frozen(eq=False)
class Previous:
    """A rank's file of the save before, which the next delta is made against."""

    base: Base
    sizes: dict[str, int] = field(factory=dict)


def attempt(rank: int, work: Callable[[], T]) -> T | Failure:
    """What `work` returns, or how it failed."""
    try:
        return work()
    except CheckpointableError as error:
        return Failure(rank, type(error), error.what, error.where, error.hint)
    except Exception as error:  # of a user's class, or of a medium: it must not hang the others
        return Failure(rank, StoreError, f"{type(error).__name__}: {error}")


def from_first(coordinator: Coordinator, work: Callable[[], T]) -> T:
    """What `work` returns on rank 0, on all of them; or its error."""
    told = coordinator.broadcast(attempt(0, work) if coordinator.rank == 0 else None)
    if isinstance(told, Failure):
        raise told.error()
    return told  # type: ignore[return-value]


def check_all(coordinator: Coordinator, mine: object) -> None:
    """Raise the failure of the first rank that has one, on all."""
    failures = [one for one in coordinator.gather(mine) if isinstance(one, Failure)]
    first = coordinator.broadcast(failures[0] if failures else None)
    if first is not None:
        raise first.error()


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

    All raise the same, about the rank that failed: `InvalidCheckpoint` if the shards do not make
    the whole, or if what is no shard differs between ranks; else as `archive.save`. Nothing was
    stored then; what ranks have written is deleted, or left to the next `prune`.
    """
    cls = cls or type(checkpoint)
    with ExitStack() as stack:

        def begin() -> tuple[int, str]:
            stack.enter_context(store.lock())
            found = archive.entries(store) if step is None else []
            return (found[-1].step + 1 if found else 0) if step is None else step, os.urandom(
                8
            ).hex()

        number, nonce = from_first(coordinator, begin)
        name = archive.rank_file_name(number, coordinator.rank, nonce)
        place = store if coordinator.rank == 0 else without_lock(store)
        made: list[Any] = []

        def write() -> _Written:
            meta, arrays = codec.taken_apart(checkpoint, cls, step=number, kernel=kernel)
            if step not in (None, number):
                raise InvalidCheckpoint(f"it is at step {step}, and rank 0 at step {number}")
            written, base, tree = _write(place, name, meta, arrays, checkpoint, cls,
                                         coordinator.rank, key, previous)  # fmt: skip
            made[:] = meta, tree, base
            return written

        mine = attempt(coordinator.rank, write)
        told = coordinator.gather(mine)
        done: Any = None
        if coordinator.rank == 0:
            done = attempt(0, lambda: _checked_together(told, cls))
            if not isinstance(done, Failure):
                head = attempt(0, lambda: _commit(store, made[0], made[1], done, key))
                done = (head,)
        done = coordinator.broadcast(done)
    if isinstance(done, Failure):  # no head was ever tried
        with suppress(CheckpointableError):
            place.delete(name)
        raise done.error()
    if isinstance(done[0], Failure):
        raise done[0].error()
    assert isinstance(mine, _Written)
    sizes = {} if not mine.parents or previous is None else previous.sizes
    return done[0], Previous(made[2], sizes | {name: mine.size})


def _write(
    store: Store, name: str, meta: Meta, arrays: Mapping[str, Any], checkpoint: object, cls: Any,
    rank: int, key: bytes | None, previous: Previous | None,
) -> tuple[_Written, Base, Any]:  # fmt: skip
    """Write this rank's file; with what it says, and the tree of the whole checkpoint."""
    shards: dict[str, Shard[Any]] = {
        f"{name}.local": getattr(checkpoint, name) for name in shard_fields(cls)
    }
    tree = dict(meta.tree)
    for field_name in shard_fields(cls):
        whole = {"$tuple": [0] * len(getattr(checkpoint, field_name).shape)}
        tree[field_name] = {**tree[field_name], "offset": whole}
    own = {n: a for n, a in arrays.items() if rank == 0 or n in shards}
    about = evolve(meta, tree={"rank": rank})
    packed = codec.pack(about, own, key, None if previous is None else previous.base)
    if packed.header.parents and previous and not _pays(packed, previous):
        packed = container.pack_whole(packed)
    last: deque[Bytes] = deque(maxlen=3)
    store.create(name, packed.size, _noting(packed.chunks(), last))
    table, seal = ([*last] if key is None else [*last][:-1])[-2:]
    header = packed.header
    file = Parent(name, bytes(seal).hex())
    boxes: dict[str, Box] = {}
    specs: dict[str, Spec] = {}
    for n, placed in header.arrays.items():
        shape = shards[n].shape if n in shards else placed.shape
        offset = shards[n].offset if n in shards else (0,) * len(placed.shape)
        boxes[n], specs[n] = (offset, placed.shape), (placed.dtype, shape)
    same = _same(tree, {n: a for n, a in arrays.items() if n not in shards}, meta, shards)
    written = _Written(file, packed.size, header.parents, boxes, specs, same)
    return written, Base(name, header, bytes(table), bytes(seal)), tree


def _noting(chunks: Iterable[Bytes], last: deque[Bytes]) -> Iterator[Bytes]:
    for chunk in chunks:
        last.append(chunk)
        yield chunk


def _pays(packed: container.Packed, previous: Previous) -> bool:
    """Say whether this rank's file is worth being a delta, as for a checkpoint of its own."""
    parents = [parent.name for parent in packed.header.parents]
    known = all(name in previous.sizes for name in parents)
    deltas = packed.size + sum(previous.sizes.get(name, 0) for name in parents[:-1])
    return (
        known
        and len(parents) <= archive.MOST_PARENTS
        and (deltas <= archive.MOST_ROOM * archive.size_of_full(packed.header))
    )


def _same(
    tree: Mapping[str, Any], arrays: Mapping[str, Any], meta: Meta, shards: Mapping[str, Shard[Any]]
) -> dict[str, bytes]:
    """The digests of what has to be the same on all ranks, by where it is."""
    found = {name: digest(orjson.dumps(value)) for name, value in tree.items()}
    found["(the schema)"] = digest(orjson.dumps(meta.schema))
    for name, array in arrays.items():
        host = on_host(array)
        head = digest(f"{host.dtype.str} {host.shape}".encode())
        blocks = range(-(-host.nbytes // layout.BLOCK))
        found[name] = head + b"".join(digest(layout.gather(host, i)) for i in blocks)
    for name, shard in shards.items():
        found[name] = digest(f"{layout_text(shard)}".encode())
    return {name: digest(value) for name, value in found.items()}


def layout_text(shard: Shard[Any]) -> str:
    """What the parts of one array have in common: dtype and global shape."""
    return f"{shard.local.dtype} of global shape {shard.shape}"


def _checked_together(told: list[Any], cls: Any) -> list[_Written]:
    """Raise what one of the ranks failed with, or `InvalidCheckpoint` if they do not fit."""
    for one in told:
        if isinstance(one, Failure):
            raise one.kind(f"rank {one.rank}: {one.what}", where=one.where, hint=one.hint)
    first: _Written = told[0]
    name = getattr(cls, "__name__", str(cls))
    for rank, one in enumerate(told):
        for at, found in first.same.items():
            if one.same.get(at) != found:
                raise InvalidCheckpoint(
                    f"rank {rank} has another value of it than rank 0",
                    where=f"{name}.{at}",
                    hint="compute it alike on all ranks, or make the field a Shard",
                )
    for at, (_, shape) in first.specs.items():
        boxes = [one.boxes[at] for one in told if at in one.boxes]
        check_boxes(boxes, shape, f"{name}.{at.removesuffix('.local')}")
    return told


def _commit(store: Store, meta: Meta, tree: Any, told: list[_Written], key: bytes | None) -> Entry:
    """Create the head."""
    files = [one.file for one in told]
    parents = dict.fromkeys(parent for one in told for parent in one.parents)
    specs = told[0].specs
    parts = {
        name: tuple(
            Part(rank + 1, one.boxes[name]) for rank, one in enumerate(told) if name in one.boxes
        )
        for name in specs
    }
    meta = evolve(meta, tree=tree)
    packed = container.pack_head(meta, specs, (*files, *parents), parts, key)
    following = archive.next_attempt(archive.entries(store), meta.step)
    entry = archive.create(store, meta.step, packed, following)
    return evolve(entry, size=entry.size + sum(one.size for one in told))
