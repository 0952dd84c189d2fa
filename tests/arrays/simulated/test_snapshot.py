"""Copies of device arrays: on the device, in pinned memory, in any memory."""

import asyncio
import gc
import threading
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import cuda

from checkpointable import Array, LazyArray, capture, reinstate
from checkpointable.arrays.cuda import memory, snapshot, transfer
from checkpointable.arrays.staging import Staging, Way
from tests.arrays.simulated.test_moves import content, on_device, views
from tests.helpers.equality import same

WAYS: list[Way] = ["device", "pinned", "sliced"]
RESERVE = 1000


class Room:
    """How much memory is free on the device and on the host."""

    def __init__(self) -> None:
        self.device = 1e9
        self.host = 1e9

    def only(self, way: Way) -> None:
        self.device = 0.0 if way != "device" else 1e9
        self.host = 0.0 if way == "sliced" else 1e9


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    room = Room()
    monkeypatch.setattr(memory, "free", lambda: room.device)
    monkeypatch.setattr(snapshot, "_available", lambda: room.host)
    monkeypatch.setattr(transfer, "BUFFER", 512)
    monkeypatch.setattr(transfer, "_spare", [])
    return room


def copied(staging: Staging | None, **arrays: Any) -> dict[str, Any]:
    copies, wait = snapshot.begin(arrays, None, staging)
    wait()
    return copies


@pytest.mark.parametrize("way", WAYS)
@given(given_views=st.lists(views(), max_size=3))
def test_the_copies_are_equal_in_every_way(
    room: Room, way: Way, given_views: list[np.ndarray[Any, Any]]
) -> None:
    room.only(way)
    staging = Staging(RESERVE)
    arrays = {f"a{i}": on_device(view) for i, view in enumerate(given_views)}
    before = [content(view) for view in given_views]
    copies = copied(staging, **arrays)
    for view in given_views:
        view.view(f"V{view.itemsize}")[...] = np.void(bytes(view.itemsize))
    assert [*copies] == [*arrays]
    assert [content(np.asarray(copy)) for copy in copies.values()] == before
    assert [copy.shape for copy in copies.values()] == [view.shape for view in given_views]
    assert [copy.dtype for copy in copies.values()] == [view.dtype for view in given_views]
    assert staging.snapshot is not None
    assert staging.snapshot.way == way or not before
    assert staging.snapshot.bytes == sum(map(len, before))


def test_it_stays_on_the_device_where_there_is_room() -> None:
    copy = copied(Staging(RESERVE), a=cuda.to_device(np.arange(9)))["a"]
    assert isinstance(copy, LazyArray)
    assert copy.region is not None
    assert same(copy[2:5], np.arange(2, 5))


def test_without_staging_it_is_a_numpy_array() -> None:
    assert same(copied(None, a=cuda.to_device(np.arange(9)))["a"], np.arange(9))


@pytest.mark.parametrize(("free", "way"), [(RESERVE + 800, "device"), (RESERVE + 799, "pinned")])
def test_the_reserve_stays_free(room: Room, free: float, way: Way) -> None:
    room.device = free
    staging = Staging(RESERVE)
    copied(staging, a=cuda.to_device(np.arange(100.0)))
    assert staging.snapshot is not None
    assert staging.snapshot.way == way


@pytest.mark.parametrize(("host", "way"), [(1600, "pinned"), (1599, "sliced")])
def test_no_more_than_half_of_the_memory_is_pinned(room: Room, host: float, way: Way) -> None:
    room.device, room.host = 0, host
    staging = Staging(RESERVE)
    copied(staging, a=cuda.to_device(np.arange(100.0)))
    assert staging.snapshot is not None
    assert staging.snapshot.way == way


