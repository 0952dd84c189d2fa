"""What must be found after a crash, at whatever moment it came.

I1 the latest is no older than the last acknowledged; I2 whatever is loaded is exact; I3 failures
are ours; I4 retention never takes what it says it keeps; I5 the next writer clears the leftovers
of ours, and nothing else.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from checkpointable import CheckpointableError, LocalStore, archive, load_file
from checkpointable.stores.files import SCRATCH
from tests.crash.workloads import State, state
from tests.same import same


def owed(acknowledged: Sequence[Any]) -> dict[str, tuple[int, str]]:
    """The files that must be there, with step and writer."""
    files: dict[str, tuple[int, str]] = {}
    for said in acknowledged:
        if "saved" in said:
            name, step, writer = said["saved"]
            if files.setdefault(name, (step, writer)) != (step, writer):
                files[f"{name}, twice"] = (step, writer)
        else:
            files = {name: files.get(name, (_step(name), "")) for name in said["keeping"]}
    return files


def check(root: Path, acknowledged: Sequence[Any]) -> str | None:
    """Say which promise is broken; None if none is."""
    files = owed(acknowledged)
    for name, (step, writer) in files.items():
        try:
            found = load_file(root / name, State)
        except CheckpointableError as error:
            return f"I4, {name} was promised: {error.what}"
        if not same(found, state(step, writer)):
            return f"I2, {name} is that of {found.step} by {found.writer!r}"
    store = LocalStore(root / "store")
    try:
        latest = archive.latest(store, State)
    except CheckpointableError as error:
        return f"I1, {error.what}" if any(map(_in_store, files)) else None
    if latest is None:
        return "I1, nothing is there" if any(map(_in_store, files)) else None
    if not same(latest.checkpoint, state(latest.entry.step, latest.checkpoint.writer)):
        return "I2, the latest is not what was saved"
    if latest.entry.step < max((_step(name) for name in files if _in_store(name)), default=0):
        return f"I1, the latest is of step {latest.entry.step}"
    return None


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


def _in_store(name: str) -> bool:
    return name.startswith("store/")


def _step(name: str) -> int:
    return int(name.removeprefix("store/step-").partition(".")[0])
