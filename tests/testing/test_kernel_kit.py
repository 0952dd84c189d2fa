"""The conformance kit for kernels: honest ones pass, each broken one is rejected for its reason."""

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import attrs
import hypothesis
import numpy as np
import numpy.typing as npt
import pytest

from checkpointable import Array, capture, reinstate
from checkpointable.testing import KernelTests, ObligationBroken, verify_kernel
from checkpointable.testing.kernels.states import copy_of, first_difference
from checkpointable.testing.report import name_of, obligations_of
from tests.helpers.kernels import Counter, CounterCheckpoint
from tests.testing import broken_kernels as broken


class TestCounter(KernelTests[CounterCheckpoint]):
    def make(self) -> Counter:
        return Counter()


class TestHonest(KernelTests[broken.WalkCheckpoint]):
    steps = 9
    settings = hypothesis.settings(KernelTests.settings, max_examples=30)

    def make(self) -> broken.Honest:
        return broken.Honest()

    def scramble(self, kernel: Any) -> None:
        kernel.at[:] = np.nan
        kernel.generator.standard_normal(7)


@dataclasses.dataclass
class Cell:
    value: npt.NDArray[np.int32]
    age: int


@dataclasses.dataclass
class GrowingCheckpoint:
    step: int
    cells: list[Cell]
    weights: dict[str, npt.NDArray[np.float32]]


class Growing:
    """A list of objects with arrays, that grows; on every third step it cannot be interrupted."""

    def __init__(self) -> None:
        self.step = 0
        self.cells = [Cell(np.arange(2, dtype=np.int32), 0)]
        self.weights = {"a": np.ones(2, np.float32)}

    def can_checkpoint(self) -> bool:
        return self.step % 3 != 2

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            self.step += 1
            for cell in self.cells:
                cell.value += 1
                cell.age += 1
            self.weights["a"] += 0.5
            if self.step % 4 == 0:
                self.cells.append(Cell(np.full(2, self.step, np.int32), 0))

    async def checkpoint(self) -> GrowingCheckpoint:
        assert self.can_checkpoint()
        return await capture(GrowingCheckpoint, self)

    async def restore(self, checkpoint: GrowingCheckpoint) -> None:
        await reinstate(checkpoint, self)


class TestGrowing(KernelTests[GrowingCheckpoint]):
    def make(self) -> Growing:
        return Growing()


class TestChecking(KernelTests[broken.WalkCheckpoint]):
    def make(self) -> broken.Checking:
        return broken.Checking()


REASONS: list[tuple[Callable[[], Any], str, list[str]]] = [
    (broken.Sync, "is_a_kernel", ["checkpoint is `def`, but must be `async def`"]),
    (broken.Unseeded, "runs_agree", ["two runs from make() differ", "without a seed"]),
    (broken.Miscounting, "runs_agree", ["led to step", "not counted"]),
    (broken.InBatches, "runs_agree", ["in parts", "each call of advance()"]),
    (broken.Drawing, "taking_changes_nothing", ["draws from the RNG"]),
    (broken.Aliasing, "held_is_unchanged", ["'at' aliases live state: copy it in che"]),
    (broken.OneBuffer, "held_is_unchanged", ["fills the same 'at' each time"]),
    (broken.Adopting, "held_is_unchanged", ["keeps the checkpoint's own 'at'"]),
    (broken.ForgottenRng, "resumed_fresh", ["depends on 'generator', and the che"]),
    (broken.ForgottenParity, "resumed_fresh", ["depends on 'parity', and the che"]),
    (broken.Incomplete, "resumed_fresh", ["does not set 'before'"]),
    (broken.StaleCache, "resumed_used", ["depends on 'cache', and the checkpoint"]),
    (broken.Adding, "resumed_used", ["does not set 'at'"]),
    (broken.Unchecked, "refuses_whole", ["took a wrong", "'at' is float32", "check all"]),
    (broken.OtherError, "refuses_whole", ["ended in ValueError", "raise InvalidCheck"]),
    (broken.NoFieldsChecked, "refuses_whole", ["'step' is missing", "AttributeError"]),
    (broken.NoNaNChecked, "refuses_whole", ["'at' holds NaN, which its validator"]),
    (broken.NoScaleChecked, "refuses_whole", ["'scale' is NaN, which its validator"]),
    (broken.Partial, "refuses_whole", ["but changed", "writes 'at' before it has"]),
    (broken.Elements, "size_is_estimated", ["the estimate is 6000 bytes", "not elements"]),
    (broken.Careless, "not_now", ["did not return a bool"]),
]  # fmt: skip


def the_test(obligation: str) -> Callable[..., None]:
    test: Callable[..., None] = getattr(KernelTests, f"test_{obligation}")
    return test


