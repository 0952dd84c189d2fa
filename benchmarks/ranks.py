"""Saves and restores of one state by several ranks, beside one process and the machine's limits.

Two float32 arrays, `--mib` in all, of which each rank has an equal part of the rows, on the disk
when the last rank is done, whose directory is synced too. All ranks are of one MPI job on this
machine; each variant begins when all have come there, and ends when all have ended. In interleaved
rounds; times are medians, ratios the medians of the rounds'.

- raw writes and `archive.save`: of the whole by one process, while the other ranks sleep.
- ours: `distributed.save` by 2 ranks; `distributed.restore` by these, and by 4.
- torch.distributed.checkpoint: DTensors on 2 ranks of gloo; its writer syncs its files, and rank 0
  syncs its directories. It is left out if torch is not installed.

Restores are into arrays that are there already, out of a warm page cache; ours verify every block.
And `messages`: what rank 0 needs to receive one more value, and to send one, in microseconds.

    python -m benchmarks.ranks --mib 1024 --rounds 5 --dir PATH
"""

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from attrs import frozen

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import _limits
from benchmarks._measure import RESULTS, Goal, Timed, measure, options, report, write
from benchmarks.durable import DIRECT, FRESH, RAW, WARM, better, clear, place, raw_writes
from benchmarks.peers import DCP, quiet
from checkpointable import (
    Array,
    LocalStore,
    MpiCoordinator,
    Shard,
    archive,
    capture,
    distributed,
    reinstate,
)
from checkpointable.coordinator import Coordinator

Variants: TypeAlias = dict[str, Callable[[], object]]

RANKS, SAVERS, ROW = 4, 2, 1024
ONE, TWO, FOUR = "checkpointable, 1 process", "checkpointable, 2 ranks", "checkpointable, 4 from 2"
PACKAGES = ("checkpointable", "numpy", "xxhash", "mpi4py", "mpich", "torch")


@frozen
class Whole:
    position: Array[np.float32]
    velocity: Array[np.float32]


@frozen
class State:
    position: Shard[np.float32]
    velocity: Shard[np.float32]


class Kernel:
    def __init__(self, position: Shard[Any], velocity: Shard[Any]) -> None:
        self.position, self.velocity = position, velocity

    async def checkpoint(self) -> State:
        return await capture(State, self)

    async def restore(self, checkpoint: State) -> None:
        await reinstate(checkpoint, self)


def part(array: Any, rank: int, of: int, *, copy: bool = False) -> Shard[Any]:
    """A rank's rows of an array."""
    rows = len(array) // of
    local = array[rank * rows : (rank + 1) * rows]
    return Shard(local.copy() if copy else local, array.shape, (rank * rows, 0))


# --- what one rank does ---------------------------------------------------------------------------


def together(ranks: Coordinator, work: Callable[[], object] | None) -> Callable[[], Timed]:
    """Time from when all ranks are there until all have done it, as rank 0 sees it."""

    def once() -> Timed:
        ranks.barrier()
        begin = time.perf_counter()
        if work is not None:
            work()
        ranks.barrier()
        return Timed(time.perf_counter() - begin)

    return once


def dcp(whole: dict[str, Any], rank: int, root: Path) -> tuple[Callable[[], None], ...]:
    """How torch saves and loads on these ranks; the last sees that it is the same."""
    torch, group = import_module("torch"), import_module("torch.distributed")
    library = import_module("torch.distributed.checkpoint")
    tensors = import_module("torch.distributed.tensor")
    there = f"file://{root}/dcp/.gloo"
    group.init_process_group("gloo", init_method=there, rank=rank, world_size=SAVERS)
    mesh = import_module("torch.distributed.device_mesh").init_device_mesh("cpu", (SAVERS,))
    folder = root / "dcp" / "saved"

    def spread(array: Any) -> Any:
        local = torch.from_numpy(array)
        return tensors.DTensor.from_local(local, mesh, [tensors.Shard(0)], run_check=False)

    own = {name: part(array, rank, SAVERS).local for name, array in whole.items()}
    state = {name: spread(array) for name, array in own.items()}
    into = {name: spread(np.zeros_like(array)) for name, array in own.items()}

    def save() -> None:
        writer = library.FileSystemWriter(folder, sync_files=True)
        library.save(state, storage_writer=writer)
        if rank == 0:
            _limits.sync_all(folder, files=False)

    def load() -> None:
        library.load(into, storage_reader=library.FileSystemReader(folder))

    def check() -> None:
        for name, array in own.items():
            np.testing.assert_array_equal(into[name].to_local().numpy(), array)

    return save, load, check


