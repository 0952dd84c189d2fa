"""Work that is done by threads: by a few, where the GIL is released, or beside an event loop."""

import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

S = TypeVar("S")
R = TypeVar("R")

THREADS = min(4, os.cpu_count() or 1)
"""How many are worth it: memory is no faster with more."""


def parallel_map(work: Callable[[S], R], shares: Sequence[S], threads: int, name: str) -> list[R]:
    """The result for each share, in order; without a thread if there is one share only."""
    if len(shares) < 2:
        return [work(share) for share in shares]
    from concurrent.futures import ThreadPoolExecutor  # here, since it takes a while

    with ThreadPoolExecutor(threads, f"checkpointable-{name}") as pool:
        return [*pool.map(work, shares)]


async def in_thread(work: Callable[[], R]) -> R:
    """Run `work` beside the event loop; if cancelled, let it end first, and all it has begun."""
    import asyncio  # here, since it takes a quarter of the time to import the package

    task: asyncio.Task[Any] = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        result: R = await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
    return result


def complete(work: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine to its end, also where a loop is running already, as in a notebook."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
