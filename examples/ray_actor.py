"""Heat on a line in a Ray actor, which Ray starts again when it dies, and which goes on.

    python examples/ray_actor.py runs/heat

It needs Ray (pip install ray), and a store that all machines share, if there are many.

Ray makes a dead actor anew by its `__init__`, so that is what restores it. `advance_to` says where
to come, not how far to go: Ray calls it again if the actor died within, or before it could answer.
"""

import asyncio
import sys
from typing import Any

import numpy as np
from attrs import frozen

from checkpointable import Array, Checkpointer, capture, reinstate


@frozen
class HeatCheckpoint:
    step: int
    temperature: Array[np.float64]


class Heat:
    def __init__(self, n: int = 100_000) -> None:
        self.step = 0
        self.temperature = np.linspace(0.0, 1.0, n) ** 2

    def advance(self, steps: int) -> None:
        t = self.temperature
        for _ in range(steps):
            t[1:-1] += 0.25 * (t[:-2] - 2.0 * t[1:-1] + t[2:])
        self.step += steps

    async def checkpoint(self) -> HeatCheckpoint:
        return await capture(HeatCheckpoint, self)

    async def restore(self, checkpoint: HeatCheckpoint) -> None:
        await reinstate(checkpoint, self)


class HeatActor:
    def __init__(self, store: str, n: int = 100_000) -> None:
        self.heat = Heat(n)
        self.checkpointer = Checkpointer(self.heat, store)
        restored = asyncio.run(self.checkpointer.restore_latest())
        self.first_step = restored.step if restored else 0

    def advance_to(self, until: int, save_every: int) -> int:
        """Come to step `until`, saved on the way; return the step from which it went on."""

        async def work() -> None:
            while self.heat.step < until:
                self.heat.advance(min(save_every, until - self.heat.step))
                await self.checkpointer.save()  # copied; it is written while the next steps go on
            await self.checkpointer.close()  # durable

        asyncio.run(work())
        return self.first_step


def main(store: str, until: int = 20_000, save_every: int = 1000, n: int = 100_000) -> None:
    import ray  # pyright: ignore[reportMissingImports]

    # For ever: a run ends by an error of its own, not because machines have failed often.
    remote: Any = ray.remote(max_restarts=-1, max_task_retries=-1)
    actor = remote(HeatActor).remote(store, n)
    first_step = ray.get(actor.advance_to.remote(until, save_every))
    print(f"from step {first_step} to {until}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
