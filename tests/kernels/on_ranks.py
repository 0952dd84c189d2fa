"""The wave on 1, 2, 3 and 4 ranks of one MPI job; their fields, put together, go to files.

mpiexec -n 4 python -m mpi4py -m tests.kernels.on_ranks FOLDER
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from mpi4py import MPI

from checkpointable import Shard
from checkpointable.kernels.wave_mpi import WaveMpi, WaveMpiCheckpoint

CASES: dict[str, dict[str, Any]] = {
    "prem": {"n": 49, "period": 500.0, "duration": 600.0, "receivers": 9, "depth": 3000.0},
    "uniform": {"model": "uniform", "n": 37, "period": 600.0, "duration": 600.0, "receivers": 5},
    "least": {"n": 13, "period": 2500.0, "duration": 1500.0, "receivers": 2, "angle": 80.0},
}
SIZES = (1, 2, 3, 4)
PIECES = (5, 0, 1, 60)
"""Steps at a time. The last are not recorded."""

MOVES = ((3, 7), (2, 9), (4, 6), (1, 14))
"""A run that goes from one number of ranks to another: ranks, and how many steps they do."""

FIELDS = ("pressure", "pressure_before")


def group(size: int) -> Any:
    """The first ranks; COMM_NULL on the others."""
    world = MPI.COMM_WORLD
    return world.Create_group(world.group.Incl(list(range(size))))


def whole(comm: Any, wave: WaveMpi) -> WaveMpiCheckpoint:
    """The checkpoint of all ranks, as each of them is given it when it is restored."""
    mine = asyncio.run(wave.checkpoint())
    fields = {}
    for name in FIELDS:
        parts: list[Shard[np.float32]] = comm.allgather(getattr(mine, name))
        field = np.full(parts[0].shape, np.nan, np.float32)
        for part in parts:
            field[part.box] = part.local
        fields[name] = Shard(field, field.shape, (0, 0))
    return attrs.evolve(mine, **fields)


def part(saved: Any, wave: Any) -> Any:
    boxes = {name: getattr(wave, name) for name in FIELDS}
    return attrs.evolve(saved, **{name: attrs.evolve(box, local=getattr(saved, name)[box.box]) for name, box in boxes.items()})


def write(path: Path, rank: int, checkpoint: WaveMpiCheckpoint) -> None:
    """The seismograms of each rank, and the fields."""
    arrays = {name: getattr(checkpoint, name).local for name in FIELDS}
    np.savez(
        path.with_name(f"{path.name}-{rank}.npz"),
        allow_pickle=False,
        step=checkpoint.step,
        seismograms=checkpoint.seismograms,
        **arrays,
    )


def main(folder: Path) -> None:
    for size in SIZES:
        comm = group(size)
        for name, options in CASES.items() if comm != MPI.COMM_NULL else ():
            wave = WaveMpi(comm=comm, device="cpu", **options)
            for steps in PIECES:
                wave.advance(steps)
            write(folder / f"{name}-{size}", comm.rank, whole(comm, wave))

    saved: WaveMpiCheckpoint | None = None
    for size, steps in MOVES:
        comm = group(size)
        if comm != MPI.COMM_NULL:
            wave = WaveMpi(comm=comm, device="cpu", **CASES["prem"])
            if saved is not None:
                wave.advance(3)  # nothing of this is to stay
                asyncio.run(wave.restore(part(saved, wave)))
            wave.advance(steps)
            saved = whole(comm, wave)
        saved = MPI.COMM_WORLD.bcast(saved)
        assert saved is not None
    if MPI.COMM_WORLD.rank == 0:
        write(folder / "moved", 0, saved)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
