"""The device code of `pagerank`. Importing it imports Numba."""

# Numba's stubs describe what is used in kernels as classes, not as what it is there.
# pyright: reportCallIssue=false

# mypy: allow-untyped-defs, allow-untyped-calls
# Numba infers the types of what it compiles.

from typing import Any

from numba import cuda, prange

from checkpointable.kernels.decorators import Jit, cpu, gpu, kernel, loop
from checkpointable.kernels.target import Program

FEW = 1024  # sums: one core does these before the others are awake


def make(jit: Jit) -> tuple[Any, Any, Any]:
    """Return the element functions (split, gather, add), compiled by `jit`."""

    @jit
    def split(ranks, degrees, shares, lost, i):
        """Split the rank of node i among the edges that leave it; without any, it is lost."""
        if degrees[i] > 0:
            shares[i] = ranks[i] / degrees[i]
            lost[i] = 0.0
        else:
            shares[i] = 0.0
            lost[i] = ranks[i]

    @jit
    def gather(offsets, sources, shares, lost, damping, ranks, changes, i):
        """Give node i the shares of its incoming edges, and its part of the rest."""
        n = ranks.shape[0]
        received = 0.0
        for k in range(offsets[i], offsets[i + 1]):
            received += shares[sources[k]]
        rank = damping * (received + lost[0] / n) + (1.0 - damping) / n
        changes[i] = abs(rank - ranks[i])
        ranks[i] = rank

    @jit
    def add(values, sums, k):
        """Add every n-th value from number k on, in order, where n is the number of sums."""
        total = 0.0
        for i in range(k, values.shape[0], sums.shape[0]):
            total += values[i]
        sums[k] = total

    return split, gather, add


split_cpu, gather_cpu, add_cpu = make(cpu)
split_gpu, gather_gpu, add_gpu = make(gpu)


@loop
def split_loop(ranks, degrees, shares, lost):
    for i in prange(ranks.shape[0]):
        split_cpu(ranks, degrees, shares, lost, i)


@kernel
def split_kernel(ranks, degrees, shares, lost):
    i = cuda.grid(1)
    if i < ranks.shape[0]:
        split_gpu(ranks, degrees, shares, lost, i)


@loop
def gather_loop(offsets, sources, shares, lost, damping, ranks, changes):
    for i in prange(ranks.shape[0]):
        gather_cpu(offsets, sources, shares, lost, damping, ranks, changes, i)


@kernel
def gather_kernel(offsets, sources, shares, lost, damping, ranks, changes):
    i = cuda.grid(1)
    if i < ranks.shape[0]:
        gather_gpu(offsets, sources, shares, lost, damping, ranks, changes, i)


@loop
def add_loop(values, sums):
    if sums.shape[0] < FEW:
        for k in range(sums.shape[0]):
            add_cpu(values, sums, k)
    else:
        for k in prange(sums.shape[0]):
            add_cpu(values, sums, k)


@kernel
def add_kernel(values, sums):
    k = cuda.grid(1)
    if k < sums.shape[0]:
        add_gpu(values, sums, k)


SPLIT = Program(split_loop, split_kernel)
"""(ranks, degrees, shares, lost): what each edge carries, and what nodes without edges lose."""

GATHER = Program(gather_loop, gather_kernel)
"""(offsets, sources, shares, lost, damping, ranks, changes): the next ranks; lost[0] is the sum."""

ADD = Program(add_loop, add_kernel)
"""(values, sums): sums of values[k :: len(sums)], in an order that depends on lengths alone."""
