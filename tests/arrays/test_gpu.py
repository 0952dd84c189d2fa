"""On a real CUDA device: what the simulator cannot show. `pytest -m gpu`, or `nox -s gpu`."""

# mypy: allow-untyped-decorators, allow-untyped-calls
# pyright: reportCallIssue=false, reportIndexIssue=false

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import xxhash
from numba import config, cuda

from checkpointable import Array, Checkpointer, MemoryStore, Saved, archive, capture, reinstate
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
def add_slowly(array: Any, rounds: int) -> None:
    i = cuda.grid(1)
    if i < array.size:
        value = array[i]
        for _ in range(rounds):
            value = value * 0.5 + 1.0
        array[i] = value


def busy(stream: Any, rounds: int = 3_000_000) -> Any:
    """An array that the stream is still computing, for a tenth of a second or more."""
    array = cuda.to_device(np.zeros(MIB, np.float32), stream=stream)
    add_slowly[MIB // 128, 128, stream](array, rounds)
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


@pytest.mark.parametrize("way", ["device", "pinned", "sliced"])
@pytest.mark.parametrize("slanted", [False, True])
def test_each_way_copies_bytes(monkeypatch: pytest.MonkeyPatch, way: Way, slanted: bool) -> None:
    monkeypatch.setattr(snapshot, "_available", lambda: 0.0 if way == "sliced" else 1e12)
    staging = Staging(reserve=0 if way == "device" else 1 << 60)
    host = BYTES[: 48 * MIB].reshape(-1, 6)
    array, expected = cuda.to_device(host), host
    if slanted:
        array, expected = array[::-3, 1::2], host[::-3, 1::2]
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

    other = side_stream()
    busy(other, 300_000_000)
    running = cuda.event()
    running.record(other)
    kernel = Kernel(cuda.stream())
    staging = Staging()
    with staging.in_use():
        asyncio.run(capture(State, kernel))
    assert not running.query()
    running.synchronize()


def test_deltas_and_restores_of_a_kernel_with_a_stream_of_its_own() -> None:
    kernel, store = Kernel(cuda.stream()), MemoryStore()
    checkpointer = Checkpointer(kernel, store, delta=True)
    save(checkpointer, 0)
    first = kernel.now()
    kernel.field[9] = -1.0
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


def test_after_an_illegal_access_nothing_is_saved(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOSE, str(tmp_path)]
    root = Path(__file__).parents[2]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True)
    lines = ended.stdout.splitlines()
    assert [line[:19] for line in lines[:2]] == ["the device was lost"] * 2, ended.stderr
    assert lines[2] == "[0]"