def within(given: argparse.Namespace) -> None:
    """All variants, on each rank; rank 0 reports."""
    quiet()
    everyone = MpiCoordinator()
    rank, root = everyone.rank, given.dir
    savers: Any = MpiCoordinator(everyone.comm.Split(rank < SAVERS, rank))
    numbers = _limits.random_floats(given.mib * _limits.BLOCK // 4).reshape(2, -1, ROW)
    whole = {"position": numbers[0], "velocity": numbers[1]}
    folders = {name: place(root, name) for name in ("one", "two", "dcp")} if rank == 0 else {}
    folders = everyone.broadcast(folders)
    one, two = LocalStore(folders["one"]), LocalStore(folders["two"])
    first, saves = rank == 0, rank < SAVERS

    def save_two() -> None:
        state = State(*(part(a, rank, SAVERS) for a in whole.values()))
        distributed.save(two, state, 1, coordinator=savers)

    def restorer(ranks: Coordinator) -> Callable[[], None]:
        shards = [part(array, ranks.rank, ranks.size, copy=True) for array in whole.values()]
        again = Kernel(*shards)
        for shard in shards:
            shard.local[...] = 0

        def restore() -> None:
            asyncio.run(distributed.restore(two, again, State, coordinator=ranks))

        checks.append(lambda: check(again, ranks))
        return restore

    checks: list[Callable[[], None]] = []

    def check(kernel: Kernel, ranks: Coordinator) -> None:
        for shard, array in zip((kernel.position, kernel.velocity), whole.values(), strict=True):
            np.testing.assert_array_equal(shard.local, part(array, ranks.rank, ranks.size).local)

    size = given.mib << 20
    torch = _torch(everyone) and (dcp(whole, rank, root) if saves else (None, None, None))

    # Saves.
    data, only = _limits.views({"all": numbers.reshape(-1)}), Whole(**whole)
    variants: Variants = raw_writes(root, data) if first else dict.fromkeys((RAW, DIRECT), _nothing)
    variants[ONE] = (lambda: archive.save(one, only, 1)) if first else _nothing
    variants[TWO] = save_two if saves else _nothing
    if torch:
        variants[DCP] = torch[0] or _nothing
    timed = {name: together(everyone, work) for name, work in variants.items()}

    def after() -> None:
        everyone.barrier()
        if first:
            clear(root, size)
        everyone.barrier()

    seconds = measure(timed, given.rounds, after=after)
    found: dict[str, Any] = {}
    if first:
        raw = better(seconds, RAW, DIRECT)
        goals = [Goal(TWO, raw, 1 / 0.9), *([Goal(TWO, DCP, 1)] if torch else [])]
        title = f"Saving {given.mib} MiB, by one process and by 2 ranks"
        found["save"] = report(title, seconds, goals, against=raw, mib=given.mib)

    # Restores.
    path = root / "one" / "raw"
    if first:
        _limits.write_raw(path, data)
    if saves:
        save_two()
        if torch:
            torch[0]()
    everyone.barrier()
    warm = np.ones(size if first else 1, np.uint8)
    read_fresh = partial(_limits.read_raw, path)
    variants = {
        WARM: (lambda: read_fresh(warm)) if first else _nothing,
        FRESH: (lambda: read_fresh(np.empty(size, np.uint8))) if first else _nothing,
        TWO: restorer(savers) if saves else _nothing,
        FOUR: restorer(everyone),
    }
    if torch:
        variants[DCP] = torch[1] or _nothing
    timed = {name: together(everyone, work) for name, work in variants.items()}
    seconds = measure(timed, given.rounds, after=everyone.barrier)
    for one_check in checks:
        one_check()
    if torch and saves:
        torch[2]()
    if first:
        title = f"Restoring {given.mib} MiB that 2 ranks have saved, warm page cache"
        found["restore"] = report(title, seconds, [], against=WARM, mib=given.mib)
    messages = [_messages(savers, count) for count in (500, 2700, 100_000)] if saves else []
    if first:
        found["messages"] = messages
        for row in messages:
            print(row)
        write("ranks", given.device, root, found, results=given.results, packages=PACKAGES)
    if torch and saves:
        import_module("torch.distributed").destroy_process_group()


def _nothing() -> None:
    """What ranks do that have no part in it."""


def _torch(ranks: Coordinator) -> bool:
    try:
        import_module("torch")
    except ImportError as error:
        if ranks.rank == 0:
            print(f"{DCP}: left out, {error}")
        return False
    return True


def _messages(ranks: Coordinator, size: int, count: int = 2000) -> dict[str, float]:
    """What one message of so many bytes costs rank 0, if the others do not keep it waiting."""
    value = b"x" * size
    taken: dict[str, float] = {"bytes": size}
    for name, work in (("gather_us", ranks.gather), ("broadcast_us", ranks.broadcast)):
        ranks.barrier()
        begin = time.perf_counter()
        for _ in range(count):
            work(value)
        taken[name] = round(1e6 * (time.perf_counter() - begin) / count, 1)
    return taken


# --- the job --------------------------------------------------------------------------------------


def main() -> None:
    parser = options(__doc__, rounds=5, least=3)
    parser.add_argument("--mib", type=int, default=1024, help="size of the state, default 1024")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where JSON goes")
    parser.add_argument("--dir", type=Path, help="where to write; default: for temporary files")
    parser.add_argument("--within", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.within:
        within(given)
        return
    beside = Path(sys.executable).parent / "mpiexec"
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        sys.exit("no mpiexec: pip install mpich, or load your cluster's")
    with tempfile.TemporaryDirectory(dir=given.dir) as folder:
        root = str(Path(folder).resolve())
        program = [sys.executable, "-m", "mpi4py", "-m", "benchmarks.ranks", *sys.argv[1:]]
        command = [mpiexec, "-n", str(RANKS), *program, "--within", "--dir", root]
        sys.exit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()
