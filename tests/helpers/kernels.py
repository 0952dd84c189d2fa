"""Small kernels and programs that the tests run."""

import asyncio
from typing import Any

import attrs
import numpy as np

from checkpointable import Array, KernelMetadata, Saving, capture, reinstate


@attrs.frozen
class CounterCheckpoint:
    step: int
    total: Array[np.int64]


class Counter:
    """Adds 1, 2, 3, ... step by step: any step lost or done twice shows."""

    def __init__(self, size: int = 3) -> None:
        self.step = 0
        self.total = np.zeros(size, np.int64)
        self.ready = True
        self.metadata = KernelMetadata(id="counter", version="7")

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            self.step += 1
            self.total += self.step * np.arange(1, len(self.total) + 1)

    def can_checkpoint(self) -> bool:
        return self.ready

    async def checkpoint(self) -> CounterCheckpoint:
        return await capture(CounterCheckpoint, self)

    async def restore(self, checkpoint: CounterCheckpoint) -> None:
        await reinstate(checkpoint, self)


def after(steps: int, size: int = 3) -> Counter:
    kernel = Counter(size)
    kernel.advance(steps)
    return kernel


def finish(work: Any) -> Any:
    """Run a coroutine to its end, and a save that it begins."""
    result = asyncio.run(work)
    return result.result() if isinstance(result, Saving) else result
