"""`checkpointable fork`: a new directory that begins at a step of another."""

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from checkpointable import archive
from checkpointable.archive import Entry
from checkpointable.cli._shared import (
    KeyFile,
    count_text,
    print_json,
    print_passed_over,
    print_text,
    read_key,
    report_errors,
    store_at,
    usage_error,
)
from checkpointable.errors import CheckpointExists, errors_at
from checkpointable.format import read_arrays
from checkpointable.stores import How, LocalStore, duplicate, os_errors, sync_directory


def fork(
    store: Annotated[str, typer.Argument(help="Directory of checkpoints.", metavar="STORE")],
    step: Annotated[int, typer.Argument(help="The step to begin at.", metavar="STEP")],
    new: Annotated[Path, typer.Argument(help="The directory to make.", metavar="NEW")],
    key: KeyFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Make a new directory of a checkpoint and its parents, for a run to continue from.

    Every byte is verified first. The files are linked where the file system can, and take no room
    then; else cloned, or copied. NEW must not exist; it is there with all that belongs in it, and
    durable, or not at all.
    """
    with report_errors(as_json=as_json):
        secret, place = read_key(key), store_at(store)
        if not isinstance(place, LocalStore):
            raise usage_error(f"{store} is not a directory, and only directories can be forked")
        entry, done = fork_store(place, step, new.absolute(), key=secret)
    for name, how in done.items():
        if as_json:
            print_json({"event": how, "name": name})
    if as_json:
        print_json({"event": "forked", "step": entry.step, "name": entry.name, "store": str(new)})
        return
    counts = ", ".join(f"{n} {how}" for how, n in Counter(done.values()).items())
    print_text(f"{new} begins at step {entry.step}: {count_text(len(done), 'file')}, {counts}")


def fork_store(
    store: LocalStore, step: int, new: Path, *, key: bytes | None = None
) -> tuple[Entry, dict[str, How]]:
    """Make the directory `new`, an absolute path; return its checkpoint and how each file came.

    Raises `NoCheckpoint` if none of the step verifies, `CheckpointExists` if there is something of
    that name, `StoreError`; in each case nothing is there that was not before.
    """
    entry, names = _chosen(store, step, key)
    if os.path.lexists(new):
        hint = "give the name of a new directory"
        raise CheckpointExists("it already exists", where=str(new), hint=hint)
    return entry, _forked(store, entry, names, new, key)


def _chosen(store: LocalStore, step: int, key: bytes | None) -> tuple[Entry, list[str]]:
    """The newest valid checkpoint of a step, and the names of its files, itself last."""

    def read(name: str) -> list[str]:
        archive.verify(store, name, key=key)
        entries, rank_files = archive.listed(store)
        wanted = [entry for entry in entries if entry.name == name]
        names = archive.needed(store, entries, wanted, rank_files)
        return sorted(names, key=lambda n: (n == name, archive.step_of(n) or 0, n))

    with errors_at(str(store.path)):
        names, entry, skipped = archive.valid_at(store, step, read)
    for passed, error in skipped:
        print_passed_over(passed.name, error)
    return entry, names


def _forked(
    store: LocalStore, entry: Entry, names: list[str], new: Path, key: bytes | None
) -> dict[str, How]:
    """Fill a directory next to the new one, verify it, and rename it."""
    with os_errors(new):
        new.parent.mkdir(parents=True, exist_ok=True)
        scratch = new.parent / f".checkpointable-fork-{os.urandom(16).hex()}"
        scratch.mkdir()
    try:
        done: dict[str, How] = {
            name: duplicate(store.path / name, scratch / name) for name in names
        }
        with archive.opened(LocalStore(scratch), entry.name, key=key) as checkpoint:
            if "copied" in done.values():
                read_arrays.verify(checkpoint)
        with os_errors(new):
            sync_directory(scratch)
            scratch.rename(new)  # never replaces a directory that is not empty
            for directory in (new.parent, *new.parent.parents):
                _sync(directory)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return done


def _sync(directory: Path) -> None:
    """Make the directory durable; one that cannot be opened existed before."""
    try:
        sync_directory(directory)
    except PermissionError:
        return
