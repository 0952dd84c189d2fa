"""On a real CUDA device: what the simulator cannot show. `pytest -m gpu`, or `nox -s gpu`."""

# mypy: allow-untyped-decorators, allow-untyped-calls
# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
import xxhash
from numba import config, cuda

from checkpointable import Array, Checkpointer, MemoryStore, Saved, archive, capture, reinstate
from checkpointable.arrays import owned
from checkpointable.arrays.cuda import snapshot
from checkpointable.arrays.staging import Staging, Way
from tests.helpers.equality import same

pytestmark = pytest.mark.gpu
MIB = 1 << 20
BYTES = np.random.default_rng(1).integers(0, 256, 64 * MIB + 77, np.uint8)


@pytest.fixture(autouse=True)
def device() -> None:
    if config.ENABLE_CUDASIM or not cuda.is_available():  # type: ignore[attr-defined]
        pytest.skip("needs a real CUDA device")


@cuda.jit
def fill_late(array: Any, milliseconds: int) -> None:
    i = cuda.grid(1)
    for _ in range(milliseconds):
        cuda.nanosleep(1_000_000)
    if i < array.size:
        array[i] = 2


def busy(stream: Any, milliseconds: int = 100) -> Any:
    """An array that the stream will have filled with 2 when so many milliseconds are over."""
    array = cuda.to_device(np.zeros(1 << 14, np.float32), stream=stream)
    fill_late[128, 128, stream](array, milliseconds)
    return array


@attrs.frozen
class State:
    field: Array[np.float32]
    slanted: Array[np.int16]


class Kernel:
    def __init__(self, stream: Any = None) -> None:
        self.stream = stream
        self.step = 0
        self.field = cuda.to_device(np.arange(4 * MIB, dtype=np.float32))
        self.slanted = cuda.to_device(np.arange(600, dtype=np.int16).reshape(20, 30))[::-2, ::3]

    async def checkpoint(self) -> State:
        return await capture(State, self)

    async def restore(self, checkpoint: State) -> None:
        await reinstate(checkpoint, self)

    def now(self) -> State:
        cuda.synchronize()
        slanted = np.arange(600, dtype=np.int16).reshape(20, 30)[::-2, ::3]
        field: Any = self.field.copy_to_host()
        return State(field, slanted.copy())


def save(checkpointer: Checkpointer[Any], step: int) -> Saved:
    async def both() -> Saved:
        return await (await checkpointer.save(step))

    return asyncio.run(both())


def test_digests_are_those_of_the_library() -> None:
    from checkpointable.arrays.cuda.digest import digests_of
    from checkpointable.arrays.cuda.memory import address_of
    from checkpointable.arrays.lazy import Region

    array = cuda.to_device(BYTES)
    whole = Region(0, address_of(array), BYTES.size, array)
    places = [(begin, MIB) for begin in range(0, 64 * MIB, MIB)]
    places += [(7 * size, size) for size in [*range(1, 1200), MIB - 1, MIB + 1]]
    digests = digests_of(0, [whole.part(begin, size) for begin, size in places], 1 << 40)
    expected = (xxhash.xxh3_128_digest(BYTES[b : b + size].tobytes()) for b, size in places)
    assert digests == b"".join(expected)


class Slanted:
    """`array[::-3, 1::2]` by its interface: Numba, to slice, walks through all that is left."""

    def __init__(self, array: Any) -> None:
        (rows, columns), item = array.shape, array.dtype.itemsize
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": (-(-rows // 3), columns // 2),
            "strides": (-3 * columns * item, 2 * item),
            "data": (
                array.__cuda_array_interface__["data"][0] + ((rows - 1) * columns + 1) * item,
                False,
            ),
            "typestr": array.dtype.str,
            "version": 3,
        }


@pytest.mark.parametrize("way", ["device", "pinned", "sliced"])
@pytest.mark.parametrize("slanted", [False, True])
def test_each_way_copies_bytes(monkeypatch: pytest.MonkeyPatch, way: Way, slanted: bool) -> None:
    monkeypatch.setattr(snapshot, "_available", lambda: 0.0 if way == "sliced" else 1e12)
    staging = Staging(reserve=0 if way == "device" else 1 << 60)
    host = BYTES[: 48 * MIB].reshape(-1, 6)
    array, expected = cuda.to_device(host), host
    if slanted:
        array, expected = Slanted(array), host[::-3, 1::2]
    copies, wait = snapshot.begin({"a": array}, None, staging)
    wait()
    assert staging.snapshot is not None
    assert staging.snapshot.way == way
    assert np.array_equal(np.asarray(copies["a"]), expected)


