"""One kernel and one store."""

import asyncio
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointable import (
    Array,
    Checkpointer,
    CorruptCheckpoint,
    InvalidCheckpoint,
    InvalidKernel,
    LocalStore,
    MemoryStore,
    NoCheckpoint,
    NotNow,
    Saving,
    StoreFull,
    UnsupportedType,
    archive,
    load_file,
    save_file,
)
from checkpointable.archive import entries, load, name_of
from checkpointable.capture import arrays_of
from checkpointable.stores.protocol import Buffer, Reader
from tests.archive.test_archive import damage
from tests.helpers.equality import same
from tests.helpers.kernels import Counter, CounterCheckpoint, after, finish


def test_a_save_reports_its_result(tmp_path: Path) -> None:
    saved = finish(Checkpointer(after(5), tmp_path).save())
    assert (saved.step, saved.name) == (5, name_of(5))
    assert saved.bytes == (tmp_path / name_of(5)).stat().st_size
    assert 0 <= saved.stall <= saved.seconds


@given(st.integers(0, 30), st.integers(0, 30))
def test_a_resumed_run_equals_an_uninterrupted_one(first: int, more: int) -> None:
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


def test_skipped_checkpoints_are_reported() -> None:
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


def test_a_kernel_that_is_never_ready_raises_not_now_and_nothing_is_stored() -> None:
    kernel, store = after(3), MemoryStore()
    kernel.ready = False
    with pytest.raises(NotNow, match="Counter"):
        finish(Checkpointer(kernel, store, timeout=0.02).save())
    assert entries(store) == []
    assert kernel.step == 3


def test_a_save_waits_until_the_kernel_is_ready() -> None:
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
    class Wrong(Counter):
        async def checkpoint(self) -> CounterCheckpoint:
            return None  # type: ignore[return-value]

    store = MemoryStore()
    with pytest.raises(InvalidCheckpoint, match="expected CounterCheckpoint, got NoneType"):
        finish(Checkpointer(Wrong(), store).save())
    assert entries(store) == []


# --- concurrently with the computation ------------------------------------------------------------


