"""One kernel and one store."""

import asyncio
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointable import (
    Checkpointer,
    CorruptCheckpoint,
    InvalidCheckpoint,
    InvalidKernel,
    MemoryStore,
    NoCheckpoint,
    NotNow,
    UnsupportedType,
)
from checkpointable.archive import entries, name_of
from checkpointable.store import Buffer
from tests.same import same
from tests.test_archive import damage
from tests.toys import Counter, CounterCheckpoint, after, finish


def test_a_save_says_what_it_did(tmp_path: Path) -> None:
    saved = finish(Checkpointer(after(5), tmp_path).save())
    assert (saved.step, saved.name) == (5, name_of(5))
    assert saved.bytes == (tmp_path / name_of(5)).stat().st_size
    assert 0 <= saved.stall <= saved.seconds


@given(st.integers(0, 30), st.integers(0, 30))
def test_resumed_equals_never_stopped(first: int, more: int) -> None:
    store = MemoryStore()
    finish(Checkpointer(after(first), store).save())
    fresh = Counter()
    restored = finish(Checkpointer(fresh, store).restore_latest())
    assert restored.step == first
    fresh.advance(more)
    assert same(fresh.total, after(first + more).total)


def test_a_step_can_be_restored_by_its_number() -> None:
    store, kernel = MemoryStore(), Counter()
    checkpointer = Checkpointer(kernel, store)
    for _ in range(3):
        kernel.advance(2)
        finish(checkpointer.save())
    finish(checkpointer.restore(4))
    assert kernel.step == 4
    with pytest.raises(NoCheckpoint, match="step 5"):
        finish(checkpointer.restore(5))


def test_an_empty_store_restores_nothing() -> None:
    kernel = after(3)
    assert finish(Checkpointer(kernel, MemoryStore()).restore_latest()) is None
    assert kernel.step == 3


def test_what_was_passed_over_is_said() -> None:
    store, kernel = MemoryStore(), after(1)
    finish(Checkpointer(kernel, store).save())
    kernel.advance(1)
    finish(Checkpointer(kernel, store).save())
    damage(store, name_of(2))
    restored = finish(Checkpointer(kernel, store).restore_latest())
    assert restored.step == kernel.step == 1
    ((entry, error),) = restored.skipped
    assert entry.step == 2
    assert isinstance(error, CorruptCheckpoint)


def test_a_kernel_that_never_can_gets_not_now_and_nothing_is_stored() -> None:
    kernel, store = after(3), MemoryStore()
    kernel.ready = False
    with pytest.raises(NotNow, match="Counter"):
        finish(Checkpointer(kernel, store, patience=0.02).save())
    assert entries(store) == []
    assert kernel.step == 3


def test_a_save_waits_until_the_kernel_can() -> None:
    class Busy(Counter):
        asked = 0

        def can_checkpoint(self) -> bool:
            self.asked += 1
            return self.asked > 3

    kernel = Busy()
    finish(Checkpointer(kernel, MemoryStore()).save())
    assert kernel.asked == 4


def test_a_restore_that_the_kernel_refuses_leaves_it_as_it_was() -> None:
    store = MemoryStore()
    finish(Checkpointer(after(5, size=4), store).save())
    kernel = after(2)
    with pytest.raises(InvalidCheckpoint, match="total"):
        finish(Checkpointer(kernel, store).restore_latest())
    assert same(kernel.total, after(2).total)
    assert kernel.step == 2


def test_a_kernel_without_steps_is_numbered_by_the_store() -> None:
    class Stepless:
        value = 1.0

        async def checkpoint(self) -> "StateOfStepless":
            return StateOfStepless(self.value)

        async def restore(self, checkpoint: "StateOfStepless") -> None:
            self.value = checkpoint.value

    kernel, store = Stepless(), MemoryStore()
    checkpointer = Checkpointer(kernel, store)
    steps = []
    for value in (1.0, 2.0, 3.0):
        kernel.value = value
        steps.append(finish(checkpointer.save()).step)
    assert steps == [0, 1, 2]
    kernel.value = 0.0
    finish(checkpointer.restore(1))
    assert kernel.value == 2.0


@attrs.frozen
class StateOfStepless:
    value: float


def test_kernel_and_class_are_checked_before_anything_runs() -> None:
    class Wrong:
        async def checkpoint(self) -> object:
            return object()

        async def restore(self, checkpoint: object) -> None: ...

    with pytest.raises(UnsupportedType):
        Checkpointer(Wrong(), MemoryStore())
    bad: Any = object()
    with pytest.raises(InvalidKernel):
        Checkpointer(bad, MemoryStore())


def test_a_kernel_that_returns_something_else_is_refused() -> None:
    class Liar(Counter):
        async def checkpoint(self) -> CounterCheckpoint:
            return None  # type: ignore[return-value]

    store = MemoryStore()
    with pytest.raises(InvalidCheckpoint, match="NoneType where CounterCheckpoint"):
        finish(Checkpointer(Liar(), store).save())
    assert entries(store) == []


class Held(MemoryStore):
    """A store whose `create` waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.let_go = threading.Event(), threading.Event()

    def create(self, name: str, size: int, chunks: Iterable[Buffer], /) -> None:
        self.entered.set()
        assert self.let_go.wait(60)
        super().create(name, size, chunks)


def test_a_cancelled_save_ends_before_it_says_so() -> None:
    store = Held()

    async def cancel_in_the_middle() -> None:
        task = asyncio.create_task(Checkpointer(after(3), store).save())
        assert await asyncio.to_thread(store.entered.wait, 60)
        task.cancel()
        await asyncio.wait([task], timeout=0)  # the cancellation is delivered
        store.let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [e.step for e in entries(store)] == [3]

    finish(cancel_in_the_middle())
