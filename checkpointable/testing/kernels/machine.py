"""Random histories of a kernel and its checkpoints: everything that can happen, in any order."""

from functools import cache
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from checkpointable.checkpointer import Checkpointer
from checkpointable.errors import StoreError
from checkpointable.protocol import shutdown
from checkpointable.stores import MemoryStore
from checkpointable.testing.kernels.states import State, copy_of
from checkpointable.testing.kernels.subject import (
    Subject,
    advance,
    errors_reported_as,
    expect_same,
    put,
    take,
)
from checkpointable.testing.kernels.wrong import Wrong, expect_refused, wrong_checkpoints
from checkpointable.testing.stores import FaultyStore
from checkpointable.threads import complete

INDEX = st.integers(0, 2**16)
STEPS = st.integers(1, 4)


def run_machine(subject: Subject) -> None:
    """Drive kernels made by the subject through random histories, and check each state."""

    @cache
    def wrong() -> list[Wrong]:
        with subject.kernel() as one, subject.kernel(subject.steps) as other:
            return [*wrong_checkpoints(take(one), take(other), subject.cls)]

    class History(RuleBasedStateMachine):
        """One kernel at a time, the checkpoints that were held, and a store."""

        def __init__(self) -> None:
            super().__init__()
            self.kernel = subject.make()
            advance(self.kernel, 0)
            self.held: list[tuple[Any, State]] = []
            self.store = MemoryStore()

        def steps_done(self) -> int:
            return int(self.kernel.step) - subject.begin

        @rule(steps=STEPS)
        def advance(self, steps: int) -> None:
            if self.steps_done() < 2 * subject.steps:
                advance(self.kernel, steps)

        @rule()
        def checkpoint(self) -> None:
            checkpoint = take(self.kernel)
            self.held.append((checkpoint, copy_of(checkpoint, subject.cls)))

        def restore(self, index: int) -> None:
            checkpoint, _ = self.held[index % len(self.held)]
            with errors_reported_as("restore() refused a good checkpoint"):
                put(self.kernel, checkpoint)

        @precondition(lambda self: bool(self.held))
        @rule(index=INDEX, steps=STEPS)
        def go_back(self, index: int, steps: int) -> None:
            self.advance(steps)
            self.restore(index)
            self.advance(steps)

        @precondition(lambda self: bool(self.held))
        @rule(index=INDEX)
        def restore_an_old_one(self, index: int) -> None:
            self.restore(index)

        @precondition(lambda self: bool(self.held))
        @rule(index=INDEX)
        def restore_into_a_fresh_one(self, index: int) -> None:
            shutdown(self.kernel)
            self.kernel = subject.make()
            self.restore(index)

        @precondition(lambda self: bool(self.held))
        @rule(index=INDEX)
        def scramble_and_restore(self, index: int) -> None:
            subject.scramble(self.kernel)
            self.restore(index)

        @rule()
        def save(self) -> None:
            with errors_reported_as("it cannot be saved"):
                complete(self.checkpointer(self.store).save()).result()

        @rule()
        def fail_to_save(self) -> None:
            before = {entry.name for entry in self.store.list()}
            faulty = FaultyStore(self.store, "fail", "create")
            try:
                complete(self.checkpointer(faulty).save()).result()
            except StoreError:
                assert {entry.name for entry in self.store.list()} == before
            else:
                raise AssertionError("a save that failed did not raise")

        @precondition(lambda self: any(self.store.list()))
        @rule()
        def load_the_latest(self) -> None:
            with errors_reported_as("it cannot be restored from a store"):
                complete(self.checkpointer(self.store).restore_latest())

        @precondition(lambda _: bool(wrong()))
        @rule(index=INDEX)
        def refuse_a_wrong_one(self, index: int) -> None:
            spoilt = wrong()[index % len(wrong())]
            expect_refused(subject, self.kernel, spoilt, subject.state(self.kernel))

        def checkpointer(self, store: Any) -> Checkpointer[Any]:
            return Checkpointer(self.kernel, store, cls=subject.cls)

        @invariant()
        def the_state_is_that_of_an_uninterrupted_run(self) -> None:
            expect_same(
                subject.uninterrupted(self.steps_done()),
                subject.state(self.kernel),
                f"at step {self.kernel.step} it differs from a run that was never stopped",
                "see the obligation that fails before this one, if one does",
            )

        @invariant()
        def held_checkpoints_are_as_they_were(self) -> None:
            for checkpoint, before in self.held:
                after = copy_of(checkpoint, subject.cls)
                cause = "a checkpoint shares memory with the kernel, or with another"
                expect_same(before, after, "a held checkpoint changed", cause)

        def teardown(self) -> None:
            shutdown(self.kernel)

    run_state_machine_as_test(History, settings=subject.settings)
