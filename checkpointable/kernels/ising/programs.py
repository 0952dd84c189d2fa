"""The device code of `ising`. Importing it imports Numba."""

# Numba's stubs describe what is used in kernels as classes, not as what it is there.
# pyright: reportCallIssue=false

# mypy: allow-untyped-defs, allow-untyped-calls
# Numba infers the types of what it compiles.

from typing import Any

import numpy as np
from numba import cuda, prange

from checkpointable.kernels.decorators import Jit, cpu, gpu, kernel, loop
from checkpointable.kernels.target import Program

# As uint64, since Numba makes mixed integers signed.
ELEVEN, SIXTEEN, WORD = np.uint64(11), np.uint64(16), np.uint64(64)
A, C = np.uint64(24), np.uint64(37)


def make(jit: Jit) -> Any:
    """Return the element function `update`, compiled by `jit`."""

    @jit
    def rotate(x, bits):
        return (x << bits) | (x >> (WORD - bits))

    @jit
    def draw(states, i, w):
        """Return the next 53 random bits of stream (i, w): xoroshiro128+, Blackman and Vigna."""
        s0 = states[i, w]["s0"]
        s1 = states[i, w]["s1"]
        answer = (s0 + s1) >> ELEVEN
        s1 ^= s0
        states[i, w]["s0"] = rotate(s0, A) ^ s1 ^ (s1 << SIXTEEN)
        states[i, w]["s1"] = rotate(s1, C)
        return answer

    @jit
    def update(spins, states, energy, energy_sum, thresholds, colour, measured, i, w):
        """Try to flip the spins of one colour in row i that belong to stream w."""
        n = spins.shape[0]
        above = i - 1 if i > 0 else n - 1
        below = i + 1 if i < n - 1 else 0
        for pair in range(w, n // 2, states.shape[1]):
            j = 2 * pair + (i + colour) % 2
            left = j - 1 if j > 0 else n - 1
            right = j + 1 if j < n - 1 else 0
            field = spins[above, j] + spins[below, j] + spins[i, left] + spins[i, right]
            bonds = spins[i, j] * field  # a flip changes the energy by twice this
            if draw(states, i, w) < thresholds[(bonds + 4) // 2]:
                spins[i, j] = -spins[i, j]
                energy[i, w] += 2 * bonds
        if measured:
            energy_sum[i, w] += energy[i, w]

    return update


update_cpu = make(cpu)
update_gpu = make(gpu)


@loop
def half_sweep_loop(spins, states, energy, energy_sum, thresholds, colour, measured):
    for i in prange(states.shape[0]):
        for w in range(states.shape[1]):
            update_cpu(spins, states, energy, energy_sum, thresholds, colour, measured, i, w)


@kernel
def half_sweep_kernel(spins, states, energy, energy_sum, thresholds, colour, measured):
    i, w = divmod(cuda.grid(1), states.shape[1])
    if i < states.shape[0]:
        update_gpu(spins, states, energy, energy_sum, thresholds, colour, measured, i, w)


HALF_SWEEP = Program(half_sweep_loop, half_sweep_kernel)
"""(spins, states, energy, energy_sum, thresholds, colour, measured): all spins of one colour."""
