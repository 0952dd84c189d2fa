"""Jobs of many ranks within this process: a thread each, which tell each other by queues."""

import pickle
import queue
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from attrs import define, field

from checkpointable.distributed.coordinator import Coordinator

T = TypeVar("T")
_PATIENCE = 60.0  # seconds; only a test that fails waits so long


@define(eq=False)
class _Team:
    """The queues between ranks, and the teams of their twins, by how manieth they are."""

    size: int
    queues: dict[tuple[int, int], "queue.Queue[bytes]"] = field(
        factory=lambda: defaultdict(queue.Queue)
    )
    twins: dict[int, "_Team"] = field(factory=dict)
    guard: threading.Lock = field(factory=threading.Lock)


@define(eq=False)
class ThreadRank:
    """One of them; everything that is told is pickled, as MPI does."""

    rank: int
    _team: _Team
    _twins: int = 0

    @property
    def size(self) -> int:
        return self._team.size

    def gather(self, value: T, /) -> list[T]:
        self._send(0, value)
        return [self._receive(rank) for rank in range(self.size)] if self.rank == 0 else []

    def broadcast(self, value: T, /) -> T:
        if self.rank == 0:
            for rank in range(self.size):
                self._send(rank, value)
        reported: T = self._receive(0)
        return reported

    def barrier(self) -> None:
        self.gather(None)
        self.broadcast(None)

    def duplicate(self) -> Coordinator:
        with self._team.guard:
            team = self._team.twins.setdefault(self._twins, _Team(self.size))
        self._twins += 1
        return ThreadRank(self.rank, team)

    def _queue(self, begin: int, end: int) -> "queue.Queue[bytes]":
        with self._team.guard:
            return self._team.queues[begin, end]

    def _send(self, rank: int, value: Any) -> None:
        self._queue(self.rank, rank).put(pickle.dumps(value))

    def _receive(self, rank: int) -> Any:
        return pickle.loads(self._queue(rank, self.rank).get(timeout=_PATIENCE))


def on_ranks(size: int, work: Callable[[Coordinator], T]) -> list[T]:
    """What each rank returns; raises what one of them raises, when all have ended."""
    team = _Team(size)
    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(work, ThreadRank(rank, team)) for rank in range(size)]
    return [future.result() for future in futures]
