"""What is lost when the power fails, in every state that a crash can leave: ours and the peers.

Each saves checkpoint 1, says so, saves checkpoint 2 the way its users do, and says so; strace
records the calls. Then every state that a crash after any of them can leave is built and loaded by
the peer's own loader. The model is ALICE's (tests/crash/disk.py): of what was not yet synced, any
subset is there. Two arrays of 800 bytes each. Of many pending changes a sample is drawn: `limit`
subsets at each call, fewer where loading is slow.

- checkpointable: `archive.save` to a `LocalStore`, twice, and `latest`; the same, and then `prune`.
- safetensors, h5py, numpy, torch: `save_file`, `File(..., "w")`, `savez` and `save`, to one name.
- pickle + os.replace: dumped beside it, then renamed; the same with an fsync of the file before.
- orbax: a `CheckpointManager` and two steps; `latest_step` is restored, and no other if that fails.

Lost: after a save has returned, nothing can be loaded, or only an older checkpoint. Wrong: what is
loaded without an error is neither. A share of the states is no probability: it compares orders of
calls, not how long each state lasts. What syncs everything at once has few states. A peer that is
not installed, or writes in a way that strace does not show, is left out. Needs strace.

    python -m benchmarks.crash_states --dir PATH
"""

import argparse
import logging
import os
import pickle
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from attrs import frozen
from rich.console import Console
from rich.table import Table

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks._measure import write
from checkpointable import Array, LocalStore, archive, last
from checkpointable.archive.prune import prune
from tests.crash.disk import Disk
from tests.crash.explorer import explore
from tests.crash.recorder import Call, record
from tests.crash.workloads import say

Arrays: TypeAlias = Mapping[str, Any]
Peer: TypeAlias = tuple[Callable[[Path, int], None], Callable[[Path], Arrays]]
"""How it saves a step below a directory, and how it loads the latest."""


@frozen
class State:
    position: Array[np.float64]
    velocity: Array[np.float64]


def arrays(step: int) -> dict[str, Any]:
    chance = np.random.default_rng(step)
    return {"position": chance.random(100), "velocity": chance.random(100)}


# --- the peers; each imports what it needs -------------------------------------------------------


def checkpointable() -> Peer:
    def save(root: Path, step: int) -> None:
        archive.save(LocalStore(root / "store"), State(**arrays(step)), step)

    def load(root: Path) -> Arrays:
        found = archive.latest(LocalStore(root / "store"), State)
        if found is None:
            raise FileNotFoundError
        state = found.checkpoint
        return {"position": state.position, "velocity": state.velocity}

    return save, load


def checkpointable_and_prune() -> Peer:
    plain, load = checkpointable()

    def save(root: Path, step: int) -> None:
        plain(root, step)
        prune(LocalStore(root / "store"), last(1))

    return save, load


def safetensors() -> Peer:
    from safetensors.numpy import load_file, save_file

    def save(root: Path, step: int) -> None:
        save_file(arrays(step), root / "latest.safetensors")

    return save, lambda root: load_file(root / "latest.safetensors")


def h5py() -> Peer:
    File = import_module("h5py").File

    def save(root: Path, step: int) -> None:
        with File(root / "latest.h5", "w") as file:
            for name, array in arrays(step).items():
                file[name] = array

    def load(root: Path) -> Arrays:
        with File(root / "latest.h5", "r") as file:
            return {name: array[()] for name, array in file.items()}

    return save, load


def numpy_savez() -> Peer:
    def save(root: Path, step: int) -> None:
        np.savez(root / "latest.npz", **arrays(step))

    def load(root: Path) -> Arrays:
        with np.load(root / "latest.npz") as file:
            return dict(file)

    return save, load


def torch_save() -> Peer:
    torch = import_module("torch")

    def save(root: Path, step: int) -> None:
        tensors = {name: torch.from_numpy(array) for name, array in arrays(step).items()}
        torch.save(tensors, root / "latest.pt")

    def load(root: Path) -> Arrays:
        return {name: tensor.numpy() for name, tensor in torch.load(root / "latest.pt").items()}

    return save, load


def pickle_and_replace(sync: bool) -> Peer:
    def save(root: Path, step: int) -> None:
        with (root / "latest.pickle.tmp").open("wb") as file:
            pickle.dump(arrays(step), file)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        (root / "latest.pickle.tmp").replace(root / "latest.pickle")

    def load(root: Path) -> Arrays:
        found: Arrays = pickle.loads((root / "latest.pickle").read_bytes())
        return found

    return save, load


def orbax() -> Peer:
    ocp = import_module("orbax.checkpoint")

    def manager(root: Path, **options: Any) -> Any:
        return ocp.CheckpointManager(root / "run", options=ocp.CheckpointManagerOptions(**options))

    def save(root: Path, step: int) -> None:
        with manager(root) as to:
            to.save(step, args=ocp.args.StandardSave(arrays(step)))
            to.wait_until_finished()

    def load(root: Path) -> Arrays:
        with manager(root, read_only=True) as of:
            found: Arrays = of.restore(of.latest_step(), args=ocp.args.StandardRestore())
            return found

    return save, load