@pytest.mark.parametrize(("make", "obligation", "texts"), REASONS, ids=range(len(REASONS)))
def test_a_broken_kernel_is_rejected_for_its_reason(
    make: Any, obligation: str, texts: list[str]
) -> None:
    with pytest.raises(ObligationBroken) as error:
        verify_kernel(make)
    assert error.value.obligation == name_of(the_test(obligation))
    for text in texts:
        assert text in str(error.value)
    assert error.value.cause


def test_every_obligation_has_a_name() -> None:
    obligations = obligations_of(KernelTests)
    assert len({name_of(obligation) for obligation in obligations}) == len(obligations) == 12


def of(make: Any) -> KernelTests[Any]:
    class Tests(KernelTests[Any]):
        settings = hypothesis.settings(KernelTests.settings, max_examples=200)  # to be certain

        def make(self) -> Any:
            return make()

    return Tests()


@pytest.mark.parametrize("obligation", obligations_of(KernelTests), ids=lambda o: o.__name__)
def test_each_obligation_alone_rejects_one_of_them(obligation: Callable[[Any], None]) -> None:
    if obligation is KernelTests.test_restoring_twice_is_once:
        make: Callable[[], Any] = Drifting
    elif obligation is KernelTests.test_stored_and_back:
        make = Mending
    elif obligation is KernelTests.test_survives_anything:
        make = broken.ForgottenRng
    else:
        make = next(make for make, name, _ in REASONS if the_test(name) is obligation)
    with pytest.raises(ObligationBroken) as error:
        obligation(of(make))
    assert error.value.obligation == name_of(obligation)


class Drifting(broken.Honest):
    """Restores right the first time only."""

    restored = False

    async def restore(self, checkpoint: broken.WalkCheckpoint) -> None:
        await reinstate(checkpoint, self)
        self.at += self.restored
        self.restored = True


def mend(_: Any, attribute: Any, value: Any) -> None:
    value[...] = np.maximum(value, 0.5)


@attrs.frozen
class MendedCheckpoint:
    step: int
    at: Array[np.float64] = attrs.field(validator=mend)


class Mending:
    """Its validator changes values: what is loaded is not what was saved."""

    def __init__(self) -> None:
        self.step, self.at = 0, np.zeros(2)

    def advance(self, steps: int) -> None:
        self.step += steps

    async def checkpoint(self) -> MendedCheckpoint:
        checkpoint = MendedCheckpoint(self.step, np.ones(2))
        np.asarray(checkpoint.at)[:] = self.at
        return checkpoint

    async def restore(self, checkpoint: MendedCheckpoint) -> None:
        self.step = checkpoint.step


KEPT = Counter()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Counter, "Counter is a class, not a kernel object"),
        (lambda: KEPT, "the same object twice"),
        (lambda: object(), "restore is missing"),
    ],
    ids=range(3),
)
def test_what_is_not_a_kernel_is_rejected(make: Any, text: str) -> None:
    with pytest.raises(ObligationBroken) as error:
        verify_kernel(make)
    assert text in str(error.value)


def test_a_kernel_that_can_never_be_checkpointed_is_rejected() -> None:
    class Never(Counter):
        def can_checkpoint(self) -> bool:
            return False

    with pytest.raises(ObligationBroken, match="false for 1000 steps"):
        verify_kernel(Never)


def test_the_error_without_make_names_it() -> None:
    class TestNothing(KernelTests[Any]):
        pass

    with pytest.raises(NotImplementedError, match="TestNothing needs a method make"):
        TestNothing().test_runs_agree()


def test_it_works_in_a_running_event_loop() -> None:
    async def notebook() -> None:
        verify_kernel(
            Counter, steps=3, settings=hypothesis.settings(KernelTests.settings, max_examples=2)
        )

    asyncio.run(notebook())


class Shut(Counter):
    living = 0

    def __init__(self) -> None:
        super().__init__()
        Shut.living += 1

    def shutdown(self) -> None:
        Shut.living -= 1


def test_every_kernel_is_shut_down() -> None:
    few = hypothesis.settings(KernelTests.settings, max_examples=3)
    verify_kernel(Shut, steps=3, settings=few)
    assert Shut.living == 0


@attrs.frozen
class Signed:
    value: float
    items: tuple[float, ...]


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (Signed(0.0, (1.0, 2.0)), ""),
        (Signed(-0.0, (1.0, 2.0)), "Signed.value: -0.0, not 0.0"),
        (Signed(0.0, (1.0, float("nan"))), "Signed.items[1]: "),
        (Signed(0.0, (1.0,)), "Signed.items: 1 items, not 2"),
    ],
    ids=range(4),
)
def test_states_are_compared_to_the_last_bit(other: Signed, difference: str) -> None:
    actual = first_difference(copy_of(Signed(0.0, (1.0, 2.0)), Signed), copy_of(other, Signed))
    assert actual.startswith(difference)
    assert bool(actual) is bool(difference)
