"""What the stand-in for the driver shows and Numba's simulator cannot. See `nox -s driver`."""

# mypy: allow-untyped-decorators, allow-untyped-calls
# pyright: reportCallIssue=false, reportIndexIssue=false, reportMissingImports=false, reportArgumentType=false

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from checkpointable import (
    Array,
    Checkpointer,
    DeviceError,
    DeviceLost,
    MemoryStore,
    Saved,
    archive,
    capture,
    reinstate,
)

if "tests.driver.plugin" not in sys.modules:
    pytest.skip("needs `-p tests.driver.plugin`", allow_module_level=True)

from numba import cuda

from checkpointable.arrays.cuda import lost, memory, snapshot
from checkpointable.arrays.staging import Staging
from tests.arrays.test_gpu import Foreign, fill_late
from tests.driver.driver import DEVICES, DRIVER, TOTAL
from tests.helpers.equality import same

STICKY = [214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911, 999]


@pytest.fixture(autouse=True)
def working() -> Iterator[None]:
    yield
    DRIVER.lost = 0
    DRIVER.room = [TOTAL] * DEVICES
    DRIVER.capturing = None
    lost._lost.clear()


@attrs.frozen
class State:
    fields: list[Array[np.float32]]


class Kernel:
    """Arrays of which some are slices, by turns on each device that is given."""

    def __init__(self, count: int, devices: tuple[int, ...] = (0,), stream: Any = None) -> None:
        self.step, self.stream, self.fields = 0, stream, list[Any]()
        rng = np.random.default_rng(count)
        for i in range(count):
            with cuda.gpus[devices[i % len(devices)]]:
                whole = cuda.to_device(rng.random((70 + i % 7, 9), np.float32))
                self.fields.append(whole[:, 1:8] if i % 3 == 2 else whole)

    async def checkpoint(self) -> State:
        return await capture(State, self)

    async def restore(self, checkpoint: State) -> None:
        await reinstate(checkpoint, self)

    def now(self) -> State:
        return State([on_host(field) for field in self.fields])


def on_host(field: Any) -> np.ndarray[Any, Any]:
    return captured(field)


def save(checkpointer: Checkpointer[Any], step: int) -> Saved:
    async def both() -> Saved:
        return await (await checkpointer.save(step))

    return asyncio.run(both())


def stored(store: Any, step: int) -> State:
    found = archive.at_step(store, step, State).checkpoint
    return State([np.asarray(field) for field in found.fields])


def run(program: str, **environment: str) -> None:
    """Run a program on the stand-in in a process of its own."""
    code = "import tests.driver.plugin\nfrom tests.driver.test_driver import *\n" + program
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", code]
    ended = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=os.environ | environment,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr


# --- devices and contexts -------------------------------------------------------------------------

ONLY_THE_SECOND = """
cuda.select_device(1)
kernel = Kernel(4, (1,))
checkpointer = Checkpointer(kernel, MemoryStore(), delta=True)
for step in range(3):
    save(checkpointer, step)
before = kernel.now()
with cuda.gpus[1]:
    kernel.fields[0].copy_to_device(np.zeros(kernel.fields[0].shape, np.float32))
asyncio.run(checkpointer.restore(1))
assert same(kernel.now(), before)
assert DRIVER.contexts == {1}, DRIVER.contexts
assert not DRIVER.complaints, DRIVER.complaints
"""


def test_a_kernel_on_the_second_device_makes_no_context_on_the_first() -> None:
    run(ONLY_THE_SECOND, DRIVER_DEVICES="2")


@pytest.mark.skipif(DEVICES < 2, reason="needs DRIVER_DEVICES=2")
@pytest.mark.parametrize("streams", ["none", "of one device", "of both"])
def test_arrays_on_two_devices(streams: str) -> None:
    made = []
    for device in range(2):
        with cuda.gpus[device]:
            made.append(cuda.stream())
    stream = {"none": None, "of one device": made[1], "of both": made}[streams]
    kernel, store = Kernel(7, (0, 1), stream), MemoryStore()
    checkpointer = Checkpointer(kernel, store, delta=True)
    for device in range(2):
        field = kernel.fields[device]
        with cuda.gpus[device]:
            late = made[device] if streams == "of both" else 0
            fill_late[128, 128, late](field.reshape(field.size), 1)
    expected = kernel.now()
    assert np.all(expected.fields[0] == np.float32(2))
    save(checkpointer, 0)
    assert same(stored(store, 0), expected)
    other = Kernel(7, (1, 0), None)
    asyncio.run(Checkpointer(other, store).restore_latest())
    assert same(other.now(), expected)


