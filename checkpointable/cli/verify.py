"""`checkpointable verify`: check every byte of checkpoints, in memory for one block."""

from typing import Annotated

import typer

from checkpointable.cli._shared import (
    KeyFile,
    checkpoints_at,
    count_text,
    open_checkpoint,
    read_key,
    report_errors,
    say,
    say_json,
    size_text,
    whole_size,
)
from checkpointable.errors import CheckpointableError, CorruptCheckpoint, NoCheckpoint, in_one_line
from checkpointable.format import Header, read_arrays
from checkpointable.stores import Store


def verify(
    places: Annotated[
        list[str],
        typer.Argument(help="Checkpoint files, and directories of them.", metavar="FILE|STORE..."),
    ],
    key: KeyFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Check every byte of checkpoints.

    Exit code 1 if one is damaged or cannot be read.
    """
    checked = bad = 0
    with report_errors(as_json):
        secret = read_key(key)
    for place in places:
        with report_errors(as_json):
            targets = checkpoints_at(place)
        for path, store, name in targets:
            error = _check(path, store, name, secret)
            if isinstance(error, NoCheckpoint) and store is not None:
                continue  # listed a moment ago, and pruned by its run since
            checked += 1
            bad += isinstance(error, CheckpointableError)
            _tell(path, name or path, error, as_json)
        if not targets and not as_json:
            say(f"no checkpoints in {place}")
    if not as_json and checked > 1:
        say(f"{count_text(checked, 'checkpoint')}: {checked - bad} ok, {bad} not")
    if bad:
        raise typer.Exit(1)


def _check(
    path: str, store: Store | None, name: str, key: bytes | None
) -> Header | CheckpointableError:
    try:
        with open_checkpoint(path, store, name, key) as checkpoint:
            return read_arrays.verify(checkpoint)
    except CheckpointableError as error:
        return error


def _tell(path: str, name: str, found: Header | CheckpointableError, as_json: bool) -> None:
    if isinstance(found, Header):
        if as_json:
            size = whole_size(found)
            say_json({"path": path, "ok": True, "step": found.meta.step, "size": size})
        else:
            say(f"ok       {path}  step {found.meta.step}, {size_text(whole_size(found))}")
    elif as_json:
        facts = {"what": found.what, "where": found.where, "hint": found.hint}
        say_json({"path": path, "ok": False, "error": type(found).__name__, **facts})
    else:
        verdict = "damaged" if isinstance(found, CorruptCheckpoint) else "unread "
        say(f"{verdict}  {path}: {in_one_line(found, name)}")