def test_without_pinned_memory_it_is_sliced(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(size: int) -> Any:
        raise MemoryError

    monkeypatch.setattr(memory, "pinned", none)
    room.device, staging, array = 0, Staging(RESERVE), np.arange(10_000.0)
    assert same(copied(staging, a=cuda.to_device(array))["a"], array)
    assert staging.snapshot is not None
    assert staging.snapshot.way == "sliced"


def test_memory_that_is_not_in_use_is_reused() -> None:
    staging, array = Staging(RESERVE), cuda.to_device(np.arange(100.0))
    first = copied(staging, a=array)["a"].region
    address = first.address
    part = first.part(8, 8)
    del first
    assert copied(staging, a=array)["a"].region.address != address
    del part
    addresses = [copied(staging, a=array)["a"].region.address for _ in range(3)]
    assert len({*addresses}) == 1


def test_memory_that_is_not_wanted_is_freed() -> None:
    staging = Staging(RESERVE)
    copied(staging, a=cuda.to_device(np.arange(1000.0)), b=cuda.to_device(np.arange(9)))
    copied(staging, b=cuda.to_device(np.arange(9)))
    assert [slab.size for slab in staging.arena._slabs] == [256]


def test_a_copy_is_predicted_by_the_last_one_of_the_same_way(room: Room) -> None:
    staging, array = Staging(RESERVE), cuda.to_device(np.arange(100.0))
    copied(staging, a=array)
    first = staging.snapshot
    copied(staging, a=array, b=array)
    second = staging.snapshot
    room.only("pinned")
    copied(staging, a=cuda.to_device(np.arange(2000.0)))
    third = staging.snapshot
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.predicted, third.predicted) == (None, None)
    assert second.predicted == pytest.approx(2 * first.seconds)


@attrs.frozen
class State:
    a: Array[np.float64]
    b: Array[np.int32]


class Kernel:
    def __init__(self) -> None:
        self.a = cuda.to_device(np.arange(50.0))
        self.b = cuda.to_device(np.arange(40, dtype=np.int32).reshape(5, 8))[::2, ::3]


class Held:
    """A wait that ends when it is released."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.waits = threading.Event()

    def __call__(self) -> None:
        self.waits.set()
        assert self.may.wait(60)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    done = Held()
    monkeypatch.setattr(memory, "done", lambda stream, *kept: done)
    return done


def test_the_event_loop_continues_while_the_device_copies(held: Held) -> None:
    async def main() -> State:
        task = asyncio.ensure_future(capture(State, Kernel()))
        while not held.waits.is_set():
            await asyncio.sleep(0)
        assert not task.done()
        held.may.set()
        return await task

    assert same(np.asarray(asyncio.run(main()).a), np.arange(50.0))


@pytest.mark.parametrize("what", ["capture", "reinstate"])
def test_a_cancelled_task_waits_for_the_device(held: Held, what: str) -> None:
    state = State(np.zeros(50), np.zeros((3, 3), np.int32))

    async def main() -> None:
        kernel = Kernel()
        work: Any = capture(State, kernel) if what == "capture" else reinstate(state, kernel)
        task = asyncio.ensure_future(work)
        while not held.waits.is_set():
            await asyncio.sleep(0)
        task.cancel()
        for _ in range(100):
            await asyncio.sleep(0)
        assert not task.done()
        held.may.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


@given(st.integers(0, 9))
def test_device_arrays_are_restored_on_their_device(seed: int) -> None:
    kernel, other, staging = Kernel(), Kernel(), Staging(RESERVE)
    noise = np.random.default_rng(seed)
    kernel.a.copy_to_device(noise.random(50))
    with staging.in_use():
        state = asyncio.run(capture(State, kernel))
    assert isinstance(state.a, LazyArray)
    arrays = other.a, other.b
    other.b[0, 0] = 99
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "_start", None)  # nothing goes by way of the host
        asyncio.run(reinstate(state, other))
    assert arrays[0] is other.a
    assert arrays[1] is other.b
    assert same(other.a.copy_to_host(), kernel.a.copy_to_host())
    assert np.array_equal(other.b.copy_to_host(), kernel.b.copy_to_host())


def test_a_snapshot_is_freed_with_the_last_reference() -> None:
    staging = Staging(RESERVE)
    copy = copied(staging, a=cuda.to_device(np.arange(100.0)))["a"]
    reshaped = copy.reshape(10, 10).astype(np.float32)
    del copy
    assert staging.arena._slabs[0].used() is not None
    del reshaped
    gc.collect()
    assert staging.arena._slabs[0].used() is None
