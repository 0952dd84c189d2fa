"""How the ranks of a job fail: the failure of one is the error of all, and none is left waiting.

They never only wait for each other: they tell what came of it.
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
    """What went wrong on a rank, for the others to know."""

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
    """What `work` returns, or how it failed on this rank; alone, it may as well raise."""
    if coordinator.size == 1:
        return work()
    try:
        return work()
    except Exception as error:  # also of a user's class, or of the system: it must not hang others
        return failure_of(coordinator.rank, error)


def failure_of(rank: int, error: Exception) -> Failure:
    """How it failed, with what the others have to know.

    Of a user's class of errors they know only ours that is above it: it may be local to a function,
    or take arguments of its own.
    """
    if isinstance(error, CheckpointableError):
        ours = [kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__]
        what = error.what if type(error) is ours[0] else f"{type(error).__name__}: {error.what}"
        return Failure(rank, ours[0], what, error.where, error.hint)
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    return Failure(rank, CheckpointableError, f"{type(error).__name__}: {error}", where)


def first_failure(coordinator: Coordinator, mine: object) -> Failure | None:
    """The failure of the first rank that has one, the same on all; damage only if that is all."""
    told = coordinator.gather(mine if isinstance(mine, Failure) else None)
    failures = [one for one in told if one is not None]
    failures.sort(key=lambda one: issubclass(one.kind, CorruptCheckpoint | NoCheckpoint))
    return coordinator.broadcast(failures[0] if failures else None)


def on_root(coordinator: Coordinator, work: Callable[[], T]) -> T:
    """What `work` returns on rank 0, or its error, on all ranks."""
    mine: Any = attempt(coordinator, work) if coordinator.rank == 0 else None
    told: T | Failure = coordinator.broadcast(mine)
    if isinstance(told, Failure):
        raise told.error()
    return told


def on_all(coordinator: Coordinator, work: Callable[[], T]) -> T:
    """Do the work on every rank; if it fails on one, all raise that error."""
    return agreed(coordinator, attempt(coordinator, work))


async def attempted(rank: int, work: Awaitable[T]) -> T | Failure:
    """What comes of `work`, or how it failed on this rank."""
    try:
        return await work
    except Exception as error:  # whatever a kernel raises: it must not hang the others
        return failure_of(rank, error)


def agreed(coordinator: Coordinator, mine: T | Failure) -> T:
    """What came of it here, if it failed on no rank; else all raise that error."""
    failure = first_failure(coordinator, mine)
    if failure is not None:
        raise failure.error()
    assert not isinstance(mine, Failure)
    return mine


@contextmanager
def leave_together(coordinator: Coordinator) -> Iterator[None]:
    """Let an error that all ranks raise pass when it has come so far on all of them.

    The first to end with it ends the others, also those that have something to say yet.
    """
    try:
        yield
    except CheckpointableError as error:
        if _OF_ALL in getattr(error, "__notes__", ()):
            coordinator.barrier()
        raise
