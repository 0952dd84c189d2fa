"""What must be found after a crash, at whatever moment it came.

I1 the latest is no older than the last acknowledged; I2 whatever is loaded is exact; I3 failures
are ours; I4 retention never takes what it says it keeps; I5 the next writer clears the leftovers
of ours, and nothing else.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from checkpointable import CheckpointableError, LocalStore, archive, load_file
from checkpointable.stores.local.file import SCRATCH
from tests.crash.workloads import BLOCK, State, state
from tests.helpers.equality import same
from tests.helpers.small_blocks import small_blocks


def owed(acknowledged: Sequence[Any]) -> dict[str, set[tuple[int, str]]]:
    """The files that must be there, each with step and writer: with two, one must be lost."""
    files: dict[str, set[tuple[int, str]]] = {}
    for ack in acknowledged:
        if "saved" in ack:
            name, step, writer = ack["saved"]
            files.setdefault(name, set()).add((step, writer))
        else:
            files = {name: files.get(name, {(_step(name), "")}) for name in ack["keeping"]}
    return files


@small_blocks(BLOCK)
def check(root: Path, acknowledged: Sequence[Any]) -> str | None:
    """Say which promise is broken; None if none is."""
    files = owed(acknowledged)
    if broken := _missed(root, files):
        return broken
    steps = [_step(ack["saved"][0]) for ack in acknowledged if "saved" in ack]
    newest = max([_step(name) for name in files] + steps, default=0)
    try:
        latest = archive.latest(LocalStore(root / "store"), State)
    except CheckpointableError as error:
        return f"I1, {error.what}" if newest else None
    if latest is None:
        return "I1, nothing is there" if newest else None
    if not same(latest.checkpoint, state(latest.entry.step, latest.checkpoint.writer)):
        return "I2, the latest is not what was saved"
    if latest.entry.step < newest:
        return f"I1, the latest is of step {latest.entry.step}"
    return None


_met = set[int]()


def _missed(root: Path, files: dict[str, set[tuple[int, str]]]) -> str | None:
    """Load each of the files; again only if a checkpoint beside them differs from another time."""
    folders = {(root / name).parent for name in files}
    beside = {str(path): path.read_bytes() for f in folders for path in f.glob("*.safetensors")}
    key = hash((str(root), str(files), frozenset(beside.items())))
    if key in _met:
        return None
    for name, saved in files.items():
        try:
            result = load_file(root / name, State)
        except CheckpointableError as error:
            return f"I4, {name} was promised: {error.what}"
        if not all(same(result, state(step, writer)) for step, writer in saved):
            return f"I2, {name} is that of step {result.step} by {result.writer!r}"
    _met.add(key)
    return None


@small_blocks(BLOCK)
def write_check(root: Path, acknowledged: Sequence[Any]) -> str | None:
    """The same after a new process has saved once more."""
    store = LocalStore(root / "store")
    before = {path.name for path in (root / "store").glob("*")}
    entry = archive.save(store, state(99, "next"), 99)
    after = {path.name for path in (root / "store").glob("*")}
    ours = {name for name in before if SCRATCH.fullmatch(name)}
    if before - ours | {entry.name, ".lock"} != after:
        return f"I5, {sorted(before ^ after)} have come or gone"
    saved = {"saved": [f"store/{entry.name}", 99, "next"]}
    return check(root, [*acknowledged, saved])


def _step(name: str) -> int:
    """The step of a file in a store; 0 for one beside it."""
    _, inside, file = name.partition("/")
    return int(file.removeprefix("step-").partition(".")[0]) if inside else 0
