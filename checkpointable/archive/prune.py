"""What stays in a store, and what goes: nothing that is kept ever becomes unreadable."""

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

_AT_ONCE = 16  # deletions, each of which waits for the disk


def prune(
    store: Store,
    keep: AnyKeep,
    *,
    compact: bool = False,
    sound: str | None = None,
    key: bytes | None = None,
) -> list[Entry]:
    """Delete the checkpoints that `keep` does not name, and return them, oldest first.

    The newest that verifies always stays, whatever `keep` says, and so does all that is newer: a
    medium that cannot be read at the moment may be readable later. What a kept delta continues
    stays as well; if that cannot be read, all that is older does. With `compact` each kept delta
    that verifies is stored again as a full checkpoint first, so that it needs no other.

    `sound` is the name of one that the caller has just written, which saves reading it. Whenever
    the process dies, each kept one can be read. Of a `Tiered` it is the fast tier's.

    What ranks have written that no checkpoint has is deleted as well: so where there are many, rank
    0 calls this, as `run` does, and nobody while they save.
    """
    options: dict[str, Any] = {"compact": compact, "sound": sound, "key": key}
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
    sound: str | None = None,
    key: bytes | None = None,
    spared: frozenset[str] = frozenset(),
) -> list[Entry]:
    """The same where nobody else makes a delta meanwhile; those `spared` stay as well."""
    with store.lock():
        found, orphans = listed(store)
        kept = chosen(keep, history(store, found))
        if all(entry.step in kept for entry in found) and not compact and not orphans:
            return []
        names = [entry.name for entry in found]
        newest = names.index(sound) if sound in names else _newest_valid(store, found, key)
        kept |= {entry.step for entry in found if entry.name in spared}
        wanted = [e for i, e in enumerate(found) if e.step in kept or i >= newest]
        if compact:
            wanted = [_compacted(store, entry, key) if entry.delta else entry for entry in wanted]
        stays = needed(store, found, wanted, orphans) | spared
        surplus = [entry for entry in found if entry.name not in stays]
        for entry in reversed(surplus):  # a delta before what it continues
            store.delete(entry.name)
        gone = [name for name in orphans if name not in stays]
        parallel_map(partial(_delete_stray, store), gone, _AT_ONCE, "delete")
    return surplus


def _delete_stray(store: Store, name: str) -> None:
    with suppress(NoCheckpoint):  # its rank does the same after a save that has failed
        store.delete(name)


def history(store: Store, found: list[Entry]) -> list[KeptStep]:
    """What a policy is told: of each step the newest attempt."""

    def past(entry: Entry) -> KeptStep:
        return KeptStep(entry.step, entry.created, lambda: _tree(store, entry.name))

    return [*{entry.step: past(entry) for entry in found}.values()]


def _tree(store: Store, name: str) -> Any:
    """The tree of a checkpoint, as its header says; None if that cannot be read."""
    try:
        return steps.read_header(store, name).meta.tree
    except InvalidCheckpoint:
        return None


def _newest_valid(store: Store, found: list[Entry], key: bytes | None) -> int:
    for index in reversed(range(len(found))):
        try:
            steps.verify(store, found[index].name, key=key)
        except InvalidCheckpoint:
            continue
        return index
    raise NoCheckpoint(
        f"none of the {len(found)} checkpoints verifies, so none is deleted",
        hint="look at them with `checkpointable verify`",
    )


def needed(
    store: Store, found: list[Entry], wanted: list[Entry], rank_files: list[str]
) -> set[str]:
    """The names of the wanted checkpoints, of their parents, and so on.

    If the parents of one cannot be read, all that is older is needed.
    """
    needed = {entry.name for entry in wanted}
    left = [entry.name for entry in wanted if entry.delta or entry.sharded]
    names = [entry.name for entry in found]
    deltas = {entry.name for entry in found if entry.delta}
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
    """Store a delta again, as a full checkpoint; itself if it is damaged."""
    full = name_of(entry.step, entry.attempt)
    with suppress(InvalidCheckpoint, NoCheckpoint):
        steps.verify(store, full, key=key)  # of one who died before the delta was deleted
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
