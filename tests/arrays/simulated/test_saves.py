"""Saves and restores of kernels on a device, all the way."""

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any, TypeVar

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import cuda

from checkpointable import (
    Array,
    Checkpointer,
    CorruptCheckpoint,
    DeviceError,
    DeviceLost,
    MemoryStore,
    NoCheckpoint,
    Saved,
    archive,
    capture,
    reinstate,
)
from checkpointable.arrays.cuda import lost, memory, transfer
from checkpointable.format import read_arrays
from checkpointable.stores.protocol import Buffer
from tests.helpers.depth import NARROW
from tests.helpers.equality import same
from tests.helpers.small_blocks import small_blocks

BLOCK = 64
R = TypeVar("R")


@attrs.frozen
class State:
    step: int
    field: Array[np.float32]
    small: Array[np.int8]
    slanted: Array[np.int16]
    total: Array[np.int64]


class Kernel:
    """Three device arrays, one of them a view with strides, and one on the host."""

    def __init__(self, seed: int = 0) -> None:
        noise = np.random.default_rng(seed)
        self.step = 0
        self.checkpoints = 0
        self.field = cuda.to_device(noise.random((25, 20)).astype(np.float32))
        self.small = cuda.to_device(noise.integers(-9, 9, 7, np.int8))
        self.slanted = cuda.to_device(noise.integers(-9, 9, (12, 18), np.int16))[::-2, ::3]
        self.total = noise.integers(0, 9, 30)

    async def checkpoint(self) -> State:
        self.checkpoints += 1
        return await capture(State, self)

    async def restore(self, checkpoint: State) -> None:
        await reinstate(checkpoint, self)

    def now(self) -> State:
        arrays = (self.field, self.small, self.slanted)
        copies: list[Any] = [np.array(array.copy_to_host()) for array in arrays]
        field, small, slanted = copies
        return State(self.step, field, small, slanted, self.total.copy())


def wait(work: Coroutine[Any, Any, R]) -> R:
    return asyncio.run(work)


def save(checkpointer: Checkpointer[State], step: int, **how: Any) -> Saved:
    async def both() -> Saved:
        return await (await checkpointer.save(step, **how))

    return wait(both())


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(transfer, "BUFFER", 512)
    monkeypatch.setattr(transfer, "_spare", [])
    monkeypatch.setattr(lost, "_lost", [])
    with small_blocks(BLOCK):
        yield


changes = st.lists(st.tuples(st.integers(0, 499), st.floats(0, 9, width=32)), max_size=4)