@pytest.mark.parametrize("own", [False, True])
def test_a_capture_is_in_the_order_of_the_stream(own: bool) -> None:
    stream = cuda.stream() if own else cuda.default_stream()
    kernel = Kernel(stream)
    kernel.field = busy(stream)
    state = asyncio.run(capture(State, kernel))
    assert (np.asarray(state.field) == np.float32(2)).all()


def test_a_capture_does_not_wait_for_other_streams() -> None:
    from checkpointable.arrays.cuda.memory import side_stream

    kernel, staging, other = Kernel(cuda.stream()), Staging(), side_stream()
    with staging.in_use():
        asyncio.run(capture(State, kernel))  # loading a kernel waits for those that run
    busy(other, 1)
    busy(other, 500)
    running = cuda.event()
    running.record(other)
    with staging.in_use():
        asyncio.run(capture(State, kernel))
    assert not running.query()
    running.synchronize()


def test_deltas_and_restores_of_a_kernel_with_a_stream_of_its_own() -> None:
    kernel, store = Kernel(cuda.stream()), MemoryStore()
    checkpointer = Checkpointer(kernel, store, delta=True)
    save(checkpointer, 0)
    first = kernel.now()
    kernel.field[9:10].copy_to_device(np.array([-1], np.float32))
    saved = save(checkpointer, 1)
    assert saved.bytes < 2 * MIB
    second = kernel.now()
    kernel.field.copy_to_device(np.zeros(4 * MIB, np.float32))
    for step, state in ((0, first), (1, second)):
        asyncio.run(checkpointer.restore(step))
        assert same(kernel.now(), state)
        assert same(archive.at_step(store, step, State).checkpoint, state)


class Foreign:
    """An array with the CUDA array interface and nothing else."""

    def __init__(self, array: Any) -> None:
        self.array = array

    @property
    def __cuda_array_interface__(self) -> Any:
        return self.array.__cuda_array_interface__


def cupy_array(host: Any) -> Any:
    return pytest.importorskip("cupy").asarray(host)


def torch_tensor(host: Any) -> Any:
    return pytest.importorskip("torch").tensor(host, device="cuda")


def jax_array(host: Any) -> Any:
    return pytest.importorskip("jax").numpy.asarray(host)


class DLPack:
    """An array with DLPack and nothing else."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def __dlpack__(self, **how: Any) -> Any:
        return self.tensor.__dlpack__(**how)

    def __dlpack_device__(self) -> Any:
        return self.tensor.__dlpack_device__()


FACES: dict[str, Callable[[Any], Any]] = {
    "interface": lambda host: Foreign(cuda.to_device(host)),
    "cupy": cupy_array,
    "torch": torch_tensor,
    "jax": jax_array,
    "dlpack": lambda host: DLPack(torch_tensor(host)),
}


@pytest.mark.parametrize("face", FACES)
def test_arrays_of_other_libraries(face: str) -> None:
    host = np.arange(MIB, dtype=np.float32)
    kernel = Kernel()
    kernel.field = FACES[face](host)
    store = MemoryStore()
    save(Checkpointer(kernel, store), 0)
    other = Kernel()
    other.field = before = FACES[face](host * 0)
    asyncio.run(Checkpointer(other, store).restore_latest())
    assert (other.field is before) == (face != "jax")
    again = asyncio.run(capture(State, other))
    assert same(np.asarray(again.field), host)


LOSE = """
import asyncio, sys
import numpy as np
from numba import cuda
from checkpointable import Checkpointer, DeviceLost, archive
from tests.arrays.test_gpu import Kernel
from tests.arrays.test_gpu import save

@cuda.jit
def stray(array):
    array[1 << 40] = 1

kernel = Kernel()
checkpointer = Checkpointer(kernel, sys.argv[1])
save(checkpointer, 0)
stray[128, 128](kernel.field)
for step in (1, 2):
    try:
        save(checkpointer, step)
    except DeviceLost as error:
        print(error.what)
