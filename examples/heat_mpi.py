"""Heat on a ring, a part of it on each rank of an MPI job, saved as one.

    mpiexec -n 4 python -m mpi4py examples/heat_mpi.py runs/heat

Started again it goes on where it was, on any number of ranks. It needs MPI, and mpi4py
(pip install 'checkpointable[mpi]').
"""

import sys
from typing import Any

import numpy as np
from attrs import frozen
from mpi4py import MPI

from checkpointable import MpiCoordinator, Shard, capture, every, reinstate, run


@frozen
class HeatCheckpoint:
    step: int
    temperature: Shard[np.float64]


class Heat:
    def __init__(self, comm: Any, n: int = 100_000) -> None:
        rank, size = comm.Get_rank(), comm.Get_size()
        self.comm, self.n = comm, n
        self.left, self.right = (rank - 1) % size, (rank + 1) % size
        self.first, end = n * rank // size, n * (rank + 1) // size
        self.step = 0
        self.cells = np.zeros(1 + end - self.first + 1)  # with one of each neighbour's
        self.cells[1:-1] = np.linspace(0.0, 1.0, n)[self.first : end] ** 2

    @property
    def temperature(self) -> Shard[np.float64]:
        """This rank's part: a view, into which `reinstate` copies what was saved."""
        return Shard(self.cells[1:-1], shape=(self.n,), offset=(self.first,))

    def advance(self, steps: int) -> None:
        cells, own = self.cells, self.cells[1:-1]
        for _ in range(steps):
            self.comm.Sendrecv(own[:1], self.left, 0, cells[-1:], self.right, 0)
            self.comm.Sendrecv(own[-1:], self.right, 0, cells[:1], self.left, 0)
            own += 0.25 * (cells[:-2] - 2.0 * own + cells[2:])
        self.step += steps

    async def checkpoint(self) -> HeatCheckpoint:
        return await capture(HeatCheckpoint, self)

    async def restore(self, checkpoint: HeatCheckpoint) -> None:
        # The neighbours' cells need no saving: each step begins by getting them.
        await reinstate(checkpoint, self)


def main(store: str, until: int = 20_000, n: int = 100_000) -> None:
    heat = Heat(MPI.COMM_WORLD, n)
    report = run(heat, store, until, save=every(seconds=10), coordinator=MpiCoordinator())
    if MPI.COMM_WORLD.Get_rank() == 0:
        print(f"from step {report.first_step} to {report.step}, saved {len(report.saves)} times")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
