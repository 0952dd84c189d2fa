"""The device code of `wave`. Importing it imports Numba."""

# Numba's stubs describe what is used in kernels as classes, not as what it is there.
# pyright: reportCallIssue=false

# mypy: allow-untyped-defs, allow-untyped-calls
# Numba infers the types of what it compiles.

from typing import Any

import numpy as np
from numba import cuda, prange

from checkpointable.kernels.decorators import Jit, cpu, gpu, kernel, loop, serial
from checkpointable.kernels.target import Program

# Fourth-order second derivative in both directions: (-1, 16, -30, 16, -1) / 12 each.
NEAR, FAR, CENTRE = np.float32(4 / 3), np.float32(1 / 12), np.float32(5)
TWO = np.float32(2)


def make(jit: Jit) -> tuple[Any, Any]:
    """Return the element functions (update, observe), compiled by `jit`."""

    @jit
    def update(pressure, before, courant2, down, across, i, j):
        """Return the pressure of cell (i, j) one step later."""
        near = pressure[i - 1, j] + pressure[i + 1, j] + pressure[i, j - 1] + pressure[i, j + 1]
        far = pressure[i - 2, j] + pressure[i + 2, j] + pressure[i, j - 2] + pressure[i, j + 2]
        laplacian = NEAR * near - FAR * far - CENTRE * pressure[i, j]
        kept = down[i] * across[j]
        return kept * (TWO * pressure[i, j] - kept * before[i, j] + courant2[i, j] * laplacian)

    @jit
    def observe(pressure, before, seismograms, receivers, source, force, step, k):
        """Record receiver k; number 0 also drives the source, through `before`, which none records.

        A receiver or source in row -1 is outside these rows.
        """
        if step < seismograms.shape[1] and receivers[k, 0] >= 0:
            seismograms[k, step] = pressure[receivers[k, 0], receivers[k, 1]]
        if k == 0 and source[0] >= 0:
            before[source[0], source[1]] -= force

    return update, observe


update_cpu, observe_cpu = make(cpu)
update_gpu, observe_gpu = make(gpu)


@loop
def update_loop(pressure, before, courant2, down, across):
    rows, columns = pressure.shape
    for i in prange(2, rows - 2):
        for j in range(2, columns - 2):
            # Unsigned indices need no test for negative ones: the inner loop vectorises.
            row, column = np.uintp(i), np.uintp(j)
            before[row, column] = update_cpu(pressure, before, courant2, down, across, row, column)


@kernel
def update_kernel(pressure, before, courant2, down, across):
    rows, columns = pressure.shape
    i, j = divmod(cuda.grid(1), columns)
    if i >= 2 and i < rows - 2 and j >= 2 and j < columns - 2:
        before[i, j] = update_gpu(pressure, before, courant2, down, across, i, j)


@serial
def observe_loop(pressure, before, seismograms, receivers, source, force, step):
    for k in range(receivers.shape[0]):
        observe_cpu(pressure, before, seismograms, receivers, source, force, step, k)


@kernel
def observe_kernel(pressure, before, seismograms, receivers, source, force, step):
    k = cuda.grid(1)
    if k < receivers.shape[0]:
        observe_gpu(pressure, before, seismograms, receivers, source, force, step, k)


UPDATE = Program(update_loop, update_kernel)
"""(pressure, before, courant2, down, across): writes the next pressure over `before`.

`down` and `across` are the sponge of these rows and of the columns. The outer two rows and columns
are left unchanged: they are the edge of the grid, or another rank computes them."""

OBSERVE = Program(observe_loop, observe_kernel)
"""(pressure, before, seismograms, receivers, source, force, step): record, then drive."""
