"""Numba's decorators under the names and types that the gallery uses. Importing it imports Numba.

An element function says what happens at one index. It is written once, inside `make(jit)`, and
made twice: `make(cpu)` and `make(gpu)`. A `loop` and a `kernel` then walk the indices.
"""

from collections.abc import Callable
from typing import Any, cast

from numba import cuda, njit

from checkpointable.kernels._target import CudaKernel

Function = Callable[..., Any]
Jit = Callable[[Function], Function]


def cpu(function: Function) -> Function:
    """Compile an element function for the CPU."""
    return cast(Function, njit(nogil=True)(function))


def gpu(function: Function) -> Function:
    """Compile an element function for CUDA."""
    return cast(Function, cuda.jit(device=True)(function))


def loop(function: Function) -> Function:
    """Compile a loop over indices that runs on all cores; other Python threads run meanwhile."""
    return cast(Function, njit(parallel=True, nogil=True, cache=True)(function))


def serial(function: Function) -> Function:
    """Compile a loop over so few indices that one core does it."""
    return cast(Function, njit(nogil=True, cache=True)(function))


def kernel(function: Function) -> CudaKernel:
    """Compile a CUDA kernel."""
    return cast(CudaKernel, cuda.jit(function))
