"""`checkpointable show`: what one checkpoint holds; needs neither its class nor its kernel."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from attrs import asdict
from rich.console import Console
from rich.table import Table
from rich.text import Text

from checkpointable import archive
from checkpointable.archive import Entry
from checkpointable.cli._arrays import Statistics, statistics
from checkpointable.cli._shared import (
    KeyFile,
    clean,
    count_text,
    errors_told,
    read_key,
    say,
    say_json,
    size_text,
    store_at,
    usage_error,
    why,
)
from checkpointable.cli._tree import shape_text, tree_lines
from checkpointable.errors import NoCheckpoint
from checkpointable.layout import Header
from checkpointable.reading import Opened
from checkpointable.single import opened_file
from checkpointable.store import Store

Found = tuple[Header, dict[str, Statistics]]


def show(
    place: Annotated[
        str, typer.Argument(help="Checkpoint, or directory of them.", metavar="FILE|STORE")
    ],
    step: Annotated[
        int | None, typer.Argument(help="Of a store; else the newest.", metavar="STEP")
    ] = None,
    key: KeyFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="All of it as one JSON object.")] = False,
) -> None:
    """Show a checkpoint: its origin, values and arrays.

    Of a store it is the newest that verifies, or that of STEP. Every byte is verified. Minimum,
    maximum and mean of an array leave NaN out.
    """
    path = Path(place)
    if step is not None and path.exists() and not path.is_dir():
        raise usage_error(f"{place} is a file, and STEP is for directories")
    with errors_told(as_json):
        secret = read_key(key)
        if path.exists() and not path.is_dir():
            where, note, found = place, "", _read_file(place, secret)
        else:
            entry, note, found = _find(store_at(place), place, step, secret)
            where = str(path / entry.name)
    if as_json:
        _say_json(where, *found)
    else:
        _say_text(where + note, *found, keyed=secret is not None)


def _read(checkpoint: Opened) -> Found:
    header = checkpoint.header
    return header, {a.name: statistics(checkpoint, a) for a in header.arrays.values()}


def _read_file(place: str, key: bytes | None) -> Found:
    with opened_file(place, key=key) as checkpoint:
        return _read(checkpoint)


def _find(
    store: Store, place: str, step: int | None, key: bytes | None
) -> tuple[Entry, str, Found]:
    """Read the newest checkpoint (of a step) that verifies; warn of those passed over."""

    def read(name: str) -> Found:
        with archive.opened(store, name, key=key) as checkpoint:
            return _read(checkpoint)

    newest, skipped = archive.newest_sound(store, read, step)
    entries = archive.entries(store)
    wanted = [e for e in entries if step in (None, e.step)]
    for entry, error in skipped:
        say(f"warning: passed over {entry.name}: {why(error, entry.name)}", error=True)
    if newest is not None:
        found, entry = newest
        verified = "newest that verifies" if skipped else "newest"
        return entry, f" ({verified} of {len(wanted)})" if len(wanted) > 1 else "", found
    if skipped:
        raise NoCheckpoint(
            f"of {count_text(len(wanted), 'checkpoint')}, none verifies",
            where=place,
            hint="look at each with `checkpointable verify`",
        )
    steps = f", from step {entries[0].step} to {entries[-1].step}" if entries else ""
    raise NoCheckpoint(
        "no checkpoints" if step is None else f"no checkpoint of step {step}",
        where=place,
        hint=f"it holds {count_text(len(entries), 'checkpoint')}{steps}",
    )


def _say_json(where: str, header: Header, found: dict[str, Statistics]) -> None:
    meta = header.meta
    arrays = [
        {"name": a.name, "dtype": str(a.dtype), "shape": a.shape, "bytes": a.nbytes}
        | asdict(found[a.name])
        for a in header.arrays.values()
    ]
    about = {"kernel": meta.kernel, "schema": meta.schema, "step": meta.step}
    rest = {"created": meta.created, "size": header.file_size, "signed": meta.signed}
    rest["parents"] = [parent.name for parent in header.parents]
    say_json({"path": where, **about, **rest, "tree": meta.tree, "arrays": arrays})


def _say_text(where: str, header: Header, found: dict[str, Statistics], *, keyed: bool) -> None:
    meta = header.meta
    kernel = _named(meta.kernel.get("id"), meta.kernel.get("version"))
    facts = {
        "kernel": kernel if meta.kernel else "not recorded",
        "schema": _named(meta.schema.get("name"), meta.schema.get("version")),
        "step": meta.step,
        "created": meta.created,
        "size": f"{size_text(header.file_size)}, every byte verified",
    }
    if header.parents:
        names = ", ".join(parent.name for parent in header.parents)
        facts["delta"] = f"of {size_text(header.full_size)}; the rest is in {names}"
    if meta.signed:
        facts["signed"] = "with the key given" if keyed else "yes; whether with yours, --key tells"
    say(where)
    say("\n".join(f"  {key:<8} {value}" for key, value in facts.items()))
    say("\nvalues")
    say("\n".join(tree_lines(meta.tree, header.arrays)))
    if header.arrays:
        say("\narrays")
        _say_arrays(header, found)


def _named(name: Any, version: Any) -> str:
    return f"{name}, version {version}"


def _say_arrays(header: Header, found: dict[str, Statistics]) -> None:
    """A table that folds its cells to fit a terminal, and is as wide as need be elsewhere."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("name", "dtype", "shape"):
        table.add_column(title, overflow="fold")
    for title in ("bytes", "min", "max", "mean", "NaN"):
        table.add_column(title, justify="right", no_wrap=True)
    for a in header.arrays.values():
        s = found[a.name]
        cells = [clean(a.name), str(a.dtype), shape_text(a), size_text(a.nbytes)]
        cells += [_number(x) for x in (s.min, s.max, s.mean, s.nan_count)]
        table.add_row(*map(Text, cells))
    console = Console(width=None if sys.stdout.isatty() else 10_000)
    with console.capture() as capture:
        console.print(table)
    print("\n".join("  " + line.rstrip() for line in capture.get().splitlines()), flush=True)


def _number(value: Any) -> str:
    if value is None:
        return "-"
    short = type(value) is int and abs(value) < 10**9
    return clean(str(value)) if short or isinstance(value, bool | str) else f"{value:.4g}"