LIKE_RMM = """
from cuda.bindings import driver
from numba.cuda import GetIpcHandleMixin, HostOnlyCUDAMemoryManager, MemoryPointer

class Manager(GetIpcHandleMixin, HostOnlyCUDAMemoryManager):
    interface_version = 1
    def initialize(self): pass
    def get_memory_info(self): raise NotImplementedError
    def memalloc(self, size):
        pointer = driver.cuMemAlloc(size)[1]
        free = lambda: driver.cuMemFree(pointer)
        return MemoryPointer(self.context, pointer, size, finalizer=free)

cuda.set_memory_manager(Manager)
kernel, store = Kernel(4), MemoryStore()
saved = save(Checkpointer(kernel, store), 0)
assert saved.snapshot.way == "device"
assert same(stored(store, 0), kernel.now())
"""


def test_a_memory_manager_that_does_not_know_what_is_free() -> None:
    """As RMM's."""
    run(LIKE_RMM)


# --- order ----------------------------------------------------------------------------------------


def side_stream() -> Any:
    with memory.on_device(0):
        return memory.side_stream()


def late_field(stream: Any) -> Any:
    field = cuda.to_device(np.zeros(1 << 12, np.float32))
    fill_late[128, 128, stream](field, 1)
    return field


def captured(field: Any, stream: Any = None) -> np.ndarray[Any, Any]:
    kernel = Kernel(0, stream=stream)
    kernel.fields = [field]
    return np.asarray(asyncio.run(kernel.checkpoint()).fields[0])


def test_where_no_stream_is_known_the_context_is_synchronized() -> None:
    assert (captured(Foreign(late_field(side_stream()))) == 2).all()


def test_with_a_stream_nothing_else_is_waited_for() -> None:
    other, own = side_stream(), side_stream()
    busy, field = late_field(other), late_field(own)
    before = DRIVER.calls["cuCtxSynchronize"]
    assert (captured(field, own) == 2).all()
    assert DRIVER.calls["cuCtxSynchronize"] == before
    del busy


def test_default_streams_of_other_threads_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PER_THREAD", True)
    before = DRIVER.calls["cuCtxSynchronize"]
    captured(late_field(0))
    assert DRIVER.calls["cuCtxSynchronize"] == before + 1


class InFlight(Foreign):
    """An array that is computed only when it is waited for, as one of JAX may be."""

    __module__ = "jaxlib"

    def block_until_ready(self) -> None:
        stream = side_stream()
        fill_late[128, 128, stream](self.array, 1)
        stream.synchronize()


def test_arrays_of_jax_are_waited_for() -> None:
    assert (captured(InFlight(cuda.to_device(np.zeros(1 << 12, np.float32)))) == 2).all()


def test_a_save_does_not_disturb_the_capture_of_a_graph() -> None:
    """Complaints of the stand-in fail the test."""
    kernel, store = Kernel(5), MemoryStore()
    checkpointer = Checkpointer(kernel, store)

    async def main() -> None:
        saving = await checkpointer.save(0)
        DRIVER.capturing = 0
        await saving

    asyncio.run(main())
    DRIVER.capturing = None
    assert same(stored(store, 0), kernel.now())


# --- the stall ------------------------------------------------------------------------------------


def stall(checkpointer: Checkpointer[Any], step: int) -> dict[str, int]:
    """The calls of the driver while the kernel stands still."""
    found: dict[str, int] = {}
    kernel = checkpointer.kernel
    checkpoint = kernel.checkpoint

    async def counted() -> Any:
        before = DRIVER.calls.copy()
        state = await checkpoint()
        found.update(DRIVER.calls - before)
        return state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "checkpoint", counted)
        save(checkpointer, step)
    return found


def test_nothing_is_compiled_in_the_first_stall() -> None:
    kernel = Kernel(6)
    checkpointer = Checkpointer(kernel, MemoryStore())
    assert "cuLibraryLoadData" not in stall(checkpointer, 0)


def test_a_stall_takes_no_more_calls_for_more_arrays() -> None:
    counts = []
    for count in (9, 900):
        checkpointer = Checkpointer(Kernel(count), MemoryStore())
        stall(checkpointer, 0)
        counts.append(stall(checkpointer, 1))
    launches = ["cuLaunchKernelEx", "cuMemcpyDtoDAsync", "cuMemcpyHtoDAsync", "cuMemAlloc"]
    few, many = ([found.get(name, 0) for name in launches] for found in counts)
    assert few == many
    assert few[0] <= 2  # one for the packed arrays, one for the slices


def test_small_arrays_in_the_pinned_way_do_not_stop_the_event_loop() -> None:
    staging, kernel = Staging(reserve=1 << 60), Kernel(5)
    DRIVER.pageable.clear()
    copies, wait = snapshot.begin({str(i): f for i, f in enumerate(kernel.fields)}, None, staging)
    assert not DRIVER.pageable
    wait()
    assert staging.snapshot is not None
    assert staging.snapshot.way == "pinned"
    assert same(State([np.asarray(copy) for copy in copies.values()]), kernel.now())


