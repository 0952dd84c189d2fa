"""What `gpu.py` measures with: kernels, and what device, bus and disk can do at best.

All that returns a rate returns bytes a second. A simulated device does it all, and means nothing.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Numba infers the types of what it compiles.

# pyright: reportArgumentType=false, reportCallIssue=false

import math
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from attrs import frozen
from numba import cuda

from benchmarks import _limits
from checkpointable import Array, MemoryStore, capture, reinstate
from checkpointable.arrays.cuda import digest, memory, snapshot, strided
from checkpointable.arrays.cuda.programs import kernel
from checkpointable.arrays.cuda.views import View
from checkpointable.arrays.lazy import Region
from checkpointable.format import layout

Grid: TypeAlias = tuple[int, int]
"""Blocks and threads in a block; every kernel here goes over its array in strides of the grid."""

TIMES = 4  # that a peak is done in a row, so that beginning it does not count
PIECE, READERS = 16 << 20, 4  # of a file that is read by some threads


@kernel
def fill(field):
    for i in range(cuda.grid(1), field.size, cuda.gridsize(1)):
        field[i] = (i * 40503) % 65521


@kernel
def touch(field, stride, count):
    """Change one number in each run of `stride`."""
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        field[i * stride] += 1


@kernel
def read(words, out):
    """Read everything once, four times the grid at a time, so that loads overlap."""
    step = cuda.gridsize(1)
    found = np.uint64(0)
    for i in range(cuda.grid(1), words.size - 3 * step, 4 * step):
        found ^= words[i] ^ words[i + step] ^ words[i + 2 * step] ^ words[i + 3 * step]
    out[cuda.grid(1)] = found


@kernel
def smooth(old, new):
    """A stencil, bound by memory: each number is read once and written once."""
    for i in range(cuda.grid(1), old.size, cuda.gridsize(1)):
        if i > 0 and i < old.size - 1:
            new[i] = (old[i - 1] + old[i] + old[i + 1]) * np.float32(0.25)


@frozen
class Field:
    step: int
    field: Array[np.float32]


class Held:
    """A kernel that has so many bytes on the device, and computes nothing."""

    def __init__(self, size: int, grid: Grid) -> None:
        self.step, self.size, self.grid = 0, size, grid
        self.stream = cuda.stream()
        self.field = cuda.device_array(size // 4, np.float32)
        fill[(*grid, self.stream)](self.field)
        self.stream.synchronize()

    def change(self, every: int) -> None:
        """Change one block of 1 MiB in so many, evenly spread."""
        stride = every * layout.BLOCK // 4
        touch[(*self.grid, self.stream)](self.field, stride, -(-self.field.size // stride))
        self.stream.synchronize()

    def digest(self) -> float:
        """The rate at which the device digests it, in blocks of 1 MiB."""
        device = memory.current()
        region = Region(device, memory.address_of(self.field), self.size, self.field)
        begin = time.perf_counter()
        digest.digests_of(device, [region], layout.BLOCK)
        return self.size / (time.perf_counter() - begin)

    async def checkpoint(self) -> Field:
        return await capture(Field, self)

    async def restore(self, checkpoint: Field) -> None:
        await reinstate(checkpoint, self)


@frozen
class Parts:
    step: int
    parts: list[Array[np.float32]]


class Many:
    """As many arrays, `size` bytes together; with `gaps` a column is left out of each."""

    def __init__(self, size: int, count: int, *, gaps: bool = False) -> None:
        self.step, self.stream = 0, cuda.stream()
        shape = (max(size // count // 4 // 1024, 2), 1024)
        arrays = [cuda.device_array(shape, np.float32) for _ in range(count)]
        self.parts = [WithoutColumn(array) for array in arrays] if gaps else arrays
        self.size = 4 * count * shape[0] * (shape[1] - gaps)

    async def checkpoint(self) -> Parts:
        return await capture(Parts, self)

    async def restore(self, checkpoint: Parts) -> None:
        await reinstate(checkpoint, self)


class WithoutColumn:
    """`array[:, :-1]` by its interface: Numba, to slice, walks through all rows."""

    def __new__(cls, array: Any) -> Any:
        return array[:, :-1] if memory.SIMULATED else super().__new__(cls)

    def __init__(self, array: Any) -> None:
        rows, columns = array.shape
        self.array = array
        self.__cuda_array_interface__ = array.__cuda_array_interface__ | {
            "shape": (rows, columns - 1),
            "strides": (columns * array.dtype.itemsize, array.dtype.itemsize),
        }


class Moves:
    """Slices of an array of `size` bytes, packed and unpacked; and pieces of it, gathered."""

    def __init__(self, size: int, grid: Grid) -> None:
        side = math.isqrt(size // 4)
        self.stream, self.device = cuda.stream(), memory.current()
        self.array, self.packed = (cuda.device_array((side, side), np.float32) for _ in range(2))
        fill[(*grid, self.stream)](self.array.reshape(side * side))
        self.tables = strided.Tables()
        first, row = memory.address_of(self.array), 4 * side
        dtype, backwards = self.array.dtype, (-row, 4)
        shapes = {
            "transposed": ((side, side), (4, row), first),
            "without a column": ((side, side - 1), (row, 4), first),
            "rows backwards": ((side, side), backwards, first + (side - 1) * row),
            "every second": ((side, side // 2), (row, 8), first),
        }
        self.views = {
            name: View(at, dtype, shape, strides, 4 * math.prod(shape), self.device, None, self)
            for name, (shape, strides, at) in shapes.items()
        }

    def _rate(self, size: int, work: Callable[[], object]) -> float:
        with memory.on_device(self.device):
            work()
            memory.done(self.stream)()
            begin = time.perf_counter()
            for _ in range(TIMES):
                work()
            memory.done(self.stream)()
        return TIMES * size / (time.perf_counter() - begin)

    def pack(self, name: str, *, back: bool = False) -> float:
        view, address = self.views[name], memory.address_of(self.packed)

        def work() -> None:
            strided.move_arrays(self.tables, [view], [address], self.stream, back=back)

        return self._rate(view.nbytes, work)

    def gather(self, count: int, size: int) -> float:
        target, source = memory.address_of(self.packed), memory.address_of(self.array)
        targets, sources = ([a + i * k * size for i in range(count)]
                            for a, k in ((target, 1), (source, 2)))  # fmt: skip

        def work() -> None:
            strided.copy_pieces(self.tables, targets, sources, [size] * count, self.stream)

        return self._rate(count * size, work)


@contextmanager
def host_memory(available: float) -> Iterator[None]:
    """As if so many bytes of the host's memory were available."""
    before, snapshot._available = snapshot._available, lambda: available
    try:
        yield
    finally:
        snapshot._available = before


