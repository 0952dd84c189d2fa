"""`checkpointable bisect`: the first checkpoint of a run in which something holds."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from checkpointable import archive
from checkpointable.archive import Entry
from checkpointable.cli._shared import (
    KeyFile,
    print_json,
    print_passed_over,
    print_text,
    read_key,
    report_errors,
    store_at,
)
from checkpointable.cli.view.expression import Expression, parse_expression
from checkpointable.errors import CorruptCheckpoint, NoCheckpoint
from checkpointable.format import USE_OLDER, AnyArray, Opened, read_arrays
from checkpointable.kernels import KERNELS
from checkpointable.stores import Store


def bisect(
    store: Annotated[str, typer.Argument(help="Directory of checkpoints.", metavar="STORE")],
    expression: Annotated[
        str,
        typer.Argument(help="Such as 'isnan(field)', 'max(abs(field)) > 1e3', 'energy > 3'."),
    ],
    key: KeyFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Find the first checkpoint in which an expression holds, and how to run again from there.

    By binary search: it is assumed that once it holds, it goes on to hold. Fields are named as
    `show` names them; of an array it holds if it does for any element. There are isnan, isinf, abs,
    any, all, len, and min, max, mean, sum and std, which leave NaN out. Damaged checkpoints are
    passed over. Exit code 1 if it does not hold in the newest.
    """
    asked = parse_expression(expression)
    kernel = ""

    def holds(entry: Entry) -> bool:
        nonlocal kernel
        with archive.opened(place, entry.name, key=secret) as checkpoint:
            kernel = str(checkpoint.header.meta.kernel.get("id", ""))
            held = _holds(asked, checkpoint)
        if as_json:
            print_json({"event": "tested", "step": entry.step, "name": entry.name, "holds": held})
        else:
            print_text(f"step {entry.step}: {'holds' if held else 'does not hold'}")
        return held

    with report_errors(as_json=as_json):
        secret, place = read_key(key), store_at(store)
        first, before = _first(place, store, holds, as_json=as_json)
    command = _command(store, first, before, kernel)
    if as_json:
        names = {"name": first and first.name, "before": before and before.name}
        print_json({"event": "found", "step": first and first.step, **names, "command": command})
    elif first is None:
        print_text(f"in none of the checkpoints: {expression}")
    elif before is None:
        print_text(
            f"first in step {first.step} ({first.name}), the oldest checkpoint: {expression}"
        )
    else:
        print_text(
            f"first in step {first.step} ({first.name}), and not in step {before.step} before it"
        )
        if command:
            print_text(f"to run again from there, with the options it had:\n  {command}")
    if first is None:
        raise typer.Exit(1)


def _first(
    store: Store, where: str, holds: Callable[[Entry], bool], *, as_json: bool
) -> tuple[Entry | None, Entry | None]:
    """The first entry that holds, and the one before it; the newest is tested first."""
    left = archive.entries(store)
    if not left:
        raise NoCheckpoint("no checkpoints", where=where)
    low, high = -1, len(left)  # holds in none up to low, and in all from high on
    some = False
    while high - low > 1:
        middle = (low + high) // 2 if some else high - 1
        try:
            held = holds(left[middle])
        except (CorruptCheckpoint, NoCheckpoint) as error:
            if not as_json:
                name = left[middle].name
                print_passed_over(name, error)
            del left[middle]
            high -= 1
            continue
        low, high = (low, middle) if held else (middle, high)
        if not some and not held:
            break
        some = True
    if not left:
        raise NoCheckpoint("none of the checkpoints is valid", where=where)
    if not some:
        return None, None
    return left[high], left[low] if low >= 0 else None


def _holds(asked: Expression, checkpoint: Opened) -> bool:
    def read(name: str) -> AnyArray:
        if name not in checkpoint.header.arrays:
            raise CorruptCheckpoint(f"it has no array {name!r}", hint=USE_OLDER)
        return read_arrays.read_array(checkpoint, name)

    return asked.holds(checkpoint.header.meta.tree, read)


def _command(store: str, first: Entry | None, before: Entry | None, kernel: str) -> str:
    if first is None or before is None or "://" in store:  # only directories can be forked
        return ""
    new = f"{Path(store)!s}-from-{before.step}"
    name = kernel if kernel in KERNELS else "NAME"
    run = ["run", name, "--store", new, "--until", str(first.step)]
    words = (["fork", store, str(before.step), new], run)
    return " && ".join(shlex.join(["checkpointable", *part]) for part in words)
