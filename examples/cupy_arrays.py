"""Heat on a line, held in CuPy's arrays and computed by a Numba kernel.

    python examples/cupy_arrays.py runs/heat

It needs a GPU and CuPy (pip install cupy-cuda13x, or cupy-cuda12x).

`capture` and `reinstate` take CuPy's arrays as they are, by the `__cuda_array_interface__`; so do
Numba's kernels. Both libraries use the default stream unless told otherwise.
"""

# Numba describes what is used within kernels as classes, not as what it becomes there.
# pyright: reportCallIssue=false, reportIndexIssue=false

import sys
from typing import Any

import numpy as np
from attrs import frozen
from numba import cuda

from checkpointable import Array, InvalidKernel, capture, every, reinstate, run


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
        try:
            import cupy  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise InvalidKernel(
                f"CuPy cannot be imported: {error}",
                where="Heat",
                hint="pip install cupy-cuda13x, or cupy-cuda12x for CUDA 12",
            ) from error
        self.step = 0
        self.temperature: Any = cupy.linspace(0.0, 1.0, n) ** 2
        self.scratch: Any = self.temperature.copy()

    def advance(self, steps: int) -> None:
        blocks = -(-self.temperature.size // 128)
        for _ in range(steps):
            diffuse[blocks, 128](self.temperature, self.scratch)
            self.temperature, self.scratch = self.scratch, self.temperature
        cuda.synchronize()
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
