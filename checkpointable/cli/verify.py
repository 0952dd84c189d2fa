"""`checkpointable verify`: check every byte of checkpoints, in memory for one block."""

from typing import Annotated

import typer

from checkpointable.cli._shared import (
    KeyFile,
    checkpoints_at,
    count_text,
    open_checkpoint,
    print_json,
    print_text,
    read_key,
    report_errors,
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
    with report_errors(as_json=as_json):
        secret = read_key(key)
    for place in places:
        with report_errors(as_json=as_json):
            targets = checkpoints_at(place)
        for path, store, name in targets:
            error = _check(path, store, name, secret)
            if isinstance(error, NoCheckpoint) and store is not None:
                continue  # its run has pruned it since it was listed
            checked += 1
            bad += isinstance(error, CheckpointableError)
            _print(path, name or path, error, as_json=as_json)
        if not targets and not as_json:
            print_text(f"no checkpoints in {place}")
    if not as_json and checked > 1:
        print_text(f"{count_text(checked, 'checkpoint')}: {checked - bad} ok, {bad} not")
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


def _print(path: str, name: str, result: Header | CheckpointableError, *, as_json: bool) -> None:
    if isinstance(result, Header):
        if as_json:
            size = whole_size(result)
            print_json({"path": path, "ok": True, "step": result.meta.step, "size": size})
        else:
            print_text(f"ok       {path}  step {result.meta.step}, {size_text(whole_size(result))}")
    elif as_json:
        facts = {"what": result.what, "where": result.where, "hint": result.hint}
        print_json({"path": path, "ok": False, "error": type(result).__name__, **facts})
    else:
        verdict = "damaged" if isinstance(result, CorruptCheckpoint) else "unread "
        print_text(f"{verdict}  {path}: {in_one_line(result, name)}")
