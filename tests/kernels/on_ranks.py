"""The wave on 1, 2, ... ranks of one MPI job; their combined fields are written to files.

mpiexec -n 4 python -m mpi4py -m tests.kernels.on_ranks FOLDER cpu
NUMBA_ENABLE_CUDASIM=1 mpiexec -n 2 python -m mpi4py -m tests.kernels.on_ranks FOLDER cuda
"""

import asyncio
import sys
from pathlib import Path
from typing import Any, cast

import attrs
import numpy as np

from checkpointable import Shard
from checkpointable.kernels.target import Device
from checkpointable.kernels.wave.halo import Ranks
from checkpointable.kernels.wave.mpi import WaveMpi, WaveMpiCheckpoint

CASES: dict[str, dict[str, Any]] = {
    "prem": {"n": 49, "period": 500.0, "duration": 280.0, "receivers": 9, "depth": 3000.0},
    "uniform": {"model": "uniform", "n": 37, "period": 600.0, "duration": 400.0, "receivers": 5},
    "least": {"n": 13, "period": 2500.0, "duration": 350.0, "receivers": 2, "angle": 80.0},
}
PIECES: dict[Device, tuple[int, ...]] = {"cpu": (5, 0, 1, 20), "cuda": (4, 0, 2)}
"""Steps at a time. The last are not recorded; the simulator is slow."""

MOVES = ((3, 5), (2, 6), (4, 4), (1, 5))
"""A run on changing numbers of ranks: the ranks, and the steps that they do."""

COMBINED = np.array([-0.0, np.nan, 1e-45, -np.inf], np.float32)

FIELDS = ("pressure", "pressure_before")


def group(size: int) -> Any:
    """Return a communicator of the first `size` ranks; None on the others."""
    from mpi4py import MPI as mpi  # not in the test process: importing it starts MPI

    world = mpi.COMM_WORLD
    made = world.Create_group(world.group.Incl(list(range(size))))
    return None if made == mpi.COMM_NULL else made


def whole(comm: Any, wave: WaveMpi) -> WaveMpiCheckpoint:
    """Return the checkpoint of all ranks, as a restore gives it to each of them."""
    mine = asyncio.run(wave.checkpoint())
    fields: dict[str, Any] = {}
    for name in FIELDS:
        parts: list[Shard[np.float32]] = comm.allgather(getattr(mine, name))
        field = np.full(parts[0].shape, np.nan, np.float32)
        for part in parts:
            field[part.box] = part.local
        fields[name] = Shard(field, field.shape, (0, 0))
    return attrs.evolve(mine, **fields)


def write(path: Path, checkpoint: WaveMpiCheckpoint) -> None:
    arrays: dict[str, Any] = {name: getattr(checkpoint, name).local for name in FIELDS}
    np.savez(path, step=checkpoint.step, seismograms=checkpoint.seismograms, **arrays)


def any_number(folder: Path, device: Device, world: Any) -> None:
    """Run each case on each number of ranks."""
    for size in range(world.size, 0, -1):  # all ranks compile at once, so none waits for another
        comm = group(size)
        if comm is None:
            continue
        for name, options in CASES.items():
            if device == "cpu" or name == "least":
                wave = WaveMpi(comm=comm, device=device, **options)
                for steps in PIECES[device]:
                    wave.advance(steps)
                write(folder / f"{name}-{size}-{comm.rank}.npz", whole(comm, wave))


def moved(folder: Path, world: Any) -> None:
    """Run one case on changing numbers of ranks."""
    saved: WaveMpiCheckpoint | None = None
    for size, steps in MOVES:
        comm = group(size)
        if comm is not None:
            wave = WaveMpi(comm=comm, device="cpu", **CASES["prem"])
            if saved is not None:
                wave.advance(3)  # which the restore must undo
                asyncio.run(wave.restore(saved))
            wave.advance(steps)
            saved = whole(comm, wave)
        saved = world.bcast(saved)
    assert saved is not None
    write(folder / f"moved-{world.rank}.npz", saved)


def combined(folder: Path, world: Any) -> None:
    """Combine numbers of which each rank has one."""
    part = np.zeros(world.size, np.float32)
    part[world.rank] = COMBINED[world.rank]
    np.save(folder / f"combined-{world.rank}.npy", Ranks(world).combined(part))


def main(folder: Path, device: Device) -> None:
    from mpi4py import MPI as mpi

    any_number(folder, device, mpi.COMM_WORLD)
    if device == "cpu":
        combined(folder, mpi.COMM_WORLD)
        moved(folder, mpi.COMM_WORLD)


if __name__ == "__main__":
    main(Path(sys.argv[1]), cast(Device, sys.argv[2]))
