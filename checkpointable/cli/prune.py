"""`checkpointable prune`: delete old checkpoints, and what only they need."""

from typing import Annotated

import typer

from checkpointable import archive
from checkpointable.archive import entries
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
from checkpointable.cli.run._policies import KeepOption, read_keep


def prune(
    store: Annotated[str, typer.Argument(help="Directory of checkpoints.", metavar="STORE")],
    keep: KeepOption,
    compact: Annotated[
        bool,
        typer.Option("--compact", help="Rewrite kept deltas as full checkpoints."),
    ] = False,
    key: KeyFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Delete all checkpoints except those that --keep keeps, and their parents.

    The newest that verifies always stays, and so does all that is newer.
    """
    with report_errors(as_json=as_json):
        place, secret, kept = store_at(store), read_key(key), read_keep(keep)
        before = {entry.name for entry in entries(place)}
        gone = archive.prune(place, kept, compact=compact, key=secret)
        left = entries(place)
    new = [entry for entry in left if entry.name not in before]
    for event, changed in (("stored", new), ("deleted", gone)):
        for entry in changed:
            if as_json:
                print_json({"event": event, "name": entry.name, "size": entry.size})
            else:
                print_text(f"{event:<8} {entry.name}  {size_text(entry.size)}")
    if not as_json:
        size = size_text(sum(entry.size for entry in left))
        print_text(f"{count_text(len(left), 'checkpoint')} left, {size}, in {store}")
