"""A kernel under test: how to make it, run it, and take and restore its states."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointable.errors import CheckpointableError
from checkpointable.protocol import can_checkpoint, check_kernel, checkpoint_class, shutdown
from checkpointable.testing.kernels.states import State, copy_of, first_difference
from checkpointable.testing.report import ObligationBroken, broken
from checkpointable.threads import complete


@define(eq=False, slots=False)
class Subject:
    """What is tested: `make` gives fresh kernels, `scramble` brings one into another state.

    `steps` is how far runs go; `settings` are Hypothesis's.
    """

    make: Callable[[], Any]
    scramble: Callable[[Any], None]
    steps: int
    settings: settings

    @cached_property
    def cls(self) -> Any:
        """The class of the kernel's checkpoints."""
        with self.kernel() as kernel:
            return checkpoint_class(kernel)

    @cached_property
    def begin(self) -> int:
        """The step of a fresh kernel."""
        kernel = self.make()
        shutdown(kernel)
        return int(kernel.step)

    @contextmanager
    def kernel(self, steps: int = 0) -> Iterator[Any]:
        """A fresh kernel, advanced by `steps`; shut down at the end."""
        kernel = self.make()
        check_kernel(kernel, steppable=True)
        try:
            advance(kernel, steps)
            yield kernel
        finally:
            shutdown(kernel)

    @contextmanager
    def used_kernel(self) -> Iterator[Any]:
        """A fresh kernel, scrambled."""
        with self.kernel() as kernel:
            self.scramble(kernel)
            yield kernel

    @cached_property
    def uninterrupted(self) -> Callable[[int], State]:
        """The state after some steps of a run that nothing interrupts; computed once."""

        @cache
        def after(steps: int) -> State:
            with self.kernel(steps) as kernel:
                return self.state(kernel)

        return after

    def state(self, kernel: Any) -> State:
        """An owned copy of the kernel's state."""
        return copy_of(take(kernel), self.cls)

    def reach(self, kernel: Any, stop: int) -> None:
        """Advance to this many steps, or beyond to where the kernel can be checkpointed."""
        advance(kernel, max(0, self.begin + stop - kernel.step))

    def expect_end(self, kernel: Any, what: str, cause: str | Callable[[str], str]) -> None:
        """Advance to `steps` steps; raise unless the state is that of an uninterrupted run."""
        expected = self.uninterrupted(self.steps)
        self.reach(kernel, self.steps)
        expect_same(expected, self.state(kernel), what, cause)

    def for_every(self, check: Callable[..., None], **strategies: st.SearchStrategy[Any]) -> None:
        """Run the check on what Hypothesis draws from the strategies."""
        self.settings(given(**strategies)(check))()

    def stops(self) -> st.SearchStrategy[list[int]]:
        """A few steps, in order, at which a run is interrupted."""
        return st.lists(st.integers(0, self.steps), max_size=3).map(sorted)

    def stop(self) -> st.SearchStrategy[int]:
        """One step at which a run is interrupted."""
        return st.integers(0, self.steps)


def take(kernel: Any) -> Any:
    """Take a checkpoint."""
    return complete(kernel.checkpoint())


def put(kernel: Any, checkpoint: Any) -> None:
    """Restore a checkpoint."""
    complete(kernel.restore(checkpoint))


def advance(kernel: Any, steps: int) -> None:
    """Advance by so many steps, and then to where the kernel can be checkpointed."""
    if steps:
        kernel.advance(steps)
    for _ in range(1000):
        if can_checkpoint(kernel):
            return
        kernel.advance(1)
    raise ObligationBroken(
        "it can be checkpointed",
        "can_checkpoint() was false for 1000 steps",
        where=type(kernel).__qualname__,
        cause="a flag that is never reset",
    )


def expect_same(
    expected: State, actual: State, what: str, cause: str | Callable[[str], str]
) -> None:
    """Raise `ObligationBroken` with the first difference, unless the states are the same."""
    difference = first_difference(expected, actual)
    if difference:
        raise broken(
            what, where=difference, cause=cause if isinstance(cause, str) else cause(difference)
        )


@contextmanager
def errors_reported_as(what: str, cause: str = "") -> Iterator[None]:
    """Turn what the kernel raises into `ObligationBroken`."""
    try:
        yield
    except ObligationBroken:
        raise
    except CheckpointableError as error:
        cause = error.hint or cause
        raise broken(f"{what}: {error.what}", where=error.where, cause=cause) from error
    except Exception as error:  # whatever a user's kernel raises
        raise broken(f"{what}: {type(error).__name__}: {error}", cause=cause) from error
