"""`checkpointable diff`: how two checkpoints differ, array by array."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer
from attrs import asdict

from checkpointable import archive
from checkpointable.cli._shared import (
    KeyFile,
    count_text,
    read_key,
    report_errors,
    say,
    say_json,
    store_at,
    usage_error,
)
from checkpointable.cli.view.compare import ArrayDifference, Change, compare_array, tree_changes
from checkpointable.cli.view.tree import shape_text
from checkpointable.errors import CheckpointableError, errors_at
from checkpointable.files import opened_file
from checkpointable.format import Opened, StoredArray


def diff(
    place: Annotated[
        str, typer.Argument(help="A checkpoint, or a directory of them.", metavar="FILE|STORE")
    ],
    other: Annotated[str, typer.Argument(help="Another, or a step.", metavar="FILE|STEP")],
    step: Annotated[
        int | None, typer.Argument(help="Of a store, the second step.", metavar="STEP")
    ] = None,
    key: KeyFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Say how two checkpoints differ: files, or two steps of a directory.

    Of each array that differs: the share of its blocks and elements, the largest difference and the
    root of the mean square, the first index, and how many became NaN. Blocks whose digests are
    equal are not read. Exit code 1 if the two differ, 0 if not.
    """
    first = _first_step(place, other, step)
    with report_errors(as_json):
        secret = read_key(key)
        if step is None:
            opens = [opened_file(name, key=secret) for name in (place, other)]
        else:
            store = store_at(place)
            names = [_name(store, place, number) for number in (first, step)]
            opens = [archive.opened(store, name, key=secret) for name in names]
        changes, arrays = _compared(*opens)
    differing = [array for array in arrays if array.changed_elements]
    differ = bool(changes or differing)
    if as_json:
        for change in changes:
            say_json({"event": "value", **asdict(change)})
        for array in differing:
            say_json({"event": "array", **asdict(array)})
        say_json({"event": "compared", "differ": differ, "arrays": len(arrays)})
    else:
        _say_text(changes, differing, len(arrays))
    if differ:
        raise typer.Exit(1)


def _first_step(place: str, other: str, step: int | None) -> int:
    """The first of two steps; a usage error if the words do not go together."""
    if step is None:
        for word in (place, other):
            if Path(word).is_dir():
                raise usage_error(f"{word} is a directory: give it first, and two steps of it")
        return 0
    if not other.isdecimal():
        raise usage_error(f"{other!r} is no step; give two files, or a directory and two steps")
    return int(other)


def _compared(
    one: AbstractContextManager[Opened], two: AbstractContextManager[Opened]
) -> tuple[list[Change], list[ArrayDifference]]:
    """Changes of values and of the arrays' kinds, and the arrays of one kind compared.

    What goes wrong is raised once both are closed: each would say that it is about itself.
    """
    failed: CheckpointableError | None = None
    changes: list[Change] = []
    arrays: list[ArrayDifference] = []
    with one as a:
        try:
            with two as b:
                try:
                    changes += _about(a, b)
                    changes += tree_changes(a.header.meta.tree, b.header.meta.tree)
                    changes += _other_arrays(a.header.arrays, b.header.arrays)
                    arrays += [compare_array(a, b, name) for name in _common(a, b)]
                except CheckpointableError as error:
                    failed = error
        except CheckpointableError as error:
            failed = error
    if failed is not None:
        raise failed
    return changes, arrays


def _common(a: Opened, b: Opened) -> list[str]:
    """The arrays that both have, of one dtype and shape."""
    old, new = a.header.arrays, b.header.arrays
    return [n for n, placed in old.items() if n in new and _spec(placed) == _spec(new[n])]


def _name(store: Any, place: str, step: int) -> str:
    """The newest checkpoint of a step whose seal is sound."""

    def read(name: str) -> str:
        with archive.opened(store, name):
            return name

    with errors_at(place):
        return archive.valid_at(store, step, read)[0]


def _about(a: Opened, b: Opened) -> list[Change]:
    """Changes in what a checkpoint says of its class."""
    old, new = a.header.meta.schema, b.header.meta.schema
    pairs = [(part, str(old.get(part)), str(new.get(part))) for part in ("name", "version")]
    return [Change(f"schema {part}", x, y) for part, x, y in pairs if x != y]


def _spec(placed: StoredArray) -> Any:
    return str(placed.dtype), placed.dtype, placed.shape


def _other_arrays(old: dict[str, StoredArray], new: dict[str, StoredArray]) -> list[Change]:
    """Arrays that one side lacks, or that are of another dtype or shape there."""
    names = [*old, *(name for name in new if name not in old)]
    said = [(name, _said(old.get(name)), _said(new.get(name))) for name in names]
    return [Change(name, x, y) for name, x, y in said if x != y]


def _said(placed: StoredArray | None) -> str | None:
    return None if placed is None else f"array[{placed.dtype}] {shape_text(placed)}"


def _say_text(changes: list[Change], arrays: list[ArrayDifference], compared: int) -> None:
    for change in changes:
        if change.old is None:
            say(f"{change.path}: added, {change.new}")
        elif change.new is None:
            say(f"{change.path}: removed, {change.old}")
        else:
            say(f"{change.path}: {change.old} -> {change.new}")
    for array in arrays:
        say(difference_text(array))
    equal = compared - len(arrays)
    if equal or not (changes or arrays):
        what = "no difference" if not (changes or arrays) else "the same"
        say(f"{count_text(equal, 'array')}: {what}" if equal else what)


def difference_text(found: ArrayDifference) -> str:
    """Say in lines how an array differs."""
    index = ", ".join(map(str, found.first or ()))
    lines = [
        f"{found.name}: {_share(found.changed_elements, found.elements, 'element')} in "
        f"{_share(found.changed_blocks, found.blocks, 'block')}",
        f"  first at [{index}]" if index else "",
        f"  max {_number(found.max)}, rms {_number(found.rms)}" if found.max is not None else "",
        f"  {found.new_nans} became NaN" if found.new_nans else "",
    ]
    return "\n".join(line for line in lines if line)


def _share(part: int, whole: int, what: str) -> str:
    return f"{part} of {count_text(whole, what)} ({part / max(whole, 1):.2%})"


def _number(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