@settings(max_examples=20)  # the simulator is slow; on the host the same is tested with all
@given(st.lists(changes, max_size=5), st.booleans())
def test_every_save_is_the_kernel_as_it_was(rounds: list[Any], delta: bool) -> None:
    kernel, store = Kernel(), MemoryStore()
    checkpointer = Checkpointer(kernel, store, delta=delta)
    states = []
    for step, touched in enumerate(rounds):
        for place, value in touched:
            kernel.field[place // 20, place % 20] = value
        kernel.step = step
        save(checkpointer, step)
        states.append(kernel.now())
    for step, state in enumerate(states):
        loaded = archive.at_step(store, step, State)
        assert same(loaded.checkpoint, state)
        archive.verify(store, loaded.entry.name)
        other = Kernel(seed=1)
        wait(Checkpointer(other, store).restore(step))
        assert same(other.now(), state)


@NARROW
@given(changes)
def test_only_changed_blocks_leave_the_device(touched: list[tuple[int, float]]) -> None:
    kernel, store = Kernel(), MemoryStore()
    checkpointer = Checkpointer(kernel, store, delta=True)
    save(checkpointer, 0)
    before = kernel.field.copy_to_host().reshape(-1).view(np.uint8)
    for place, value in touched:
        kernel.field[place // 20, place % 20] = value
    after = kernel.field.copy_to_host().reshape(-1).view(np.uint8)
    changed = {int(place) // BLOCK for place in np.flatnonzero(before != after)}
    with pytest.MonkeyPatch.context() as patch:
        fetched: list[int] = []
        start = transfer._start

        def started(pieces: Any, *rest: Any) -> Any:
            fetched.extend(piece.size for piece in pieces if not isinstance(piece, memoryview))
            return start(pieces, *rest)

        patch.setattr(transfer, "_start", started)
        saved = save(checkpointer, 1)
    header = archive.read_header(store, saved.name)
    assert {*header.arrays["field"].own()} == changed
    sizes = [header.arrays["field"].size(index) for index in changed]
    assert sum(fetched) == sum(sizes)


class Slow(MemoryStore):
    """A store that waits until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()

    def create(self, name: str, size: int, chunks: Iterable[Buffer], /) -> None:
        def held() -> Iterator[Buffer]:
            assert self.may.wait(60)
            yield from chunks

        super().create(name, size, held())


def test_the_kernel_continues_while_it_is_stored() -> None:
    kernel, store = Kernel(), Slow()
    before = kernel.now()

    async def main() -> None:
        saving = await Checkpointer(kernel, store).save(0)
        kernel.field.copy_to_device(np.zeros((25, 20), np.float32))
        kernel.slanted[0, 0] = 99
        kernel.total[:] = 0
        store.may.set()
        await saving

    wait(main())
    assert same(archive.at_step(store, 0, State).checkpoint, before)


def test_a_save_reports_the_way_of_its_copy() -> None:
    saved = save(Checkpointer(Kernel(), MemoryStore()), 0)
    assert saved.snapshot is not None
    assert saved.snapshot.way == "device"
    assert saved.snapshot.bytes == 25 * 20 * 4 + 7 + 6 * 6 * 2
    assert 0 < saved.snapshot.seconds <= saved.stall


def test_a_signed_save_is_the_kernel_as_it_was() -> None:
    kernel, store, key = Kernel(), MemoryStore(), bytes(range(16))
    save(Checkpointer(kernel, store, key=key), 0)
    assert same(archive.at_step(store, 0, State, key=key).checkpoint, kernel.now())
    other = Kernel(seed=1)
    wait(Checkpointer(other, store, key=key).restore_latest())
    assert same(other.now(), kernel.now())


class Rotten(MemoryStore):
    """Changes one byte of a blob."""

    def change(self, name: str, at: int) -> None:
        self._blobs[name][0][at] ^= 1


@NARROW
@given(st.integers(0, 25 * 20 * 4 - 1))
def test_damage_is_detected_on_the_device_and_the_checkpoint_skipped(at: int) -> None:
    kernel, store = Kernel(), Rotten()
    checkpointer = Checkpointer(kernel, store)
    save(checkpointer, 0)
    first = kernel.now()
    kernel.field[3, 3] = 99
    newest = save(checkpointer, 1).name
    placed = archive.read_header(store, newest).arrays["field"]
    store.change(newest, archive.read_header(store, newest).data_offset + placed.offset + at)
    kernel.field[4, 4] = 77
    restored = wait(checkpointer.restore_latest())
    assert restored is not None
    assert same(kernel.now(), first)
    ((entry, error),) = restored.skipped
    assert entry.name == newest
    assert f"array 'field', block {at // BLOCK} of 32" in error.where


def test_damage_in_a_host_array_is_detected_before_the_kernel_has_it() -> None:
    kernel, store = Kernel(), Rotten()
    checkpointer = Checkpointer(kernel, store)
    name = save(checkpointer, 0).name
    header = archive.read_header(store, name)
    store.change(name, header.data_offset + header.arrays["total"].offset + 100)
    kernel.total[:] = 7
    before = kernel.now()
    with pytest.raises(CorruptCheckpoint, match=r"array 'total', block 1 of 4"):
        wait(checkpointer.restore(0))
    assert same(kernel.now(), before)


def test_damage_on_the_way_is_detected_before_the_kernel_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel, store = Kernel(), MemoryStore()
    checkpointer = Checkpointer(kernel, store)
    save(checkpointer, 0)
    kernel.field[4, 4] = 77
    kernel.total[:] = 5
    before, read = kernel.now(), read_arrays._read_unchecked

    def bent(checkpoint: Any, placed: Any, index: int, buffer: memoryview, begin: int = 0) -> str:
        source = read(checkpoint, placed, index, buffer, begin)
        if (placed.name, index) == ("field", 30):
            buffer[5] ^= 8
        return source

    monkeypatch.setattr(read_arrays, "_read_unchecked", bent)
    with pytest.raises(CorruptCheckpoint, match=r"array 'field', block 30 of 32"):
        wait(checkpointer.restore(0))
    with pytest.raises(NoCheckpoint):
        wait(checkpointer.restore_latest())
    assert same(kernel.now(), before)


@pytest.mark.parametrize("free", [0.0, 1e9])
def test_a_restore_needs_no_room_on_the_device(
    monkeypatch: pytest.MonkeyPatch, free: float
) -> None:
    kernel, other, store = Kernel(), Kernel(seed=1), MemoryStore()
    save(Checkpointer(kernel, store), 0)
    monkeypatch.setattr(memory, "free", lambda: free)
    checkpointer = Checkpointer(other, store)
    wait(checkpointer.restore_latest())
    assert same(other.now(), kernel.now())
    assert bool(checkpointer._staging.arena._slabs) == bool(free)


def test_a_checkpoint_that_does_not_fit_changes_nothing() -> None:
    kernel, other, store = Kernel(), Kernel(seed=1), MemoryStore()
    save(Checkpointer(kernel, store), 0)
    other.small = cuda.to_device(np.zeros(8, np.int8))
    before = other.now()
    with pytest.raises(Exception, match="the checkpoint holds int8 of shape"):
        wait(Checkpointer(other, store).restore_latest())
    assert same(other.now(), before)


class CudaAPIError(Exception):
    """An error like those of Numba's driver."""

    def __init__(self, code: int) -> None:
        super().__init__(f"[{code}] call failed")
        self.code = code


def failing(code: int) -> Any:
    def fail(*_: object) -> None:
        raise CudaAPIError(code)

    return fail


def test_after_an_error_that_the_context_survives_saves_continue() -> None:
    kernel, store = Kernel(), MemoryStore()
    checkpointer = Checkpointer(kernel, store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "done", failing(1))
        with pytest.raises(DeviceError, match=r"\[1\]"):
            save(checkpointer, 0)
    assert [*store.list()] == []
    save(checkpointer, 1)
    assert same(archive.at_step(store, 1, State).checkpoint, kernel.now())


@pytest.mark.parametrize("code", [700, 719])
@pytest.mark.parametrize("where", ["done", "to_host"])
def test_after_an_error_that_it_does_not_survive_nothing_is_saved(code: int, where: str) -> None:
    """Neither while the kernel is copied, nor while the copy is stored."""
    kernel, store = Kernel(), MemoryStore()
    checkpointer = Checkpointer(kernel, store)
    save(checkpointer, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, where, failing(code))
        with pytest.raises(DeviceLost, match="restart the process"):
            save(checkpointer, 1)
    checkpoints = kernel.checkpoints
    with pytest.raises(DeviceLost, match="restart the process"):
        save(checkpointer, 2)
    assert kernel.checkpoints == checkpoints
    assert [entry.step for entry in archive.entries(store)] == [0]
