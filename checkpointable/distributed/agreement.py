"""How the ranks of a job fail: the failure of one is the error of all.

Every exchange carries a result, so no rank waits on one that failed.
"""

import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from attrs import frozen

from checkpointable import errors
from checkpointable.distributed.coordinator import Coordinator
from checkpointable.errors import CheckpointableError, CorruptCheckpoint, NoCheckpoint

T = TypeVar("T")
_OF_ALL = "raised by all ranks"


@frozen
class Failure:
    """What went wrong on a rank, in a form that the others can raise."""

    rank: int
    kind: type[CheckpointableError]
    what: str
    where: str = ""
    hint: str = ""

    def error(self) -> CheckpointableError:
        """The error that all ranks raise."""
        error = self.kind(f"rank {self.rank}: {self.what}", where=self.where, hint=self.hint)
        error.add_note(_OF_ALL)
        return error


def attempt(coordinator: Coordinator, work: Callable[[], T]) -> T | Failure:
    """What `work` returns, or its failure on this rank; a single process raises instead."""
    if coordinator.size == 1:
        return work()
    try:
        return work()
    except Exception as error:  # whatever it is, it must not leave the others waiting
        return failure_of(coordinator.rank, error)


def failure_of(rank: int, error: Exception) -> Failure:
    """The failure for an error on a rank.

    An error of a user's class becomes our class that it inherits from, since the other ranks may
    not be able to make one: it may be local to a function, or take other arguments.
    """
    if isinstance(error, CheckpointableError):
        ours = [kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__]
        what = error.what if type(error) is ours[0] else f"{type(error).__name__}: {error.what}"
        return Failure(rank, ours[0], what, error.where, error.hint)
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    return Failure(rank, CheckpointableError, f"{type(error).__name__}: {error}", where)


def first_failure(coordinator: Coordinator, mine: object) -> Failure | None:
    """The failure of the lowest rank that has one, on all ranks; damage comes last."""
    gathered = coordinator.gather(mine if isinstance(mine, Failure) else None)
    failures = [failure for failure in gathered if failure is not None]
    failures.sort(key=lambda failure: issubclass(failure.kind, CorruptCheckpoint | NoCheckpoint))
    return coordinator.broadcast(failures[0] if failures else None)


def on_root(coordinator: Coordinator, work: Callable[[], T]) -> T:
    """Do the work on rank 0; all ranks return its result, or raise its error."""
    mine: Any = attempt(coordinator, work) if coordinator.rank == 0 else None
    result: T | Failure = coordinator.broadcast(mine)
    if isinstance(result, Failure):
        raise result.error()
    return result


def on_all(coordinator: Coordinator, work: Callable[[], T]) -> T:
    """Do the work on every rank; if it fails on one, all raise that error."""
    return agreed(coordinator, attempt(coordinator, work))


async def attempted(rank: int, work: Awaitable[T]) -> T | Failure:
    """The result of awaiting `work`, or its failure on this rank."""
    try:
        return await work
    except Exception as error:  # whatever a kernel raises, it must not leave the others waiting
        return failure_of(rank, error)


def agreed(coordinator: Coordinator, mine: T | Failure) -> T:
    """Return this rank's result if no rank failed; else raise that error on all."""
    failure = first_failure(coordinator, mine)
    if failure is not None:
        raise failure.error()
    assert not isinstance(mine, Failure)
    return mine


@contextmanager
def leave_together(coordinator: Coordinator) -> Iterator[None]:
    """Pass on an error that all ranks raise only when all of them have come this far.

    The first rank to end with an error ends the others, even those that still have to report it.
    """
    try:
        yield
    except CheckpointableError as error:
        if _OF_ALL in getattr(error, "__notes__", ()):
            coordinator.barrier()
        raise
