"""`checkpointable ls`: list the checkpoints of a store, by default without opening any."""

import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from attrs import frozen

from checkpointable import archive
from checkpointable.archive import Entry
from checkpointable.cli._shared import (
    KeyFile,
    count_text,
    duration_text,
    print_json,
    print_text,
    read_key,
    report_errors,
    size_text,
    store_at,
)
from checkpointable.errors import CheckpointableError, CorruptCheckpoint, NoCheckpoint, in_one_line
from checkpointable.format import Header, read_arrays
from checkpointable.stores import Store


@frozen
class Inside:
    """What opening a checkpoint adds to its line: its seal, and what share of it is its own.

    `dirty` is the bytes of arrays in the file itself, by those of the whole; None if there are
    none. If it cannot be read, only `error` is set.
    """

    seal: str = ""
    dirty: float | None = None
    error: CheckpointableError | None = None


def ls(
    store: Annotated[str, typer.Argument(help="Directory of checkpoints.", metavar="STORE")],
    long: Annotated[
        bool, typer.Option("--long", help="Read headers and seals: dirty share, seal.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="As --long, and verify every byte of each.")
    ] = False,
    key: KeyFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the checkpoints of a store, oldest first.

    Opens none of them, unless --long or --check. Exit code 1 if one of those opened is damaged.
    """
    with report_errors(as_json=as_json):
        secret, place = read_key(key), store_at(store)
        entries = archive.entries(place)
        inside: dict[str, Inside] = {}
        if long or check:
            for entry in entries:
                opened = _look(place, entry, secret, every_byte=check)
                if not isinstance(opened.error, NoCheckpoint):  # its run has pruned it
                    inside[entry.name] = opened
            entries = [entry for entry in entries if entry.name in inside]
    if as_json:
        for entry in entries:
            print_json(_facts(entry) | _facts_inside(entry, inside.get(entry.name), check=check))
    elif entries:
        print_text("\n".join(_table(entries, inside, check=check)))
        total = size_text(sum(entry.size for entry in entries))
        print_text(f"{count_text(len(entries), 'checkpoint')}, {total}, in {store}")
    else:
        print_text(f"no checkpoints in {store}")
    if any(one.error for one in inside.values()):
        raise typer.Exit(1)


def kind_of(entry: Entry) -> str:
    """The kind of a checkpoint: full, delta or sharded."""
    return "sharded" if entry.sharded else "delta" if entry.delta else "full"


def dirty_share(header: Header) -> float | None:
    """The share of the arrays' bytes that the file itself holds; None if empty or sharded."""
    if header.meta.sharded:
        return None
    own = header.digests_offset - header.data_offset
    return own / header.full_size if header.full_size else None


def _look(store: Store, entry: Entry, key: bytes | None, *, every_byte: bool) -> Inside:
    try:
        with archive.opened(store, entry.name, key=key) as checkpoint:
            if every_byte:
                read_arrays.verify(checkpoint)
            return Inside(checkpoint.seal.hex(), dirty_share(checkpoint.header))
    except CheckpointableError as error:
        return Inside(error=error)


def _facts(entry: Entry) -> dict[str, Any]:
    return {
        "step": entry.step,
        "attempt": entry.attempt,
        "name": entry.name,
        "delta": entry.delta,
        "kind": kind_of(entry),
        "size": entry.size,
        "created": _time(entry).isoformat(timespec="seconds"),
    }


def _facts_inside(entry: Entry, inside: Inside | None, *, check: bool) -> dict[str, Any]:
    if inside is None:
        return {}
    if inside.error is not None:
        facts = {
            "error": type(inside.error).__name__,
            "what": in_one_line(inside.error, entry.name),
        }
        return {"seal": None, "dirty": None, "ok": False, **facts}
    return {"seal": inside.seal, "dirty": inside.dirty} | ({"ok": True} if check else {})


def _table(entries: list[Entry], inside: dict[str, Inside], *, check: bool) -> list[str]:
    """Right-aligned columns; the attempt only where some step has more than one."""
    now = time.time()
    titles = ["step", "attempt", "kind", "size", "created (UTC)", "age", "dirty", "seal", "name"]
    rows = [titles]
    for entry in entries:
        # If the clock was set back, a file may be from the future, and has no age.
        age = duration_text(now - entry.created) if entry.created <= now else "-"
        created = f"{_time(entry):%Y-%m-%d %H:%M:%S}"
        attempt = str(entry.attempt) if entry.attempt else ""
        size, one = size_text(entry.size), inside.get(entry.name, Inside())
        dirty = "-" if one.dirty is None else f"{one.dirty:.1%}"
        seal, name = f"{one.seal[:12] or '-'}", entry.name
        if one.error is not None:
            bad = "damaged" if isinstance(one.error, CorruptCheckpoint) else "unread"
            name += f"  {bad}: {in_one_line(one.error, entry.name)}"
        elif check:
            name += "  ok"
        facts = [str(entry.step), attempt, kind_of(entry), size, created, age, dirty, seal, name]
        rows.append(facts)
    unused = [] if inside else ["dirty", "seal"]
    if not any(entry.attempt for entry in entries):
        unused.append("attempt")
    kept = [i for i, title in enumerate(titles) if title not in unused]
    rows = [[row[i] for i in kept] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([cell.rjust(width) for cell, width in zip(row, widths[:-1], strict=False)])
        + f"  {row[-1]}"
        for row in rows
    ]


def _time(entry: Entry) -> datetime:
    return datetime.fromtimestamp(entry.created, UTC)
