"""`checkpointable report`: a run and its checkpoints on one self-contained page."""

import os
from pathlib import Path
from typing import Annotated

import typer

from checkpointable.cli._shared import (
    KeyFile,
    count_text,
    print_json,
    print_text,
    read_key,
    report_errors,
    size_text,
    store_at,
)
from checkpointable.cli.report._data import read_events, read_files, read_frames
from checkpointable.cli.report._page import page
from checkpointable.errors import NoCheckpoint
from checkpointable.stores import os_errors


def report(
    store: Annotated[str, typer.Argument(help="Directory of checkpoints.", metavar="STORE")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="HTML", help="The file to write, which is replaced."
        ),
    ],
    array: Annotated[
        str, typer.Option(metavar="NAME", help="Whose frames to show. [default: the largest]")
    ] = "",
    key: KeyFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Write a page about a run: its saves, stalls, restarts, files, and an array over time.

    It is one file that loads nothing. Headers and seals of all checkpoints are read, and the data
    of the array that is shown, verified.
    """
    with report_errors(as_json=as_json):
        secret, place = read_key(key), store_at(store)
        files, happened = read_files(place, secret), read_events(Path(store))
        if not files and not happened:
            hint = "give the directory that a run saves into"
            raise NoCheckpoint("no checkpoints, and no events", where=store, hint=hint)
        name, frames = read_frames(place, files, array, secret)
        text = page(store, files, happened, name, frames).encode("utf-8", "backslashreplace")
        with os_errors(output):
            _replace(output, text)
    if as_json:
        facts = {"checkpoints": len(files), "events": len(happened), "frames": len(frames)}
        print_json({"event": "written", "path": str(output), "bytes": len(text), **facts})
    else:
        counts = f"{count_text(len(files), 'checkpoint')}, {count_text(len(happened), 'event')}"
        print_text(f"{output}: {counts}, {size_text(len(text))}")


def _replace(path: Path, text: bytes) -> None:
    """Replace a file as a whole, so that a reader never sees a part."""
    scratch = path.with_name(f".{os.urandom(8).hex()}.html")
    try:
        scratch.write_bytes(text)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
