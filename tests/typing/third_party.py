"""Kernels of people who have never heard of checkpointable: nothing of it is imported here."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class WalkCheckpoint:
    step: int
    place: NDArray[np.float64]


class Walk:
    """A steppable kernel; the parameters have names of their own."""

    def __init__(self) -> None:
        self.step = 0
        self.place = np.zeros(3)

    def advance(self, how_many: int, *, fast: bool = False) -> None:
        self.step += how_many

    async def checkpoint(self) -> WalkCheckpoint:
        return WalkCheckpoint(self.step, self.place.copy())

    async def restore(self, state: WalkCheckpoint) -> None:
        self.step = state.step


class CountCheckpoint(NamedTuple):
    total: int


class Count:
    """Counts no steps; the coroutine is written without `async`."""

    total = 0

    async def checkpoint(self) -> CountCheckpoint:
        return CountCheckpoint(self.total)

    async def restore(self, checkpoint: CountCheckpoint, strict: bool = True) -> None:
        self.total = checkpoint.total


class Stepper:
    """`step` is a property, and the parameter of `advance` has a default."""

    def __init__(self) -> None:
        self._walk = Walk()

    @property
    def step(self) -> int:
        return self._walk.step

    def advance(self, steps: int = 1) -> None:
        self._walk.advance(steps)

    async def checkpoint(self) -> WalkCheckpoint:
        return await self._walk.checkpoint()

    async def restore(self, checkpoint: WalkCheckpoint) -> None:
        await self._walk.restore(checkpoint)
