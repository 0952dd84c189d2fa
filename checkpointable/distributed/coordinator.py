"""The ranks of a job, and how they agree: in a single process, or over MPI.

A kernel that runs on many ranks (processes that do the same, each on a part) is saved and restored
by all of them together. They communicate through a `Coordinator`; nothing else in the package uses
MPI.
"""

import time
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Protocol, TypeVar

from attrs import field, frozen

from checkpointable.errors import InvalidKernel

T = TypeVar("T")

_FAN = 32  # children of a rank in the tree: each costs it time, and so does each level
_SHORTEST, _LONGEST = 2e-5, 2e-3  # seconds between two polls


class Coordinator(Protocol):
    """The ranks of a job. All of them call each method, in the same order."""

    @property
    def rank(self) -> int:
        """The number of this rank, from 0."""
        ...

    @property
    def size(self) -> int:
        """The number of ranks."""
        ...

    def gather(self, value: T, /) -> list[T]:
        """Return the values of all ranks, in order, on rank 0, and an empty list on the others."""
        ...

    def broadcast(self, value: T, /) -> T:
        """Return the value of rank 0 on all ranks."""
        ...

    def barrier(self) -> None:
        """Return when all ranks have called this."""
        ...

    def duplicate(self) -> "Coordinator":
        """Return another coordinator of the same ranks, for use by another thread."""
        ...


@frozen
class SingleProcess:
    """A job of one rank: the default.

    >>> SingleProcess().gather("I"), SingleProcess().broadcast("am")
    (['I'], 'am')
    """

    rank: int = 0
    size: int = 1

    def gather(self, value: T, /) -> list[T]:
        """See `Coordinator`."""
        return [value]

    def broadcast(self, value: T, /) -> T:
        """See `Coordinator`."""
        return value

    def barrier(self) -> None:
        """See `Coordinator`."""

    def duplicate(self) -> Coordinator:
        """See `Coordinator`."""
        return self


def allreduce(coordinator: Coordinator, value: T, combine: Callable[[list[T]], T]) -> T:
    """Return `combine` of the values of all ranks, on all ranks.

    >>> allreduce(SingleProcess(), 3, max)
    3
    """
    values = coordinator.gather(value)
    return coordinator.broadcast(combine(values) if values else value)


def _duplicated(comm: Any) -> Any:
    """A communicator of our own, so that the program's own messages are not taken for ours."""
    from mpi4py import MPI as mpi

    if mpi.Query_thread() < mpi.THREAD_MULTIPLE:
        raise InvalidKernel(
            "MPI was initialized without support for threads, which saves need",
            where="mpi4py.MPI.Query_thread()",
            hint='set mpi4py.rc.thread_level = "multiple" before importing mpi4py.MPI',
        )
    return (mpi.COMM_WORLD if comm is None else comm).Dup()


@frozen(eq=False)
class MpiCoordinator:
    """The ranks of an MPI communicator, by mpi4py: `pip install 'checkpointable[mpi]'`.

    `comm` is by default the communicator of all processes. Start them with `mpiexec -n 4 python -m
    mpi4py program.py`: without `-m mpi4py` a rank that fails leaves the others waiting.

    It waits by polling with pauses, so that a rank with nothing to do leaves its core to others.
    Raises `InvalidKernel` if MPI cannot be used from several threads, since saves run concurrently
    with the kernel.
    """

    comm: Any = field(default=None, converter=_duplicated)

    @property
    def rank(self) -> int:
        """See `Coordinator`."""
        return int(self.comm.Get_rank())

    @property
    def size(self) -> int:
        """See `Coordinator`."""
        return int(self.comm.Get_size())

    def gather(self, value: T, /) -> list[T]:
        """See `Coordinator`."""
        above, below = _neighbours(self.rank, self.size)
        values = [(self.rank, value)]
        for rank in below:
            values += self._receive(rank)
        if self.rank:
            self._send([above], values)
            return []
        return [one for _, one in sorted(values, key=itemgetter(0))]

    def broadcast(self, value: T, /) -> T:
        """See `Coordinator`."""
        above, below = _neighbours(self.rank, self.size)
        received: T = self._receive(above) if self.rank else value
        self._send(below, received)
        return received

    def barrier(self) -> None:
        """See `Coordinator`."""
        _wait(self.comm.Ibarrier().Test)

    def duplicate(self) -> Coordinator:
        """See `Coordinator`."""
        return MpiCoordinator(self.comm)

    def _send(self, to: Any, value: Any) -> None:
        import pickle  # here, since it takes a while

        data = pickle.dumps(value)
        for request in [self.comm.Isend(data, rank) for rank in to]:
            _wait(request.Test)

    def _receive(self, rank: int) -> Any:
        import pickle

        from mpi4py import MPI as mpi

        status = mpi.Status()
        _wait(lambda: self.comm.Iprobe(rank, status=status))
        data = bytearray(status.Get_count(mpi.BYTE))
        self.comm.Recv(data, rank)
        return pickle.loads(data)


def _neighbours(rank: int, size: int) -> tuple[int, range]:
    """The parent and the children of a rank in a tree of few levels.

    >>> _neighbours(0, 100), _neighbours(1, 100)
    ((-1, range(1, 33)), (0, range(33, 65)))
    """
    first = _FAN * rank + 1
    return (rank - 1) // _FAN, range(min(first, size), min(first + _FAN, size))


def _wait(done: Callable[[], bool]) -> None:
    """Poll until it is done, less and less often."""
    pause = _SHORTEST
    while not done():
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST)