print([entry.step for entry in archive.entries(checkpointer.store)])
"""


def run(program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    driver = "import tests.driver.plugin\n" if "tests.driver.plugin" in sys.modules else ""
    command, root = [sys.executable, "-c", driver + program, *arguments], Path(__file__).parents[2]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)


def test_after_an_illegal_access_nothing_is_saved(tmp_path: Path) -> None:
    ended = run(LOSE, str(tmp_path))
    lines = ended.stdout.splitlines()
    assert [line[:19] for line in lines[:2]] == ["the device was lost"] * 2, ended.stderr
    assert lines[2] == "[0]"


@attrs.frozen
class Many:
    fields: list[Array[np.float32]]


class ManyKernel:
    """Some arrays, of which every third is a slice."""

    step = 0

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(1)
        self.hosts = [rng.random((int(n), 5), np.float32) for n in rng.integers(1, 9000, count)]
        arrays = [cuda.to_device(host) for host in self.hosts]
        self.fields = [a[:, 1:4] if i % 3 == 0 else a for i, a in enumerate(arrays)]
        self.hosts = [h[:, 1:4] if i % 3 == 0 else h for i, h in enumerate(self.hosts)]

    async def checkpoint(self) -> Many:
        return await capture(Many, self)

    async def restore(self, checkpoint: Many) -> None:
        await reinstate(checkpoint, self)


def test_many_arrays_at_once() -> None:
    kernel, store = ManyKernel(300), MemoryStore()
    saved = save(Checkpointer(kernel, store), 0)
    assert saved.snapshot is not None
    assert saved.snapshot.way == "device"
    stored = archive.at_step(store, 0, Many).checkpoint.fields
    assert all(np.array_equal(a, b) for a, b in zip(stored, kernel.hosts, strict=True))
    other = ManyKernel(300)
    for field in other.fields[1::3]:
        field.copy_to_device(np.zeros(field.shape, np.float32))
    asyncio.run(Checkpointer(other, store).restore_latest())
    for field, host in zip(other.fields, kernel.hosts, strict=True):
        whole = np.asarray(asyncio.run(capture(Many, SimpleNamespace(fields=[field]))).fields[0])
        assert np.array_equal(whole, host)


def test_streams_of_other_libraries_are_waited_for() -> None:
    """CuPy's arrays do not say which stream computes them; torch has a current one."""
    cupy = pytest.importorskip("cupy")
    stream = cupy.cuda.Stream(non_blocking=True)
    check_waited_for(cupy.zeros(1 << 14, cupy.float32), stream.ptr)


def check_waited_for(array: Any, stream: int) -> None:
    """What is captured of an array that a stream is still computing is complete."""
    numba_array = cuda.as_cuda_array(array, sync=False)
    fill_late[128, 128, cuda.external_stream(stream)](numba_array, 200)
    state = asyncio.run(capture(Many, SimpleNamespace(fields=[array])))
    assert (np.asarray(state.fields[0]) == 2).all()


def test_the_current_stream_of_torch_is_followed() -> None:
    torch = pytest.importorskip("torch")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        check_waited_for(torch.zeros(1 << 14, device="cuda"), stream.cuda_stream)


def test_bfloat16_of_jax() -> None:
    jax = pytest.importorskip("jax")
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = (jax.numpy.arange(1 << 12) % 77).astype(jax.numpy.bfloat16)
    copy = owned(array)
    assert copy.dtype == ml_dtypes.bfloat16
    assert same(copy.view(np.uint16), np.asarray(array).view(np.uint16))


def test_a_graph_is_captured_while_a_save_is_under_way() -> None:
    torch = pytest.importorskip("torch")
    field = cuda.to_device(np.zeros(1 << 26, np.float32))
    kernel = SimpleNamespace(fields=[field], step=0)
    x = torch.zeros(1 << 20, device="cuda")

    async def main() -> None:
        async def checkpoint() -> Many:
            return await capture(Many, kernel)

        async def restore(checkpoint: Many) -> None:
            await reinstate(checkpoint, kernel)

        kernel.checkpoint, kernel.restore = checkpoint, restore
        checkpointer = Checkpointer(kernel, MemoryStore(), cls=Many)
        for step in range(2):
            saving = await checkpointer.save(step)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for _ in range(1000):
                    x.add_(1)
            await saving
        await checkpointer.close()

    asyncio.run(main())


def test_memory_is_given_back() -> None:
    from checkpointable.arrays.cuda import memory

    kernel = Kernel()
    checkpointer = Checkpointer(kernel, MemoryStore())
    checkpointer.release()
    with memory.on_device(0):
        before = memory.free()
        kernel.field = cuda.device_array(64 * MIB, np.float32)
        save(checkpointer, 0)
        held = memory.free()
        checkpointer.release()
        after = memory.free()
    assert before - held >= 512 * MIB
    assert after - held >= 256 * MIB