def test_memory_is_pinned_outside_the_event_loop() -> None:
    kernel, threads = Kernel(5), []
    checkpointer = Checkpointer(kernel, MemoryStore(), reserve=1 << 60)
    original = memory.pinned

    def pinned(size: int) -> Any:
        threads.append(threading.current_thread())
        return original(size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "pinned", pinned)
        save(checkpointer, 0)
    assert threads
    assert threading.main_thread() not in threads


# --- memory ---------------------------------------------------------------------------------------


def test_out_of_memory_half_way() -> None:
    """The second device, or the only one, has no room: the copies go to pinned memory."""
    devices = (0, 1) if DEVICES > 1 else (0,)
    kernel, store = Kernel(6, devices), MemoryStore()
    checkpointer = Checkpointer(kernel, store)
    DRIVER.fail("cuMemAlloc", 2, after=len(devices) - 1, times=2)  # Numba tries once more
    saved = save(checkpointer, 0)
    assert saved.snapshot is not None
    assert saved.snapshot.way == "pinned"
    assert same(stored(store, 0), kernel.now())
    again = save(checkpointer, 1)
    assert again.snapshot is not None
    assert again.snapshot.way == "device"


def test_memory_that_is_not_wanted_any_more_is_given_back() -> None:
    kernel = Kernel(4)
    kernel.fields.append(cuda.device_array(8 << 20, np.float32))
    checkpointer = Checkpointer(kernel, MemoryStore())
    save(checkpointer, 0)
    kernel.fields.pop()
    before = sum(size for size, _, _ in DRIVER.memory.values())
    save(checkpointer, 1)
    assert before - sum(size for size, _, _ in DRIVER.memory.values()) >= 64 << 20


def test_without_pinned_memory_a_save_succeeds() -> None:
    kernel, store = Kernel(5), MemoryStore()
    checkpointer = Checkpointer(kernel, store)
    checkpointer.release()
    DRIVER.fail("cuMemHostAlloc", 2, times=50)
    save(checkpointer, 0)
    DRIVER.fail("cuMemHostAlloc", 2, times=0)
    assert same(stored(store, 0), kernel.now())
    checkpointer.release()


def test_what_is_released_is_given_back() -> None:
    kernel = Kernel(5)
    checkpointer = Checkpointer(kernel, MemoryStore(), reserve=1 << 60)
    checkpointer.release()
    before = sum(size for size, _ in DRIVER.pinned.values())
    save(checkpointer, 0)
    assert sum(size for size, _ in DRIVER.pinned.values()) > before
    checkpointer.release()
    assert sum(size for size, _ in DRIVER.pinned.values()) <= before


def test_a_snapshot_is_dropped_by_a_thread_without_a_context() -> None:
    kernel, staging = Kernel(4), Staging()
    with staging.in_use():
        held = [asyncio.run(kernel.checkpoint())]
    staging.arena.release()
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    with memory.on_device(0):
        memory.collect()


# --- a lost device --------------------------------------------------------------------------------


def test_an_error_that_the_context_survives() -> None:
    kernel, store = Kernel(4), MemoryStore()
    checkpointer = Checkpointer(kernel, store)
    DRIVER.fail("cuLaunchKernelEx", 1)
    with pytest.raises(DeviceError, match="CUDA_ERROR_INVALID_VALUE"):
        save(checkpointer, 0)
    save(checkpointer, 1)
    assert [entry.step for entry in archive.entries(store)] == [1]


@pytest.mark.parametrize("code", STICKY)
def test_each_error_that_no_context_survives(code: int) -> None:
    check_lost("cuLaunchKernelEx", code, 0)


@pytest.mark.parametrize(
    ("name", "after"),
    [("cuEventRecord", 0), ("cuEventSynchronize", 0), ("cuLaunchKernelEx", 2),
     ("cuMemcpyDtoHAsync", 0), ("cuMemcpyDtoHAsync", 1), ("cuEventSynchronize", 1)],
)  # fmt: skip
def test_a_device_lost_in_a_copy_a_digest_or_a_download(name: str, after: int) -> None:
    check_lost(name, 700, after)


def check_lost(name: str, code: int, after: int) -> None:
    kernel, store = Kernel(4), MemoryStore()
    checkpointer = Checkpointer(kernel, store)
    save(checkpointer, 0)
    DRIVER.fail(name, code, after=after)
    for step in (1, 2):
        with pytest.raises(DeviceLost, match="restart the process"):
            save(checkpointer, step)
    assert [entry.step for entry in archive.entries(store)] == [0]


@pytest.mark.parametrize("name", ["cuMemcpyHtoDAsync", "cuLaunchKernelEx", "cuEventSynchronize"])
def test_a_device_lost_in_a_restore(name: str) -> None:
    kernel, store = Kernel(4), MemoryStore()
    checkpointer = Checkpointer(kernel, store)
    save(checkpointer, 0)
    DRIVER.fail(name, 700)
    with pytest.raises(DeviceLost, match="restart the process"):
        asyncio.run(checkpointer.restore_latest())
    assert [entry.step for entry in archive.entries(store)] == [0]
