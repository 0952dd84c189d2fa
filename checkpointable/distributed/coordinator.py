"""The ranks of a job, and how they come to one mind: alone, or over MPI.

A kernel that runs on many ranks (processes that do the same, each on a part) is saved and restored
by all of them at once. What they have to tell each other goes through a `Coordinator`; nothing else
in the package knows MPI.
"""

import time
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Protocol, TypeVar

from attrs import field, frozen

from checkpointable.errors import InvalidKernel

T = TypeVar("T")

_FAN = 32  # ranks that one hears from: each of them costs it time, each level between waits too
_SHORTEST, _LONGEST = 2e-5, 2e-3  # seconds between two looks


class Coordinator(Protocol):
    """The ranks of a job. Each method is called by all of them, in the same order."""

    @property
    def rank(self) -> int:
        """The number of this one, from 0."""
        ...

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def gather(self, value: T, /) -> list[T]:
        """Give rank 0 the values of all, by rank; the others an empty list."""
        ...

    def broadcast(self, value: T, /) -> T:
        """Give everyone the value of rank 0."""
        ...

    def barrier(self) -> None:
        """Return when all have come here."""
        ...

    def duplicate(self) -> "Coordinator":
        """Another one, of the same ranks, to be used by another thread at the same time."""
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
    """What `combine` makes of the values of all ranks, the same on each.

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
            "MPI was begun without support for threads, which saves need",
            where="mpi4py.MPI.Query_thread()",
            hint='set mpi4py.rc.thread_level = "multiple" before importing mpi4py.MPI',
        )
    return (mpi.COMM_WORLD if comm is None else comm).Dup()


@frozen(eq=False)
class MpiCoordinator:
    """The ranks of an MPI communicator, by mpi4py: `pip install 'checkpointable[mpi]'`.

    `comm` is that of all processes unless given. Start them by `mpiexec -n 4 python -m mpi4py
    program.py`: without `-m mpi4py` a rank that fails leaves the others waiting for it.

    Waits by looking now and then, so that a rank that has nothing to do leaves its core alone.
    Raises `InvalidKernel` if MPI cannot be used from several threads, since saves go on beside the
    kernel.
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
        found = [(self.rank, value)]
        for rank in below:
            found += self._receive(rank)
        if self.rank:
            self._send([above], found)
            return []
        return [one for _, one in sorted(found, key=itemgetter(0))]

    def broadcast(self, value: T, /) -> T:
        """See `Coordinator`."""
        above, below = _neighbours(self.rank, self.size)
        told: T = self._receive(above) if self.rank else value
        self._send(below, told)
        return told

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
    """Whom a rank tells, and who tell it: a tree, of so few levels that each costs little.

    >>> _neighbours(0, 100), _neighbours(1, 100)
    ((-1, range(1, 33)), (0, range(33, 65)))
    """
    first = _FAN * rank + 1
    return (rank - 1) // _FAN, range(min(first, size), min(first + _FAN, size))


def _wait(done: Callable[[], bool]) -> None:
    """Look until it is done, less and less often."""
    pause = _SHORTEST
    while not done():
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST)
