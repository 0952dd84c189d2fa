"""A persistent kernel: one launch does many rounds, and its state is whole only between launches.

    python examples/persistent.py runs/rings

Without a GPU it runs in Numba's simulator, slowly: NUMBA_ENABLE_CUDASIM=1.

Each block keeps a ring of cells in shared memory, where nobody else can read it, for as long as a
launch lasts: each cell becomes, round by round, the mean of itself and its neighbours. While a
launch is under way the kernel says so by `can_checkpoint`, and a save waits for its end, for up to
`timeout` seconds.
"""

# Numba describes what is used within kernels as classes, not as what it becomes there.
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOptionalSubscript=false

import asyncio
import sys
from typing import Any

import numpy as np
from attrs import frozen
from numba import cuda

from checkpointable import Array, Checkpointer, capture, reinstate

CELLS = 64  # one a thread


@cuda.jit  # type: ignore[untyped-decorator]  # numba.cuda has no types
def smooth(cells: Any, rounds: Any) -> None:
    ring = cuda.shared.array(CELLS, np.float64)
    block, i = cuda.blockIdx.x, cuda.threadIdx.x
    ring[i] = cells[block, i]
    cuda.syncthreads()
    for _ in range(rounds):
        mean = (ring[i - 1 if i > 0 else CELLS - 1] + ring[i] + ring[(i + 1) % CELLS]) / 3.0
        cuda.syncthreads()  # all have read
        ring[i] = mean
        cuda.syncthreads()  # all have written: a round is done
    cells[block, i] = ring[i]


@frozen
class RingsCheckpoint:
    step: int
    cells: Array[np.float64]


class Rings:
    """One step is one round."""

    def __init__(self, n: int = 1024) -> None:
        self.step = 0
        self.cells: Any = cuda.to_device(np.sin(np.arange(n * CELLS) ** 2.0).reshape(n, CELLS))
        self._under_way = False

    def advance(self, steps: int) -> None:
        """Do so many rounds in one launch, and wait for its end."""
        self._under_way = True
        smooth[len(self.cells), CELLS](self.cells, steps)
        cuda.synchronize()
        self.step += steps
        self._under_way = False  # not if CUDA has failed: then the cells are not to be trusted

    def launch(self, rounds: int) -> "asyncio.Future[None]":
        """Begin a launch, in a thread that waits for its end."""
        self._under_way = True
        return asyncio.get_running_loop().run_in_executor(None, self.advance, rounds)

    def can_checkpoint(self) -> bool:
        return not self._under_way

    async def checkpoint(self) -> RingsCheckpoint:
        return await capture(RingsCheckpoint, self)

    async def restore(self, checkpoint: RingsCheckpoint) -> None:
        await reinstate(checkpoint, self)


async def work(store: str, until: int, rounds: int, n: int) -> None:
    rings = Rings(n)
    async with Checkpointer(rings, store, timeout=60) as checkpointer:
        restored = await checkpointer.restore_latest()
        print(f"from step {restored.step if restored else 0}")
        while rings.step < until:
            begun = rings.step
            launch = rings.launch(min(rounds, until - begun))
            save = asyncio.create_task(checkpointer.save())  # asked for while the launch goes on
            await launch
            await save  # the state is copied; the file is written beside the next launch
            print(f"asked after step {begun}, copied after step {rings.step}")


def main(store: str, until: int = 1_000_000, rounds: int = 100_000, n: int = 1024) -> None:
    asyncio.run(work(store, until, rounds, n))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
