"""The device code of `nbody`. Importing it imports Numba."""

# Numba's stubs describe what is used in kernels as classes, not as what it is there.
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOptionalSubscript=false, reportOperatorIssue=false

# mypy: allow-untyped-defs, allow-untyped-calls
# Numba infers the types of what it compiles.

import math
from typing import Any

import numpy as np
from numba import cuda, prange

from checkpointable.kernels.decorators import Jit, cpu, gpu, kernel, loop
from checkpointable.kernels.target import THREADS, Program


def make(jit: Jit) -> tuple[Any, Any, Any]:
    """Return the element functions (pull, kick, drift), compiled by `jit`."""

    @jit
    def pull(x, y, z, other_x, other_y, other_z, softening2):
        """Return acceleration and potential at (x, y, z) by a body of mass 1 elsewhere."""
        dx = other_x - x
        dy = other_y - y
        dz = other_z - z
        distance2 = dx * dx + dy * dy + dz * dz + softening2
        if distance2 == 0.0:  # where division would raise, on the CPU
            return math.nan, math.nan, math.nan, math.nan
        inverse = 1.0 / math.sqrt(distance2)
        inverse3 = inverse * inverse * inverse
        return dx * inverse3, dy * inverse3, dz * inverse3, -inverse

    @jit
    def kick(velocities, field, time, i):
        """Change the velocity of body i by the field, for this time."""
        for k in range(3):
            velocities[i, k] += time * field[i, k]

    @jit
    def drift(positions, velocities, time, i):
        """Move body i at its velocity, for this time."""
        for k in range(3):
            positions[i, k] += time * velocities[i, k]

    return pull, kick, drift


pull_cpu, kick_cpu, drift_cpu = make(cpu)
pull_gpu, kick_gpu, drift_gpu = make(gpu)


@loop
def pull_loop(positions, mass, softening2, field):
    n = positions.shape[0]
    for i in prange(n):
        x, y, z = positions[i, 0], positions[i, 1], positions[i, 2]
        ax, ay, az, potential = 0.0, 0.0, 0.0, 0.0
        for j in range(n):
            if j != i:
                dx, dy, dz, p = pull_cpu(
                    x, y, z, positions[j, 0], positions[j, 1], positions[j, 2], softening2
                )
                ax += dx
                ay += dy
                az += dz
                potential += p
        field[i, 0] = mass * ax
        field[i, 1] = mass * ay
        field[i, 2] = mass * az
        field[i, 3] = mass * potential


@kernel
def pull_kernel(positions, mass, softening2, field):
    # The bodies are read in tiles: each thread of the block fetches one body, and adds up all of
    # them in order, as the loop does. Nyland, Harris and Prins (2007), GPU Gems 3, ch. 31.
    tile = cuda.shared.array((THREADS, 3), np.float64)
    n = positions.shape[0]
    thread, width = cuda.threadIdx.x, cuda.blockDim.x
    if cuda.blockIdx.x * width >= n:  # the whole block, so that no thread waits at a barrier
        return
    i = cuda.grid(1)
    body = min(i, n - 1)  # threads beyond the last body help to fetch
    x, y, z = positions[body, 0], positions[body, 1], positions[body, 2]
    ax, ay, az, potential = 0.0, 0.0, 0.0, 0.0
    for start in range(0, n, width):
        if start + thread < n:
            for k in range(3):
                tile[thread, k] = positions[start + thread, k]
        cuda.syncthreads()
        for j in range(min(width, n - start)):
            if start + j != i:
                dx, dy, dz, p = pull_gpu(x, y, z, tile[j, 0], tile[j, 1], tile[j, 2], softening2)
                ax += dx
                ay += dy
                az += dz
                potential += p
        cuda.syncthreads()
    if i < n:
        field[i, 0] = mass * ax
        field[i, 1] = mass * ay
        field[i, 2] = mass * az
        field[i, 3] = mass * potential


@loop
def kick_loop(velocities, field, time):
    for i in prange(velocities.shape[0]):
        kick_cpu(velocities, field, time, i)


@kernel
def kick_kernel(velocities, field, time):
    i = cuda.grid(1)
    if i < velocities.shape[0]:
        kick_gpu(velocities, field, time, i)


@loop
def drift_loop(positions, velocities, time):
    for i in prange(positions.shape[0]):
        drift_cpu(positions, velocities, time, i)


@kernel
def drift_kernel(positions, velocities, time):
    i = cuda.grid(1)
    if i < positions.shape[0]:
        drift_gpu(positions, velocities, time, i)


PULL = Program(pull_loop, pull_kernel)
"""(positions, mass, softening2, field): acceleration and potential at each body, by the others."""

KICK = Program(kick_loop, kick_kernel)
"""(velocities, field, time): the velocities after this time, in this field."""

DRIFT = Program(drift_loop, drift_kernel)
"""(positions, velocities, time): the positions after this time, at these velocities."""
