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
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from attrs import frozen

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import _limits
from benchmarks._measure import RESULTS, Goal, Timed, measure, options, report, write
from benchmarks.peers import DCP, quiet
from benchmarks.save_restore import DIRECT, FRESH, RAW, WARM, better, clear, place, raw_writes
from checkpointable import Array, LocalStore, MpiCoordinator, Shard, archive, capture, reinstate
from checkpointable.distributed import checkpoints
from checkpointable.distributed.coordinator import Coordinator

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


def part(array: Any, rank: int, of: int, *, empty: bool = False) -> Shard[Any]:
    """A rank's rows of an array; or zeros in their place, in memory of its own."""
    rows = len(array) // of
    local = array[rank * rows : (rank + 1) * rows]
    return Shard(np.zeros_like(local) if empty else local, array.shape, (rank * rows, 0))


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


@frozen
class Job:
    """What all variants share: the state, on each rank the whole of it, and where it is saved."""

    everyone: MpiCoordinator
    savers: MpiCoordinator  # if it is one of these
    root: Path
    whole: dict[str, Any]
    torch: tuple[Callable[[], None], ...]  # saves, loads and checks; empty without torch
    rounds: int

    @property
    def first(self) -> bool:
        return self.everyone.rank == 0

    @property
    def saves(self) -> bool:
        return self.everyone.rank < SAVERS

    @property
    def size(self) -> int:
        return sum(array.nbytes for array in self.whole.values())

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.root / "two")

    def save(self) -> None:
        ranks = self.savers
        state = State(*(part(a, ranks.rank, ranks.size) for a in self.whole.values()))
        checkpoints.save(self.store, state, 1, coordinator=ranks)

    def measure(self, variants: Variants, after: Callable[[], object]) -> dict[str, list[float]]:
        """As `measure`, with all ranks at the same variant at the same time."""

        def quiet_after() -> None:
            self.everyone.barrier()
            after()
            self.everyone.barrier()

        timed = {name: together(self.everyone, work) for name, work in variants.items()}
        return measure(timed, self.rounds, after=quiet_after)


def within(given: argparse.Namespace) -> None:
    """All variants, on each rank; rank 0 reports."""
    quiet()
    everyone = MpiCoordinator()
    rank, root = everyone.rank, given.dir
    savers = MpiCoordinator(everyone.comm.Split(rank < SAVERS, rank))
    if rank == 0:
        for name in ("one", "two", "dcp"):
            place(root, name)
    everyone.barrier()
    numbers = _limits.random_floats(given.mib * _limits.BLOCK // 4).reshape(2, -1, ROW)
    whole = {"position": numbers[0], "velocity": numbers[1]}
    torch: tuple[Callable[[], None], ...] = ()
    if _torch(everyone):
        torch = dcp(whole, rank, root) if rank < SAVERS else (_nothing, _nothing, _nothing)
    job = Job(everyone, savers, root, whole, torch, given.rounds)
    found = {"save": saves(job), "restore": restores(job)}
    if job.saves:
        found["messages"] = [_messages(savers, count) for count in (500, 2700, 100_000)]
    if job.first:
        for row in found["messages"]:
            print(row)
        write("ranks", given.device, root, found, results=given.results, packages=PACKAGES)
    if torch and job.saves:
        import_module("torch.distributed").destroy_process_group()


def saves(job: Job) -> Any:
    data = [array.reshape(-1).view(np.uint8).data for array in job.whole.values()]
    only, one = Whole(**job.whole), LocalStore(job.root / "one")
    variants: Variants = dict.fromkeys((RAW, DIRECT, ONE), _nothing)
    if job.first:
        variants = raw_writes(job.root, data) | {ONE: lambda: archive.save(one, only, 1)}
    variants[TWO] = job.save if job.saves else _nothing
    if job.torch:
        variants[DCP] = job.torch[0]

    def after() -> None:
        if job.first:
            clear(job.root, job.size)

    seconds = job.measure(variants, after)
    if not job.first:
        return None
    raw, mib = better(seconds, RAW, DIRECT), job.size >> 20
    goals = [Goal(TWO, raw, 1 / 0.9), *([Goal(TWO, DCP, 1)] if job.torch else [])]
    title = f"Saving {mib} MiB, by one process and by 2 ranks"
    return report(title, seconds, goals, against=raw, mib=mib)


def restores(job: Job) -> Any:
    path = job.root / "one" / "raw"
    if job.first:
        _limits.write_raw(path, [a.reshape(-1).view(np.uint8).data for a in job.whole.values()])
    if job.saves:
        job.save()
        for save in job.torch[:1]:
            save()
    warm = np.ones(job.size if job.first else 1, np.uint8)
    restored: list[tuple[Kernel, Coordinator]] = []

    def restorer(ranks: Coordinator) -> Callable[[], object]:
        again = Kernel(*(part(a, ranks.rank, ranks.size, empty=True) for a in job.whole.values()))
        restored.append((again, ranks))
        return lambda: asyncio.run(checkpoints.restore(job.store, again, State, coordinator=ranks))

    variants: Variants = dict.fromkeys((WARM, FRESH), _nothing)
    if job.first:
        variants[WARM] = lambda: _limits.read_raw(path, warm)
        variants[FRESH] = lambda: _limits.read_raw(path, np.empty(job.size, np.uint8))
    variants[TWO] = restorer(job.savers) if job.saves else _nothing
    variants[FOUR] = restorer(job.everyone)
    if job.torch:
        variants[DCP] = job.torch[1]
    seconds = job.measure(variants, lambda: _limits.back(job.size // 2))
    for kernel, ranks in restored:
        for shard, array in zip(
            (kernel.position, kernel.velocity), job.whole.values(), strict=True
        ):
            np.testing.assert_array_equal(shard.local, part(array, ranks.rank, ranks.size).local)
    for check in job.torch[2:]:
        check()
    if not job.first:
        return None
    mib = job.size >> 20
    title = f"Restoring {mib} MiB that 2 ranks have saved, warm page cache"
    return report(title, seconds, [], against=WARM, mib=mib)


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
