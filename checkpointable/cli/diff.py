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
    print_json,
    print_text,
    read_key,
    report_errors,
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
    """Show how two checkpoints differ: files, or two steps of a directory.

    Of each array that differs: the share of its blocks and elements, the largest difference and the
    root of the mean square, the first index, and how many became NaN. Blocks whose digests are
    equal are not read. Exit code 1 if the two differ, 0 if not.
    """
    first = _first_step(place, other, step)
    with report_errors(as_json=as_json):
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
            print_json({"event": "value", **asdict(change)})
        for array in differing:
            print_json({"event": "array", **asdict(array)})
        print_json({"event": "compared", "differ": differ, "arrays": len(arrays)})
    else:
        _print_text(changes, differing, len(arrays))
    if differ:
        raise typer.Exit(1)


def _first_step(place: str, other: str, step: int | None) -> int:
    """The first of two steps; a usage error if the words do not fit together."""
    if step is None:
        for word in (place, other):
            if Path(word).is_dir():
                raise usage_error(f"{word} is a directory: give it first, and two steps of it")
        return 0
    if not other.isdecimal():
        raise usage_error(f"{other!r} is not a step; give two files, or a directory and two steps")
    return int(other)


def _compared(
    one: AbstractContextManager[Opened], two: AbstractContextManager[Opened]
) -> tuple[list[Change], list[ArrayDifference]]:
    """Changes of values, dtypes and shapes, and the differences of the other arrays.

    An error is raised when both are closed, since each would add its own name to it.
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
    """The arrays that both have, of the same dtype and shape."""
    old, new = a.header.arrays, b.header.arrays
    return [n for n, placed in old.items() if n in new and _spec(placed) == _spec(new[n])]


def _name(store: Any, place: str, step: int) -> str:
    """The newest checkpoint of a step with a valid seal."""

    def read(name: str) -> str:
        with archive.opened(store, name):
            return name

    with errors_at(place):
        return archive.valid_at(store, step, read)[0]


def _about(a: Opened, b: Opened) -> list[Change]:
    """Changes in the schema of a checkpoint."""
    old, new = a.header.meta.schema, b.header.meta.schema
    pairs = [(part, str(old.get(part)), str(new.get(part))) for part in ("name", "version")]
    return [Change(f"schema {part}", x, y) for part, x, y in pairs if x != y]


def _spec(placed: StoredArray) -> Any:
    return str(placed.dtype), placed.dtype, placed.shape


def _other_arrays(old: dict[str, StoredArray], new: dict[str, StoredArray]) -> list[Change]:
    """Arrays that one side lacks, or has with another dtype or shape."""
    names = [*old, *(name for name in new if name not in old)]
    texts = [(name, _array_text(old.get(name)), _array_text(new.get(name))) for name in names]
    return [Change(name, x, y) for name, x, y in texts if x != y]


def _array_text(placed: StoredArray | None) -> str | None:
    return None if placed is None else f"array[{placed.dtype}] {shape_text(placed)}"


def _print_text(changes: list[Change], arrays: list[ArrayDifference], compared: int) -> None:
    for change in changes:
        if change.old is None:
            print_text(f"{change.path}: added, {change.new}")
        elif change.new is None:
            print_text(f"{change.path}: removed, {change.old}")
        else:
            print_text(f"{change.path}: {change.old} -> {change.new}")
    for array in arrays:
        print_text(difference_text(array))
    equal = compared - len(arrays)
    if equal or not (changes or arrays):
        what = "no difference" if not (changes or arrays) else "the same"
        print_text(f"{count_text(equal, 'array')}: {what}" if equal else what)


def difference_text(difference: ArrayDifference) -> str:
    """How an array differs, in lines."""
    index = ", ".join(map(str, difference.first or ()))
    elements = _share(difference.changed_elements, difference.elements, "element")
    blocks = _share(difference.changed_blocks, difference.blocks, "block")
    lines = [
        f"{difference.name}: {elements} in {blocks}",
        f"  first at [{index}]" if index else "",
        f"  max {_number(difference.max)}, rms {_number(difference.rms)}"
        if difference.max is not None
        else "",
        f"  {difference.new_nans} became NaN" if difference.new_nans else "",
    ]
    return "\n".join(line for line in lines if line)


def _share(part: int, whole: int, what: str) -> str:
    return f"{part} of {count_text(whole, what)} ({part / max(whole, 1):.2%})"


def _number(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
