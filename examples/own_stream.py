"""Heat on a line, computed on a CUDA stream of its own.

    python examples/own_stream.py runs/heat

Without a GPU it runs in Numba's simulator, slowly: NUMBA_ENABLE_CUDASIM=1.

A kernel's attribute `stream` is the stream on which its arrays are written: `capture` and
`reinstate` order their copies on it, and other streams go on meanwhile.
"""

# Numba describes what is used within kernels as classes, not as what it becomes there.
# pyright: reportCallIssue=false, reportIndexIssue=false

import sys
from typing import Any

import numpy as np
from attrs import frozen
from numba import cuda

from checkpointable import Array, capture, every, reinstate, run


@cuda.jit  # type: ignore[untyped-decorator]  # numba.cuda has no types
def diffuse(old: Any, new: Any) -> None:
    i = cuda.grid(1)
    if 0 < i < old.size - 1:
        new[i] = old[i] + 0.25 * (old[i - 1] - 2.0 * old[i] + old[i + 1])


@frozen
class HeatCheckpoint:
    step: int
    temperature: Array[np.float64]


class Heat:
    def __init__(self, n: int = 100_000) -> None:
        self.step = 0
        self.stream: Any = cuda.stream()
        start = np.linspace(0.0, 1.0, n) ** 2
        self.temperature: Any = cuda.to_device(start, stream=self.stream)
        self.scratch: Any = cuda.to_device(start, stream=self.stream)
        self.stream.synchronize()  # `start` must stay until it is copied

    def advance(self, steps: int) -> None:
        blocks = -(-self.temperature.size // 128)
        for _ in range(steps):
            diffuse[blocks, 128, self.stream](self.temperature, self.scratch)
            self.temperature, self.scratch = self.scratch, self.temperature
        # For this stream alone. Without it `run` would measure launches and not steps.
        self.stream.synchronize()
        self.step += steps

    async def checkpoint(self) -> HeatCheckpoint:
        return await capture(HeatCheckpoint, self)

    async def restore(self, checkpoint: HeatCheckpoint) -> None:
        # The two ends never change, so the scratch buffer needs no saving.
        await reinstate(checkpoint, self)


def main(store: str, until: int = 20_000, n: int = 100_000) -> None:
    report = run(Heat(n), store, until, save=every(seconds=10))
    print(f"from step {report.first_step} to {report.step}, saved {len(report.saves)} times")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