class Held(MemoryStore):
    """A store whose `create` waits until it is released, and then fails if it has an error."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.entered, self.release, self.error = threading.Event(), threading.Event(), error

    def create(self, name: str, size: int, chunks: Iterable[Buffer], /) -> None:
        self.entered.set()
        assert self.release.wait(60)
        if self.error is not None:
            raise self.error
        super().create(name, size, chunks)


def test_the_kernel_continues_while_it_is_saved() -> None:
    store, kernel = Held(), after(3)

    async def advance_meanwhile() -> None:
        saving = await Checkpointer(kernel, store).save()
        kernel.advance(4)
        assert not saving.done()
        store.release.set()
        assert (await saving).step == 3
        assert saving.done()

    finish(advance_meanwhile())
    fresh = Counter()
    finish(Checkpointer(fresh, store).restore_latest())
    assert same(fresh.total, after(3).total)


@pytest.mark.parametrize("method", ["save", "restore_latest", "close"])
def test_the_next_call_waits_for_the_save(method: str) -> None:
    store = Held()
    checkpointer = Checkpointer(after(3), store)

    async def call_next() -> None:
        saving = await checkpointer.save()
        task = asyncio.create_task(getattr(checkpointer, method)())
        assert await asyncio.to_thread(store.entered.wait, 60)
        await asyncio.wait([task], timeout=0)
        assert not saving.done()
        assert not task.done()
        store.release.set()
        await task
        assert saving.done()

    finish(call_next())


def failed() -> tuple[Checkpointer[CounterCheckpoint], Saving]:
    """A checkpointer whose save has failed, and that can save again."""
    store = Held(StoreFull("no room"))
    store.release.set()
    checkpointer = Checkpointer(after(3), store)
    saving = asyncio.run(checkpointer.save())
    wait([saving._future])
    store.error = None
    return checkpointer, saving


@pytest.mark.parametrize("method", ["save", "restore_latest", "close"])
def test_the_next_call_raises_the_error_of_a_failed_save(method: str) -> None:
    checkpointer, _ = failed()
    with pytest.raises(StoreFull):
        asyncio.run(getattr(checkpointer, method)())
    assert finish(checkpointer.save()).step == 3


def test_an_error_retrieved_from_its_save_is_not_raised_again() -> None:
    checkpointer, saving = failed()
    for _ in range(2):
        with pytest.raises(StoreFull):
            saving.result()
    assert finish(checkpointer.save()).step == 3


def test_an_error_that_is_never_retrieved_is_a_warning() -> None:
    checkpointer, saving = failed()
    del checkpointer
    with pytest.warns(RuntimeWarning, match="never retrieved: no room"):
        saving.__del__()
    with pytest.raises(StoreFull):
        saving.result()


def test_async_with_ends_when_the_checkpoint_is_durable() -> None:
    store = MemoryStore()

    async def block() -> None:
        async with Checkpointer(after(3), store) as checkpointer:
            await checkpointer.save()

    finish(block())
    assert [e.step for e in entries(store)] == [3]


def test_cancelling_the_wait_does_not_cancel_the_save() -> None:
    store = Held()

    async def cancel_in_the_middle() -> None:
        saving = await Checkpointer(after(3), store).save()
        task = asyncio.ensure_future(saving)
        assert await asyncio.to_thread(store.entered.wait, 60)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        store.release.set()
        assert (await saving).step == 3

    finish(cancel_in_the_middle())


def test_a_cancelled_restore_raises_only_when_it_has_ended() -> None:
    """It may be writing into the kernel."""
    entered, release, ended = threading.Event(), threading.Event(), threading.Event()

    class Slow(MemoryStore):
        @contextmanager
        def open(self, name: str, /) -> Iterator[Reader]:
            entered.set()
            assert release.wait(60)
            with super().open(name) as reader:
                yield reader
            ended.set()

    store = Slow()
    finish(Checkpointer(after(3), store).save())

    async def cancel_in_the_middle() -> None:
        task = asyncio.create_task(Checkpointer(Counter(), store).restore_latest())
        assert await asyncio.to_thread(entered.wait, 60)
        task.cancel()
        await asyncio.wait([task], timeout=0)  # the cancellation is delivered
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    finish(cancel_in_the_middle())


# --- memory ---------------------------------------------------------------------------------------


class Large(Counter):
    """A kernel whose arrays are large enough to be staged; it records where its copies are."""

    def __init__(self) -> None:
        super().__init__(size=1 << 16)
        self.copies: list[int] = []
        self.kept: CounterCheckpoint | None = None

    async def checkpoint(self) -> CounterCheckpoint:
        checkpoint = await super().checkpoint()
        self.copies.append(np.asarray(checkpoint.total).ctypes.data)
        return checkpoint


def test_the_memory_of_a_snapshot_is_reused() -> None:
    kernel, store = Large(), MemoryStore()
    checkpointer = Checkpointer(kernel, store)
    for _ in range(3):
        kernel.advance(1)
        finish(checkpointer.save())
    assert len({*kernel.copies}) == 1
    assert [load(store, e.name, CounterCheckpoint).step for e in entries(store)] == [1, 2, 3]


def test_the_memory_of_a_snapshot_that_is_kept_is_not_reused() -> None:
    class Keeps(Large):
        async def checkpoint(self) -> CounterCheckpoint:
            self.kept = checkpoint = await super().checkpoint()
            return checkpoint

    kernel = Keeps()
    checkpointer = Checkpointer(kernel, MemoryStore())
    finish(checkpointer.save())
    first = kernel.kept
    kernel.advance(1)
    finish(checkpointer.save())
    assert first is not None
    assert same(first.total, np.zeros(1 << 16, np.int64))


def test_a_kernel_may_return_a_buffer_that_it_replaces() -> None:
    class Replaces:
        """A kernel that never writes into an array that it has returned."""

        def __init__(self) -> None:
            self.step, self.total = 0, np.zeros(1 << 16, np.int64)

        def advance(self, steps: int) -> None:
            self.step += steps
            self.total = self.total + steps

        async def checkpoint(self) -> CounterCheckpoint:
            return CounterCheckpoint(self.step, self.total)

        async def restore(self, checkpoint: CounterCheckpoint) -> None: ...

    kernel, store = Replaces(), Held()
    saving = asyncio.run(Checkpointer(kernel, store).save())
    kernel.advance(1)
    store.release.set()
    assert same(load(store, saving.result().name, CounterCheckpoint).total, kernel.total - 1)


# --- in place -------------------------------------------------------------------------------------


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 9))
def test_a_restore_in_place_equals_any_other(saved: int, now: int, size: int) -> None:
    store, kernel = MemoryStore(), after(now, size)
    finish(Checkpointer(after(saved, size), store).save())
    memory = kernel.total
    finish(Checkpointer(kernel, store, in_place=True).restore_latest())
    assert kernel.total is memory
    assert same((kernel.step, kernel.total), (saved, after(saved, size).total))


def test_in_place_nothing_is_copied() -> None:
    store, kernel = MemoryStore(), after(2)
    finish(Checkpointer(after(5), store).save())
    loaded = archive.latest(store, CounterCheckpoint, into=arrays_of(CounterCheckpoint, kernel))
    assert loaded is not None
    assert loaded.checkpoint.total is kernel.total


def test_in_place_nothing_changes_unless_everything_fits(tmp_path: Path) -> None:
    @attrs.frozen
    class Two:
        first: Array[np.int64]
        second: Array[np.int64]

    class Kernel:
        first, second = np.zeros(3, np.int64), np.zeros(4, np.int64)

    save_file(Two(np.ones(3, np.int64), np.ones(5, np.int64)), tmp_path / "two")
    kernel = Kernel()
    assert same(
        load_file(tmp_path / "two", Two, into=kernel).second,
        np.ones(5, np.int64),
    )
    assert same(kernel.first, np.zeros(3, np.int64))


def test_after_damage_an_older_checkpoint_is_restored_in_place(tmp_path: Path) -> None:
    store, kernel = LocalStore(tmp_path), after(9)
    for step in (3, 5):
        finish(Checkpointer(after(step), store).save())
    damage(store, name_of(5), 4096)
    restored = finish(Checkpointer(kernel, store, in_place=True).restore_latest())
    assert (restored.step, len(restored.skipped)) == (3, 1)
    assert same((kernel.step, kernel.total), (3, after(3).total))