@frozen
class Fields:
    step: int
    old: Array[np.float32]
    new: Array[np.float32]


class Stencil:
    """A kernel that computes on a stream of its own, in two arrays of `size` bytes together."""

    def __init__(self, size: int, grid: Grid) -> None:
        self.step, self.grid, self.stream = 0, grid, cuda.stream()
        self.old, self.new = (cuda.device_array(size // 8, np.float32) for _ in range(2))
        for field in (self.old, self.new):
            fill[(*grid, self.stream)](field)
        self.stream.synchronize()

    def advance(self, steps: int) -> float:
        """The seconds that so many steps take."""
        begin = time.perf_counter()
        for _ in range(steps):
            smooth[(*self.grid, self.stream)](self.old, self.new)
            self.old, self.new = self.new, self.old
        self.stream.synchronize()
        self.step += steps
        return time.perf_counter() - begin

    async def checkpoint(self) -> Fields:
        return await capture(Fields, self)

    async def restore(self, checkpoint: Fields) -> None:
        await reinstate(checkpoint, self)


class Nowhere(MemoryStore):
    """Takes checkpoints and keeps none, for what does not depend on where they go."""

    def create(self, name: str, size: int, chunks: Any, /) -> None:
        pass


class Kept(MemoryStore):
    """Keeps the last checkpoint, in memory that the next one is copied to."""

    def __init__(self) -> None:
        super().__init__()
        self._memory = np.empty(0, np.uint8)

    def create(self, name: str, size: int, chunks: Any, /) -> None:
        if len(self._memory) < size:
            self._memory = np.zeros(size, np.uint8)
        begin = 0
        for chunk in chunks:
            data = np.frombuffer(chunk, np.uint8)
            self._memory[begin : begin + len(data)] = data
            begin += len(data)


class Peaks:
    """Copies on the device, reading there, and pinned copies over the bus; `size` bytes each."""

    def __init__(self, size: int, grid: Grid) -> None:
        self.size, self.grid, self.stream = size, grid, cuda.stream()
        self.source, self.target = (cuda.device_array(size, np.uint8) for _ in range(2))
        self.out = cuda.device_array(grid[0] * grid[1], np.uint64)
        self.pinned = cuda.pinned_array(size, np.uint8)
        self.pinned[:] = 1
        self.source.copy_to_device(self.pinned, stream=self.stream)
        self.stream.synchronize()

    def _rate(self, size: int, work: Callable[[], object]) -> float:
        self.stream.synchronize()
        begin = time.perf_counter()
        for _ in range(TIMES):
            work()
        self.stream.synchronize()
        return TIMES * size / (time.perf_counter() - begin)

    def copy(self) -> float:
        """Bytes copied: as many are read as are written."""
        target, source = self.target, self.source
        return self._rate(self.size, lambda: target.copy_to_device(source, stream=self.stream))

    def read(self) -> float:
        words, every = self.source.view(np.uint64), 4 * self.grid[0] * self.grid[1]
        whole, launch = words[: words.size // every * every], read[(*self.grid, self.stream)]
        return self._rate(8 * whole.size, lambda: launch(whole, self.out))

    def down(self) -> float:
        source, pinned = self.source, self.pinned
        return self._rate(self.size, lambda: source.copy_to_host(pinned, stream=self.stream))

    def up(self) -> float:
        target, pinned = self.target, self.pinned
        return self._rate(self.size, lambda: target.copy_to_device(pinned, stream=self.stream))


# --- files ----------------------------------------------------------------------------------------


def write_file(path: Path, data: _limits.Memory) -> float:
    """Write a file durably, past the page cache where the file system lets us; and remove it."""
    for write in (_limits.write_direct, _limits.write_raw):
        begin = time.perf_counter()
        try:
            write(path, [data.data])
        except OSError:
            if write is _limits.write_raw:
                raise
        else:
            return len(data) / (time.perf_counter() - begin)
        finally:
            path.unlink(missing_ok=True)
    raise AssertionError


def read_file(path: Path, into: _limits.Memory) -> float:
    """Read a file's beginning by some threads; what is in the page cache comes from there."""
    file = os.open(path, os.O_RDONLY)

    def piece(begin: int) -> None:
        rest = into.data[begin : begin + PIECE]
        while rest:
            count = os.preadv(file, [rest], begin)
            if not count:
                raise EOFError(path)
            rest, begin = rest[count:], begin + count

    try:
        with ThreadPoolExecutor(READERS) as threads:
            begin = time.perf_counter()
            for _ in threads.map(piece, range(0, len(into), PIECE)):
                pass
            return len(into) / (time.perf_counter() - begin)
    finally:
        os.close(file)


def on_host(held: Held) -> _limits.Memory:
    """The state in host memory that begins at a page, so that direct writes can read it."""
    room = np.empty(held.size + _limits.PAGE, np.uint8)
    begin = -room.ctypes.data % _limits.PAGE
    data = room[begin : begin + held.size]
    held.field.copy_to_host(data.view(np.float32))
    return data


# --- the peer, and the machine --------------------------------------------------------------------


class Torch:
    """`torch.distributed.checkpoint.async_save` of the same memory, staged in pinned memory.

    The stager is kept, and with it the memory it fills. The stall ends when the state may change
    again: at `staging_completion`. Raises `ImportError` where that is not to be had.
    """

    def __init__(self, field: Any) -> None:
        torch = import_module("torch")
        if memory.SIMULATED or not torch.cuda.is_available():
            raise ImportError("torch finds no CUDA device")
        self._library = import_module("torch.distributed.checkpoint")
        staging = import_module("torch.distributed.checkpoint.staging")
        options = staging.StagingOptions(
            use_pinned_memory=True,
            use_shared_memory=False,  # which only another process would need
            use_async_staging=True,
            use_non_blocking_copy=True,
        )
        self._state = {"field": torch.as_tensor(field, device="cuda")}
        self._stager = staging.DefaultStager(options)

    def save(self, folder: Path) -> tuple[float, float]:
        """Seconds that it stalls, and until all is durable; the directory is to be new."""
        begin = time.perf_counter()
        response = self._library.async_save(
            self._state, checkpoint_id=folder, no_dist=True, async_stager=self._stager
        )
        response.staging_completion.result()
        stall = time.perf_counter() - begin
        response.upload_completion.result()
        _limits.sync_all(folder, files=False)  # it syncs its files
        return stall, time.perf_counter() - begin

    def close(self) -> None:
        self._stager.close()


def release() -> None:
    """Give memory of arrays that are gone back to the device; Numba would keep it for a while."""
    if not memory.SIMULATED:
        cuda.current_context().memory_manager.deallocations.clear()


def available() -> int:
    """Bytes of memory that the host can spare."""
    found = re.search(r"^MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    return 1024 * int(found[1]) if found else 0


def device_name() -> str:
    return "simulator" if memory.SIMULATED else str(cuda.get_current_device().name)


def driver() -> str:
    """The version of the driver, and of CUDA in it."""
    if memory.SIMULATED:
        return "none"
    from numba.cuda.cudadrv.driver import driver

    try:
        said = Path("/proc/driver/nvidia/version").read_text().partition("\n")[0]
    except OSError:
        said = ""
    found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", said)
    major, minor = driver.get_version()
    return f"{found[0] if found else 'unknown'}, CUDA {major}.{minor}"


def why_not(smoke: bool) -> str:
    """Why nothing can be measured here; empty if it can."""
    if memory.SIMULATED:
        return "" if smoke else "Numba simulates the device, which measures nothing: say --smoke"
    if getattr(cuda, "implementation", "") != "NVIDIA":
        return "there is no numba-cuda: install checkpointable[cuda]"
    return "" if cuda.is_available() else "there is no CUDA device on this machine"
