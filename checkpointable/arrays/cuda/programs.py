"""Numba's decorators, as the device code of this package uses them.

An element function is written once, inside `make(jit)`, and compiled twice: `make(cpu)` and
`make(gpu)`.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, cast

from attrs import frozen
from numba import cuda, njit

from checkpointable.arrays.cuda import memory

Function: TypeAlias = Callable[..., Any]
Jit: TypeAlias = Callable[[Function], Function]

_LEAST_BLOCKS = 128  # below, Numba warns; blocks without work cost next to nothing


class CudaKernel(Protocol):
    """A function compiled by `cuda.jit`: indexed by (blocks, threads, stream), then called."""

    def __getitem__(self, configuration: tuple[int, int, Any], /) -> Callable[..., None]: ...


@frozen
class Program:
    """One piece of parallel work, twice: a compiled loop and a CUDA kernel of the same arguments.

    A block has `block` threads: with fewer, a small launch uses more multiprocessors.
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
    """Compile a loop over indices that runs on all cores and releases the GIL."""
    return cast(Function, njit(parallel=True, nogil=True, cache=True)(function))


def kernel(function: Function) -> CudaKernel:
    """Compile a CUDA kernel."""
    return cast(CudaKernel, cuda.jit(cache=True)(function))


def launch(program: Program, threads: int, stream: Any, *arguments: Any) -> None:
    """Run the program with at least `threads` threads, in the order of the stream.

    In Numba's simulator the loop runs: it has one kernel at a time, which may be the user's.
    """
    if memory.SIMULATED:
        program.loop(*map(memory.unwrapped, arguments))
    else:
        blocks = max(-(-threads // program.block), _LEAST_BLOCKS)
        program.kernel[blocks, program.block, stream](*arguments)
