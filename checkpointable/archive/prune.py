"""Deleting checkpoints that a policy does not keep; what is kept stays readable."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from attrs import evolve

from checkpointable.archive import steps
from checkpointable.archive.keep import AnyKeep, KeptStep, chosen
from checkpointable.archive.names import Entry, listed, name_of
from checkpointable.errors import CorruptCheckpoint, InvalidCheckpoint, NoCheckpoint
from checkpointable.format import Bytes, Place, container, layout, read_arrays
from checkpointable.stores import Store, Tiers
from checkpointable.threads import parallel_map

_AT_ONCE = 16  # concurrent deletions, each of which waits for the disk


def prune(
    store: Store,
    keep: AnyKeep,
    *,
    compact: bool = False,
    valid: str | None = None,
    key: bytes | None = None,
) -> list[Entry]:
    """Delete the checkpoints that `keep` does not keep, and return them, oldest first.

    The newest valid one always stays, whatever `keep` says, and so does everything newer: a medium
    that cannot be read at the moment may be readable later. The parents of a kept delta stay as
    well; if they cannot be read, everything older stays. With `compact` each valid kept delta is
    first rewritten as a full checkpoint, so that it needs no parents.

    `valid` is the name of a checkpoint that the caller has just written, so that it need not be
    read. Whenever the process dies, every kept checkpoint can be read. In a `Tiered` store this
    prunes the fast tier.

    Rank files that no manifest refers to are deleted as well. So with many ranks only rank 0 calls
    this, as `run` does, and never while they save.
    """
    options: dict[str, Any] = {"compact": compact, "valid": valid, "key": key}
    with steps.CHANGING:
        if not isinstance(store, Tiers):
            return prune_locked(store, keep, **options)
        deleted: list[Entry] = []
        with store.pruning() as (near, spared):
            deleted = prune_locked(near, keep, spared=spared, **options)
        return deleted


def prune_locked(
    store: Store,
    keep: AnyKeep,
    *,
    compact: bool = False,
    valid: str | None = None,
    key: bytes | None = None,
    spared: frozenset[str] = frozenset(),
) -> list[Entry]:
    """Prune while no delta is being made, which the caller sees to; `spared` stay as well."""
    with store.lock():
        checkpoints, rank_files = listed(store)
        kept = chosen(keep, history(store, checkpoints))
        if all(entry.step in kept for entry in checkpoints) and not compact and not rank_files:
            return []
        names = [entry.name for entry in checkpoints]
        newest = names.index(valid) if valid in names else _newest_valid(store, checkpoints, key)
        kept |= {entry.step for entry in checkpoints if entry.name in spared}
        wanted = [e for i, e in enumerate(checkpoints) if e.step in kept or i >= newest]
        if compact:
            wanted = [_compacted(store, entry, key) if entry.delta else entry for entry in wanted]
        stay = needed(store, checkpoints, wanted, rank_files) | spared
        surplus = [entry for entry in checkpoints if entry.name not in stay]
        for entry in reversed(surplus):  # a delta before its parents
            store.delete(entry.name)
        orphans = [name for name in rank_files if name not in stay]
        parallel_map(partial(_delete_orphan, store), orphans, _AT_ONCE, "delete")
    return surplus


def _delete_orphan(store: Store, name: str) -> None:
    with suppress(NoCheckpoint):  # its rank deletes it too, after a save that failed
        store.delete(name)


def history(store: Store, checkpoints: list[Entry]) -> list[KeptStep]:
    """The steps that a policy chooses from: of each step the newest attempt."""

    def step(entry: Entry) -> KeptStep:
        return KeptStep(entry.step, entry.created, lambda: _tree(store, entry.name))

    return [*{entry.step: step(entry) for entry in checkpoints}.values()]


def _tree(store: Store, name: str) -> Any:
    """The tree in the header of a checkpoint; None if that cannot be read."""
    try:
        return steps.read_header(store, name).meta.tree
    except InvalidCheckpoint:
        return None


def _newest_valid(store: Store, checkpoints: list[Entry], key: bytes | None) -> int:
    for index in reversed(range(len(checkpoints))):
        try:
            steps.verify(store, checkpoints[index].name, key=key)
        except InvalidCheckpoint:
            continue
        return index
    raise NoCheckpoint(
        f"none of the {len(checkpoints)} checkpoints is valid, so none is deleted",
        hint="look at them with `checkpointable verify`",
    )


def needed(
    store: Store, checkpoints: list[Entry], wanted: list[Entry], rank_files: list[str]
) -> set[str]:
    """The names of the wanted checkpoints, of their parents, and of their parents' parents.

    If the parents of one cannot be read, everything older is needed.
    """
    needed = {entry.name for entry in wanted}
    left = [entry.name for entry in wanted if entry.delta or entry.sharded]
    names = [entry.name for entry in checkpoints]
    deltas = {entry.name for entry in checkpoints if entry.delta}
    while left:
        name = left.pop()
        try:
            parents = [parent.name for parent in steps.read_header(store, name).parents]
        except InvalidCheckpoint:
            parents = names[: names.index(name)] + rank_files
        left += [parent for parent in parents if parent in deltas - needed]
        needed.update(parents)
    return needed


def _compacted(store: Store, entry: Entry, key: bytes | None) -> Entry:
    """Rewrite a delta as a full checkpoint; a damaged one is returned as it is."""
    full = name_of(entry.step, entry.attempt)
    with suppress(InvalidCheckpoint, NoCheckpoint):
        steps.verify(store, full, key=key)  # the process died before it deleted the delta
        return evolve(entry, name=full, delta=False)
    try:
        return _rewrite_as_full(store, entry, key)
    except CorruptCheckpoint:
        return entry


def _rewrite_as_full(store: Store, entry: Entry, key: bytes | None) -> Entry:
    with steps.opened(store, entry.name, key=key) as checkpoint:
        header = checkpoint.header
        if header.meta.signed and key is None:
            hint = "give the key that it is signed with"
            raise InvalidCheckpoint("it would lose its signature", where=entry.name, hint=hint)
        buffer = memoryview(bytearray(layout.BLOCK))

        def read(places: Iterable[Place]) -> Iterator[Bytes]:
            for placed, index in places:
                yield read_arrays.read_block(checkpoint, header.arrays[placed.name], index, buffer)

        specs = {name: (placed.dtype, placed.shape) for name, placed in header.arrays.items()}
        meta = evolve(header.meta, nonce=os.urandom(16).hex())
        packed = container.pack_blocks(meta, specs, read, key)
        return steps.create(store, entry.step, packed, entry.attempt)
