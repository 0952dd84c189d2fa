"""Kernels of the gallery for the soak: small, slow, and ill when asked to be.

`pace` is how many seconds each step takes at least. Where the file `poison` is there, the kernel
takes it away, and something in its state is wrong from then on, as its `health_check` then says.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from checkpointable import HealthStatus
from checkpointable.kernels.ising import Ising
from checkpointable.kernels.sketch import Sketch
from checkpointable.kernels.wave import Wave


def _slow(kernel: Any, pace: float, poison: Path) -> Any:
    advance, spoil = kernel.advance, _SPOIL[type(kernel)]

    def slowly(steps: int) -> None:
        for _ in range(steps):
            advance(1)
            time.sleep(pace)
            if pace and poison.exists():
                spoil(kernel)
                poison.unlink()

    kernel.advance = slowly
    return kernel


class HealthyIsing(Ising):
    """An `Ising` that looks at its spins."""

    def health_check(self) -> HealthStatus:
        return HealthStatus(bool(np.all(np.abs(self.spins) == 1)), "a spin is neither 1 nor -1")


class HealthySketch(Sketch):
    """A `Sketch` that counts again."""

    def health_check(self) -> HealthStatus:
        counted = int(self.histogram.sum() + self.specials.sum())
        return HealthStatus(counted == self.offset, "what is counted is not what was read")


def _put(name: str, value: float) -> Any:
    def spoil(kernel: Any) -> None:
        getattr(kernel, name).flat[0] = value

    return spoil


_SPOIL = {Wave: _put("pressure", np.nan), HealthyIsing: _put("spins", 0),
          HealthySketch: _put("histogram", -1)}  # fmt: skip


def wave(pace: float = 0.0, poison: Path = Path("poison")) -> Any:
    options: Any = {"model": "uniform", "n": 64, "period": 250.0, "duration": 20_000.0}
    return _slow(Wave(**options, receivers=4, device="cpu"), pace, poison)


def ising(pace: float = 0.0, poison: Path = Path("poison")) -> Any:
    return _slow(HealthyIsing(n=64, warmup=100, device="cpu"), pace, poison)


def sketch(path: Path, pace: float = 0.0, poison: Path = Path("poison")) -> Any:
    return _slow(HealthySketch(path, batch=100, device="cpu"), pace, poison)