PEERS: dict[str, tuple[Callable[[], Peer], int]] = {
    "checkpointable": (checkpointable, 4096),
    "checkpointable, and prune": (checkpointable_and_prune, 4096),
    "safetensors": (safetensors, 4096),
    "h5py": (h5py, 1024),
    "numpy.savez": (numpy_savez, 512),
    "torch.save": (torch_save, 2048),
    "pickle + os.replace": (lambda: pickle_and_replace(sync=False), 4096),
    "pickle + fsync + os.replace": (lambda: pickle_and_replace(sync=True), 4096),
    "orbax": (orbax, 16),
}
"""Each with how many subsets of what is pending at a call are tried."""
PACKAGES = ("checkpointable", "numpy", "safetensors", "h5py", "torch", "orbax-checkpoint", "jax")


# --- what is done with each ----------------------------------------------------------------------


def same(found: Arrays, step: int) -> bool:
    due = arrays(step)
    return found.keys() == due.keys() and all(
        np.asarray(found[name]).dtype == array.dtype and np.array_equal(found[name], array)
        for name, array in due.items()
    )


def explored(name: str, folder: Path, scratch: Path) -> dict[str, Any]:
    make, limit = PEERS[name]
    _, load = make()

    def check(root: Path, acknowledged: Sequence[Any]) -> str | None:
        due = acknowledged[-1]["saved"] if acknowledged else 0
        try:
            found = load(root)
        except Exception as error:
            return f"unreadable {type(error).__name__}" if due else None
        if not (same(found, 1) or same(found, 2)):
            return "wrong"
        return "older" if due == 2 and same(found, 1) else None

    begin = time.perf_counter()
    root = folder / "root"
    root.mkdir()
    command = [sys.executable, "-m", "benchmarks.crash_states", "--save", name, str(root)]
    calls = record(command, root, folder / "strace.log")
    if not (same(load(root), 2) and replayed(calls, root)):
        raise NotImplementedError("it writes in a way that strace does not show")
    found = explore(calls, root, {}, check, scratch, limit=limit)
    shutil.rmtree(root)
    kinds = Counter(wrong.split()[0] for wrong in found.wrong)
    return {
        "calls": len(calls),
        "limit": limit,
        "states": found.states,
        "lost": kinds["unreadable"] + kinds["older"],
        "of these older": kinds["older"],
        "wrong": kinds["wrong"],
        "lost share": round((kinds["unreadable"] + kinds["older"]) / found.states, 4),
        "seconds": round(time.perf_counter() - begin, 1),
    }


def replayed(calls: Sequence[Call], root: Path) -> bool:
    """Whether the calls, as recorded, make what is really there."""
    disk = Disk(root, 4096, 1, random.Random())
    for call in calls:
        if call.paths[0] != root / "acks":
            disk.apply(call)
    there = {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes()
        for path in root.rglob("*")
        if path.name != "acks"
    }
    return there in disk.states()


def save_both(name: str, root: Path) -> None:
    save, _ = PEERS[name][0]()
    for step in (1, 2):
        save(root, step)
        say(root, saved=step)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, help="where to write; default: for temporary files")
    parser.add_argument("--device", help="how the results call this machine")
    parser.add_argument("--only", action="append", choices=PEERS, help="and write no results")
    parser.add_argument("--save", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.environ |= {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    logging.disable()
    if given.save:
        save_both(given.save[0], Path(given.save[1]))
        return
    if shutil.which("strace") is None:
        sys.exit("needs strace: apt install strace")
    memory = Path("/dev/shm")
    fast = memory if os.access(memory, os.W_OK) else given.dir
    results: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory(dir=given.dir) as folder,
        tempfile.TemporaryDirectory(dir=fast) as scratch,
    ):
        place = Path(folder).resolve()
        for name in given.only or PEERS:
            try:
                results[name] = explored(name, place, Path(scratch))
            except (ImportError, NotImplementedError) as error:
                print(f"{name}: left out, {error}")
        show(results)
        if not given.only:
            found = {"peers": results}
            write("crash_states", given.device, place, found, packages=PACKAGES)
    if any(r["lost"] or r["wrong"] for name, r in results.items() if "checkpointable" in name):
        sys.exit("something of ours is lost")


def show(results: Mapping[str, Mapping[str, Any]]) -> None:
    columns = ("calls", "states", "lost", "of these older", "wrong", "seconds")
    table = Table(
        "", *columns, "lost share", title="States after a power cut", title_justify="left"
    )
    for name, found in results.items():
        share = f"{found['lost share']:.1%}"
        table.add_row(name, *(f"{found[column]:,}" for column in columns), share)
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)


if __name__ == "__main__":
    main()
