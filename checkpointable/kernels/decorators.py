"""Numba's decorators under the names and types that the gallery uses. Importing it imports Numba.

An element function computes what happens at one index. It is written once, inside `make(jit)`, and
compiled twice: `make(cpu)` and `make(gpu)`. A `loop` and a `kernel` then run over the indices.
"""

from collections.abc import Callable
from typing import Any, cast

from numba import cuda, njit

from checkpointable.kernels.target import CudaKernel

Function = Callable[..., Any]
Jit = Callable[[Function], Function]


def cpu(function: Function) -> Function:
    """Compile an element function for the CPU."""
    return cast(Function, njit(nogil=True)(function))


def gpu(function: Function) -> Function:
    """Compile an element function for CUDA."""
    return cast(Function, cuda.jit(device=True)(function))


def loop(function: Function) -> Function:
    """Compile a loop over indices that runs on all cores, and releases the GIL."""
    return cast(Function, njit(parallel=True, nogil=True, cache=True)(function))


def serial(function: Function) -> Function:
    """Compile a loop for one core, over few indices."""
    return cast(Function, njit(nogil=True, cache=True)(function))


def kernel(function: Function) -> CudaKernel:
    """Compile a CUDA kernel."""
    return cast(CudaKernel, cuda.jit(function))
