"""`checkpointable show`: what one checkpoint holds, without its class or its kernel."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from attrs import asdict, frozen
from rich.console import Console
from rich.table import Table
from rich.text import Text

from checkpointable import archive
from checkpointable.archive import Entry
from checkpointable.cli._shared import (
    KeyFile,
    clean,
    count_text,
    path_in,
    print_json,
    print_passed_over,
    print_text,
    read_key,
    report_errors,
    size_text,
    store_at,
    usage_error,
    whole_size,
)
from checkpointable.cli.view.pictures import Picture, cells_for, pictures, sketched
from checkpointable.cli.view.plot import CELLS, check_plot
from checkpointable.cli.view.plot import plot as draw
from checkpointable.cli.view.statistics import Statistics, statistics
from checkpointable.cli.view.tree import shape_text, tree_lines
from checkpointable.errors import NoCheckpoint, errors_at
from checkpointable.files import opened_file
from checkpointable.format import Header, Opened, is_remote
from checkpointable.stores import Store

Panels = list[tuple[str, Picture]]


@frozen(eq=False)
class Content:
    """A checkpoint as it was read: the figures of its arrays, and the requested pictures.

    Of one that is far away `whole` is False, and there are figures only of what was asked for.
    """

    header: Header
    whole: bool
    figures: dict[str, Statistics]
    sketches: Panels
    panels: Panels


@frozen
class _Asked:
    """What to read of a checkpoint: one array or all; the width of sketches; whether to plot."""

    array: str = ""
    columns: int = 0
    plot: bool = False


def show(
    place: Annotated[
        str, typer.Argument(help="Checkpoint, or directory of them.", metavar="FILE|STORE")
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="A step of a store (default: the newest), and one array.", metavar="STEP ARRAY"
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Draw the arrays into this file, which is replaced."),
    ] = None,
    picture: Annotated[
        bool | None,
        typer.Option(help="Draw an ARRAY as text. [default: on a terminal]", show_default=False),
    ] = None,
    key: KeyFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="All of it as one JSON object.")] = False,
) -> None:
    """Show a checkpoint: its origin, values and arrays; or one of its arrays alone.

    Of a store it is the newest that verifies, or that of STEP. Every byte shown is verified. Of an
    object store only the header is read, but for an ARRAY that is named.
    Minimum, maximum and mean of an array leave NaN out.
    """
    path = Path(place)
    is_file = path.exists() and not path.is_dir()
    step, array = _step_and_array(place, words or [], is_file=is_file)
    drawn = bool(array) and not as_json and (sys.stdout.isatty() if picture is None else picture)
    columns = min(shutil.get_terminal_size().columns - 4, 72) if drawn else 0
    asked = _Asked(array, max(columns, 1) if drawn else 0, plot is not None)
    with report_errors(as_json=as_json):
        if plot is not None:
            check_plot(plot)
        secret = read_key(key)
        if is_file:
            where, note, content = place, "", _read_file(place, secret, asked)
            name = path.name
        else:
            entry, note, content = _find(store_at(place), place, step, secret, asked)
            where, name = path_in(place, entry.name), entry.name
        if plot is not None:
            draw(plot, f"{name}, step {content.header.meta.step}", content.panels)
    if as_json:
        _print_json(where, content, array)
    elif array:
        _print_array(where + note, content)
    else:
        _print_text(where + note, content, keyed=secret is not None)
    if plot is not None and not as_json:
        print_text(f"drawn in {plot}")


def _step_and_array(place: str, words: list[str], *, is_file: bool) -> tuple[int | None, str]:
    """Split the words into a step, if the first is a number, and the name of an array."""
    step = int(words[0]) if words and words[0].isdecimal() else None
    if step is not None and is_file:
        raise usage_error(f"{place} is a file, but STEP is for directories")
    left = words if step is None else words[1:]
    if len(left) > 1:
        raise usage_error(f"unexpected argument {left[1]!r}: give at most a step and an array")
    return step, left[0] if left else ""


def _read(checkpoint: Opened, asked: _Asked) -> Content:
    header = checkpoint.header
    if asked.array and asked.array not in header.arrays:
        names = ", ".join(header.arrays) or "none"
        raise usage_error(f"there is no array {asked.array!r}; there are: {names[:500]}")
    arrays = [a for a in header.arrays.values() if asked.array in ("", a.name)]
    sketches: Panels = []
    panels: Panels = []
    for a in arrays:
        if asked.columns:
            cells = cells_for(a.shape, asked.columns)
            sketches += [(a.name, one) for one in pictures(checkpoint, a, *cells)]
        if asked.plot:
            drawn = pictures(checkpoint, a, CELLS, CELLS, every_axis=True)
            panels += [(a.name, one) for one in drawn]
    whole = bool(asked.array) or asked.plot or not is_remote(checkpoint)
    figures = {a.name: statistics(checkpoint, a) if whole else Statistics() for a in arrays}
    return Content(header, whole, figures, sketches, panels)


def _read_file(place: str, key: bytes | None, asked: _Asked) -> Content:
    with opened_file(place, key=key) as checkpoint:
        return _read(checkpoint, asked)


def _find(
    store: Store, place: str, step: int | None, key: bytes | None, asked: _Asked
) -> tuple[Entry, str, Content]:
    """Read the newest valid checkpoint (of a step); warn of those passed over."""

    def read(name: str) -> Content:
        with archive.opened(store, name, key=key) as checkpoint:
            return _read(checkpoint, asked)

    with errors_at(place):
        content, entry, skipped = (
            _newest(store, read) if step is None else archive.valid_at(store, step, read)
        )
    for passed, error in skipped:
        print_passed_over(passed.name, error)
    count = sum(step in (None, entry.step) for entry in archive.entries(store))
    verified = "newest that verifies" if skipped else "newest"
    return entry, f" ({verified} of {count})" if count > 1 else "", content


def _newest(store: Store, read: Callable[[str], Content]) -> tuple[Content, Entry, archive.Skipped]:
    newest, skipped = archive.newest_valid(store, read)
    if newest is not None:
        return *newest, skipped
    if skipped:
        raise archive.none_is_valid(skipped)
    raise NoCheckpoint("no checkpoints", hint="give the store that the run saves into")


def _print_json(where: str, content: Content, array: str) -> None:
    header = content.header
    meta = header.meta
    arrays = [
        {"name": a.name, "dtype": str(a.dtype), "shape": a.shape, "bytes": a.nbytes}
        | asdict(content.figures[a.name])
        for a in header.arrays.values()
        if a.name in content.figures
    ]
    if array:
        print_json({"path": where, "step": meta.step, **arrays[0]})
        return
    about = {"kernel": meta.kernel, "schema": meta.schema, "step": meta.step}
    rest = {"created": meta.created, "size": whole_size(header), "signed": meta.signed}
    rest["parents"] = [parent.name for parent in header.parents]
    print_json({"path": where, **about, **rest, "tree": meta.tree, "arrays": arrays})


def _print_array(where: str, content: Content) -> None:
    """Print one array: its line of the table, and sketches if there are any."""
    print_text(f"{where}, step {content.header.meta.step}")
    _print_arrays(content)
    for name, picture in content.sketches:
        print_text(f"\n{name}{picture.part}\n{sketched(picture)}")


def _print_text(where: str, content: Content, *, keyed: bool) -> None:
    header = content.header
    meta = header.meta
    kernel = _named(meta.kernel.get("id"), meta.kernel.get("version"))
    facts = {
        "kernel": kernel if meta.kernel else "not recorded",
        "schema": _named(meta.schema.get("name"), meta.schema.get("version")),
        "step": meta.step,
        "created": meta.created,
        "size": f"{size_text(whole_size(header))}, "
        + (
            "every byte verified"
            if content.whole
            else "of which the header was read: name an ARRAY"
        ),
    }
    if meta.sharded:
        ranks = {part.source for array in header.arrays.values() for part in array.parts}
        facts["shards"] = f"in the files of {count_text(len(ranks), 'rank')}"
    elif header.parents:
        names = ", ".join(parent.name for parent in header.parents)
        facts["delta"] = f"of {size_text(header.full_size)}; the rest is in {names}"
    if meta.signed:
        facts["signed"] = "with the key given" if keyed else "yes; check with --key"
    print_text(where)
    print_text("\n".join(f"  {key:<8} {value}" for key, value in facts.items()))
    print_text("\nvalues")
    print_text("\n".join(tree_lines(meta.tree, header.arrays)))
    if header.arrays:
        print_text("\narrays")
        _print_arrays(content)


def _named(name: Any, version: Any) -> str:
    return f"{name}, version {version}"


def _print_arrays(content: Content) -> None:
    """Print a table that folds its cells to fit a terminal, and is as wide as needed elsewhere."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("name", "dtype", "shape"):
        table.add_column(title, overflow="fold")
    for title in ("bytes", "min", "max", "mean", "NaN"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, s in content.figures.items():
        a = content.header.arrays[name]
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
