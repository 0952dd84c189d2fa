"""Work that is done by a few threads, where the GIL is released."""

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

S = TypeVar("S")
R = TypeVar("R")

THREADS = min(4, os.cpu_count() or 1)
"""How many are worth it: memory is no faster with more."""


def by_threads(work: Callable[[S], R], shares: Sequence[S], threads: int, name: str) -> list[R]:
    """The result for each share, in order; without a thread if there is one share only."""
    if len(shares) < 2:
        return [work(share) for share in shares]
    from concurrent.futures import ThreadPoolExecutor  # here, since it takes a while

    with ThreadPoolExecutor(threads, f"checkpointable-{name}") as pool:
        return [*pool.map(work, shares)]
