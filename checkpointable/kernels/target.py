"""Where a kernel runs, the CPU or CUDA: places its arrays, and launches its programs.

Numba is imported when a target is chosen.
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
from attrs import frozen

from checkpointable import InvalidKernel

Device = Literal["auto", "cpu", "cuda"]

THREADS = 128  # per block, at most; a multiple of the warp size that suits these register counts
SIMULATED_THREADS = 8  # per block in Numba's simulator, where idle threads take as long


class CudaKernel(Protocol):
    """What `cuda.jit` makes of a function: configured with (blocks, threads), then called."""

    def __getitem__(self, configuration: tuple[int, int], /) -> Callable[..., None]: ...


@frozen
class Program:
    """A piece of parallel work in two forms: a compiled loop, and an equivalent CUDA kernel."""

    loop: Callable[..., None]
    kernel: CudaKernel


@frozen
class Target:
    """The CPU or a CUDA device, as `choose_target` decided."""

    name: Literal["cpu", "cuda"]
    min_blocks: int = 1
    threads: int = THREADS

    def place(self, array: np.ndarray[Any, Any]) -> Any:
        """Return an array on the target with the host array's values, sharing no memory with it."""
        if self.name == "cpu":
            return np.array(array, order="C")
        from numba import cuda

        return cuda.to_device(np.ascontiguousarray(array))

    def fetch(self, array: Any) -> np.ndarray[Any, Any]:
        """Return a copy on the host of an array that `place` returned."""
        if self.name == "cpu":
            return np.array(array)
        copy: np.ndarray[Any, Any] = array.copy_to_host()
        return copy

    def overwrite(self, array: Any, values: np.ndarray[Any, Any]) -> None:
        """Copy values on the host into an array on the target, or into some rows of it."""
        if self.name == "cpu":
            array[...] = values
        else:
            array.copy_to_device(values)

    def launch(self, program: Program, threads: int, *arguments: Any) -> None:
        """Run the program with at least `threads` CUDA threads, or as a loop on the CPU."""
        if self.name == "cpu":
            program.loop(*arguments)
        else:
            blocks = max(-(-threads // self.threads), self.min_blocks)
            program.kernel[blocks, self.threads](*arguments)

    def wait(self) -> None:
        """Return when all that was launched has finished."""
        if self.name == "cuda":
            from numba import cuda

            done = cuda.event()  # not of the whole device: a save may run concurrently
            done.record()
            done.synchronize()


def choose_target(device: Device) -> Target:
    """Return the target for a kernel's `device` option.

    "auto" is CUDA if there is a real device, and the CPU otherwise. "cuda" is also Numba's
    simulator, if NUMBA_ENABLE_CUDASIM=1. Raises `InvalidKernel` if there is no such device.

    >>> choose_target("cpu").name
    'cpu'
    """
    if device == "cpu":
        return Target("cpu")
    if device not in ("auto", "cuda"):
        raise InvalidKernel(
            f"device={device!r} is not a device", where="device", hint="use auto, cpu or cuda"
        )
    from numba import config, cuda

    if config.ENABLE_CUDASIM:  # type: ignore[attr-defined]
        return Target("cuda", threads=SIMULATED_THREADS) if device == "cuda" else Target("cpu")
    if cuda.is_available():
        # Blocks without work cost next to nothing; below 128, Numba warns of a small grid.
        return Target("cuda", min_blocks=128)
    if device == "auto":
        return Target("cpu")
    raise InvalidKernel(
        "no CUDA device is available",
        where="device",
        hint='use device="auto" or "cpu", or set NUMBA_ENABLE_CUDASIM=1 to simulate one',
    )
