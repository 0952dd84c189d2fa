"""`checkpointable replay`: whether the kernel, run again, gives the stored bits."""

from typing import Annotated, Any, Literal

import numpy as np
import typer

from checkpointable import archive
from checkpointable.arrays import on_host
from checkpointable.checkpointer import Checkpointer
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
from checkpointable.cli.run._output import Output
from checkpointable.cli.run.run import foreign_errors_reported, made_kernel
from checkpointable.cli.view.compare import Change, Index, digests_in, tree_changes
from checkpointable.errors import InvalidKernel, SchemaMismatch
from checkpointable.format import Opened, digests, layout, read_arrays
from checkpointable.protocol import shutdown
from checkpointable.schema import is_same, schema_from_json, schema_of
from checkpointable.stores import Store
from checkpointable.threads import complete
from checkpointable.tree import to_tree

Difference = tuple[str, Index, int]
"""An array that differs: its name, the first such element, and the number of its blocks."""


def replay(
    store: Annotated[str, typer.Argument(help="Directory of checkpoints.", metavar="STORE")],
    name: Annotated[
        str, typer.Argument(help="The kernel, as for `run`, or module:factory.", metavar="NAME")
    ],
    begin: Annotated[int, typer.Option("--from", help="Step to restore.", metavar="A")],
    end: Annotated[int, typer.Option("--to", help="Step to compare.", metavar="B")],
    options: Annotated[
        list[str] | None,
        typer.Argument(help="Of the kernel; -- --help lists them.", metavar="-- OPTIONS"),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        typer.Option(help="Where to compute, for a kernel that has the choice."),
    ] = None,
    key: KeyFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Restore a step, run to another, and compare with the checkpoint of that, bit by bit.

    Give the kernel the options that it had. Nothing is saved. Exit code 1 if anything differs, and
    the first array that does is named, with its first element.
    """
    if end < begin:
        raise usage_error(f"--to {end} is before --from {begin}")
    output = Output(as_json=as_json)
    with report_errors(as_json=as_json):
        secret, place = read_key(key), store_at(store)
        kernel = made_kernel(name, options or [], device, output)
        with foreign_errors_reported(output, "running the kernel"):
            try:
                changes, arrays = _replayed(kernel, place, begin, end, secret)
            finally:
                shutdown(kernel)
    _print(changes, arrays, begin, end, as_json=as_json)
    if changes or arrays:
        raise typer.Exit(1)


def _replayed(
    kernel: Any, store: Store, begin: int, end: int, key: bytes | None
) -> tuple[list[Change], list[Difference]]:
    checkpointer = Checkpointer(kernel, store, key=key)
    stored = _newest(store, end, key)  # fails early, since the run may be long
    complete(checkpointer.restore(begin))
    if kernel.step < end:
        kernel.advance(end - kernel.step)
    if kernel.step != end:
        what = f"it is at step {kernel.step}, but should be at {end}"
        raise InvalidKernel(what, where=f"{type(kernel).__qualname__}.advance")
    checkpoint = complete(kernel.checkpoint())
    cls = checkpointer.cls
    with archive.opened(store, stored, key=key) as opened:
        if not is_same(schema_from_json(opened.header.meta.schema), schema_of(cls)):
            what = "the stored checkpoint is of another version of the class"
            raise SchemaMismatch(what, where=stored, hint="replay with the code that wrote it")
        tree, arrays = to_tree(checkpoint, cls)
        changes = [*tree_changes(opened.header.meta.tree, tree)]
        compared = [_compared(opened, n, arrays[n]) for n in opened.header.arrays if n in arrays]
    changes += [Change(n, "stored", None) for n in opened.header.arrays if n not in arrays]
    changes += [Change(n, None, "an array") for n in arrays if n not in opened.header.arrays]
    return changes, [difference for difference in compared if difference is not None]


def _newest(store: Store, step: int, key: bytes | None) -> str:
    def read(name: str) -> str:
        archive.verify(store, name, key=key)
        return name

    return archive.valid_at(store, step, read)[0]


def _compared(opened: Opened, name: str, value: Any) -> Difference | None:
    """Compare an array with the stored one, by digests; read only the first block that differs."""
    placed, array = opened.header.arrays[name], on_host(value)
    if (array.dtype, array.shape) != (placed.dtype, placed.shape):
        return name, (), placed.blocks
    signed = opened.header.meta.signed
    made = digests.digests_of([placed], lambda _, i: layout.gather(array, i), signed=signed)
    stored = digests_in(opened, placed)
    current = np.frombuffer(made[name], np.uint8).reshape(stored.shape)
    changed = np.flatnonzero((stored != current).any(axis=1)).tolist()
    if not changed:
        return None
    first = changed[0]
    buffer = memoryview(bytearray(layout.BLOCK))
    old = np.frombuffer(read_arrays.read_block(opened, placed, first, buffer), np.uint8)
    new = np.frombuffer(layout.gather(array, first), np.uint8)
    byte = first * layout.BLOCK + int(np.flatnonzero(old != new)[0])
    place = np.unravel_index(byte // placed.dtype.itemsize, placed.shape)
    return name, tuple(int(i) for i in place), len(changed)


def _print(
    changes: list[Change], arrays: list[Difference], begin: int, end: int, *, as_json: bool
) -> None:
    if as_json:
        values = [{"path": c.path, "stored": c.old, "replayed": c.new} for c in changes]
        differing = [{"name": n, "first": i, "changed_blocks": count} for n, i, count in arrays]
        same = not (changes or arrays)
        facts = {"from": begin, "to": end, "same": same, "values": values, "arrays": differing}
        print_json({"event": "replayed", **facts})
        return
    for change in changes:
        print_text(f"{change.path}: stored {change.old}, replayed {change.new}")
    for name, index, count in arrays:
        at = f", first at [{', '.join(map(str, index))}]" if index else ""
        print_text(f"{name}: differs{at}, in {count_text(count, 'block')}")
    if not (changes or arrays):
        print_text(f"the same, bit by bit: step {begin} run to {end}")
