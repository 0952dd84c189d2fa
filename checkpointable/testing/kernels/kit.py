"""Prove that a kernel keeps the contract: in pytest with `KernelTests`, anywhere by a call."""

from collections.abc import Callable
from typing import ClassVar, Generic, TypeVar

import hypothesis

from checkpointable.protocol import SteppableKernel
from checkpointable.testing.kernels import _obligations as obligations
from checkpointable.testing.kernels import _saving as saving
from checkpointable.testing.kernels._subject import Subject
from checkpointable.testing.report import few

C = TypeVar("C")

SETTINGS = few(examples=20, steps=15)
"""Few examples, since a kernel may take seconds for each; give your own for more."""


def scramble_by_advancing(kernel: SteppableKernel[C]) -> None:
    """Bring a kernel into another state by a few steps."""
    kernel.advance(3)


def verify_kernel(
    make: Callable[[], SteppableKernel[C]],
    *,
    scramble: Callable[[SteppableKernel[C]], None] = scramble_by_advancing,
    steps: int = 12,
    settings: hypothesis.settings = SETTINGS,
) -> None:
    """Check every obligation of the kernels that `make()` gives; silent if all is well.

    `make` gives a fresh kernel each time, all of them alike, small enough for hundreds of runs of
    `steps` steps. `scramble` brings one into some other state before something is restored into it.

    Raises `ObligationBroken`, an `AssertionError`, for the first obligation that does not hold.

    >>> import attrs, numpy as np
    >>> @attrs.frozen
    ... class WalkCheckpoint:
    ...     step: int
    ...     at: np.ndarray
    >>> class Walk:
    ...     def __init__(self) -> None:
    ...         self.step, self.at = 0, np.zeros(2)
    ...     def advance(self, steps: int) -> None:
    ...         self.step += steps
    ...         self.at += steps
    ...     async def checkpoint(self) -> WalkCheckpoint:
    ...         return WalkCheckpoint(self.step, self.at)
    ...     async def restore(self, checkpoint: WalkCheckpoint) -> None:
    ...         self.step, self.at[:] = checkpoint.step, checkpoint.at
    >>> try:
    ...     verify_kernel(Walk)
    ... except AssertionError as broken:
    ...     print(broken)
    A checkpoint shares nothing with the live state
      broken: a held checkpoint changed while the kernel advanced
      where: WalkCheckpoint.at[0]: 12.0, not 0.0
      usual cause: 'at' aliases live state: copy it in checkpoint(), or use capture()
    """
    subject = Subject(make, scramble, steps, settings)
    for obligation in obligations.OBLIGATIONS:
        obligation(subject)


class KernelTests(Generic[C]):
    """Tests of a kernel's obligations: subclass it in a test module, and give `make`.

    ```python
    class TestHeat(KernelTests[HeatCheckpoint]):
        def make(self) -> Heat:
            return Heat(n=64)
    ```

    `steps` is how far the runs go; `settings` are Hypothesis's: more examples find more.
    """

    steps: ClassVar[int] = 12
    settings: ClassVar[hypothesis.settings] = SETTINGS

    def make(self) -> SteppableKernel[C]:
        """Make a fresh kernel, small, and each time the same."""
        raise NotImplementedError(f"{type(self).__name__} needs a method make(self)")

    def scramble(self, kernel: SteppableKernel[C]) -> None:
        """Bring a kernel into some other state, before something is restored into it."""
        scramble_by_advancing(kernel)

    def _check(self, obligation: obligations.Obligation) -> None:
        obligation(Subject(self.make, self.scramble, self.steps, self.settings))

    def test_is_a_kernel(self) -> None:
        """It has a kernel's methods, and checkpoints that can be stored."""
        self._check(obligations.is_a_kernel)

    def test_runs_agree(self) -> None:
        """Two runs are the same, and advancing in parts is the same as at once."""
        self._check(obligations.runs_agree)

    def test_taking_changes_nothing(self) -> None:
        """Taking a checkpoint does not change the run."""
        self._check(obligations.taking_changes_nothing)

    def test_held_is_unchanged(self) -> None:
        """A checkpoint shares nothing with the live state."""
        self._check(obligations.held_is_unchanged)

    def test_resumed_fresh(self) -> None:
        """Resume equals never stopped, restored into a fresh kernel."""
        self._check(obligations.resumed_fresh)

    def test_resumed_used(self) -> None:
        """Resume equals never stopped, restored into a used kernel."""
        self._check(obligations.resumed_used)

    def test_restoring_twice_is_once(self) -> None:
        """Restoring twice is the same as once."""
        self._check(obligations.restoring_twice_is_once)

    def test_refuses_whole(self) -> None:
        """A wrong checkpoint is refused, and nothing has changed."""
        self._check(obligations.refuses_whole)

    def test_stored_and_back(self) -> None:
        """A round trip through a file and through every store gives the same."""
        self._check(saving.stored_and_back)

    def test_not_now(self) -> None:
        """While can_checkpoint() is false, a save raises NotNow and does nothing."""
        self._check(saving.not_now)

    def test_size_is_estimated(self) -> None:
        """The size estimate, if there is one, is within a factor of two."""
        self._check(saving.size_is_estimated)

    def test_survives_anything(self) -> None:
        """Any order of advance, checkpoint, restore, save, load and failure is survived."""
        self._check(obligations.survives_anything)
