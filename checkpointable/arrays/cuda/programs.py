"""Numba's decorators, as the kernels of this package use them. Importing it imports Numba.

An element function is written once, inside `make(jit)`, and made twice: `make(cpu)`, `make(gpu)`.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, cast

from attrs import frozen
from numba import cuda, njit

from checkpointable.arrays.cuda import memory

Function: TypeAlias = Callable[..., Any]
Jit: TypeAlias = Callable[[Function], Function]

_LEAST_BLOCKS = 128  # below, Numba warns; those without work cost next to nothing


class CudaKernel(Protocol):
    """What `cuda.jit` makes of a function: given (blocks, threads, stream), then called."""

    def __getitem__(self, configuration: tuple[int, int, Any], /) -> Callable[..., None]: ...


@frozen
class Program:
    """One piece of parallel work, twice: a compiled loop and a CUDA kernel, same arguments.

    `block` threads make a block: fewer are spread wider, if there are not many in all.
    """

    loop: Function
    kernel: CudaKernel
    block: int = 128


def cpu(function: Function) -> Function:
    """Compile an element function for the CPU."""
    return cast(Function, njit(nogil=True)(function))


def gpu(function: Function) -> Function:
    """Compile an element function for CUDA."""
    return cast(Function, cuda.jit(device=True)(function))


def loop(function: Function) -> Function:
    """Compile a loop over indices that runs on all cores; other Python threads run meanwhile."""
    return cast(Function, njit(parallel=True, nogil=True, cache=True)(function))


def kernel(function: Function) -> CudaKernel:
    """Compile a CUDA kernel."""
    return cast(CudaKernel, cuda.jit(function))


def launch(program: Program, threads: int, stream: Any, *arguments: Any) -> None:
    """Run the program with at least `threads` threads, after what the stream has to do before.

    In Numba's simulator, which runs one kernel at a time and so none beside the user's, the loop.
    """
    if memory.SIMULATED:
        program.loop(*map(memory.unwrapped, arguments))
    else:
        blocks = max(-(-threads // program.block), _LEAST_BLOCKS)
        program.kernel[blocks, program.block, stream](*arguments)
