"""`checkpointable ls`: the checkpoints of a store, without opening any."""

import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from checkpointable import archive
from checkpointable.archive import Entry
from checkpointable.cli._shared import (
    count_text,
    duration_text,
    errors_told,
    say,
    say_json,
    size_text,
    store_at,
)


def ls(
    store: Annotated[str, typer.Argument(help="Directory of checkpoints.", metavar="STORE")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the checkpoints of a store, oldest first."""
    with errors_told(as_json):
        entries = archive.entries(store_at(store))
    if as_json:
        for entry in entries:
            say_json(
                {
                    "step": entry.step,
                    "attempt": entry.attempt,
                    "name": entry.name,
                    "delta": entry.delta,
                    "size": entry.size,
                    "created": _time(entry).isoformat(timespec="seconds"),
                }
            )
    elif entries:
        say("\n".join(_table(entries)))
        total = size_text(sum(entry.size for entry in entries))
        say(f"{count_text(len(entries), 'checkpoint')}, {total}, in {store}")
    else:
        say(f"no checkpoints in {store}")


def _table(entries: list[Entry]) -> list[str]:
    """Right-aligned columns; the attempt only where some step has more than one."""
    now = time.time()
    rows = [["step", "attempt", "size", "created (UTC)", "age", "name"]]
    for entry in entries:
        # A clock that was set back makes files of the future, which have no age.
        age = duration_text(now - entry.created) if entry.created <= now else "-"
        created = f"{_time(entry):%Y-%m-%d %H:%M:%S}"
        attempt = str(entry.attempt) if entry.attempt else ""
        rows.append([str(entry.step), attempt, size_text(entry.size), created, age, entry.name])
    if not any(entry.attempt for entry in entries):
        rows = [[*row[:1], *row[2:]] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([cell.rjust(width) for cell, width in zip(row, widths[:-1], strict=False)])
        + f"  {row[-1]}"
        for row in rows
    ]


def _time(entry: Entry) -> datetime:
    return datetime.fromtimestamp(entry.created, UTC)
