"""Work in threads: by a few at a time, off the event loop, or to run a coroutine."""

import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

S = TypeVar("S")
R = TypeVar("R")

THREADS = min(4, os.cpu_count() or 1)
"""How many are worth it: memory bandwidth does not grow with more."""


def parallel_map(work: Callable[[S], R], shares: Sequence[S], threads: int, name: str) -> list[R]:
    """Return the result for each share, in order; a single share needs no thread."""
    if len(shares) < 2:
        return [work(share) for share in shares]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads, f"checkpointable-{name}") as pool:
        return [*pool.map(work, shares)]


async def in_thread(work: Callable[[], R]) -> R:
    """Run `work` off the event loop; if cancelled, wait for it to finish before cancelling."""
    import asyncio

    task: asyncio.Task[Any] = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        result: R = await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
    return result


def complete(work: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine to its end, even if an event loop is already running, as in a notebook."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
