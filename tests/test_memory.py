"""The peak memory of saves and loads, each measured in a process of its own."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attrs import frozen

from checkpointable import (
    Array,
    Checkpointer,
    LocalStore,
    archive,
    capture,
    last,
    load_file,
    reinstate,
    save_file,
)
from checkpointable.archive import codec
from checkpointable.archive.prune import prune
from checkpointable.format.reader import read_header
from checkpointable.stores.local.file import open_reader
from checkpointable.stores.protocol import Reader

MIB = 1 << 20
STATE = 256  # MiB, of the two arrays together
SLACK = 64


@frozen
class State:
    step: int
    field: Array[np.float32]
    flow: Array[np.float64]


class Kernel:
    def __init__(self, state: State) -> None:
        self.step, self.field, self.flow = state.step, state.field, state.flow

    async def checkpoint(self) -> State:
        return await capture(State, self)

    async def restore(self, checkpoint: State) -> None:
        await reinstate(checkpoint, self)


def whole() -> State:
    half = STATE * MIB // 2
    return State(7, np.ones(half // 4, np.float32), np.ones(half // 8, np.float64))


def scattered() -> State:
    """The same size, but neither array is in C order: one is in Fortran order, one has gaps."""
    side = STATE * MIB // 2 // 4 // 4096
    flow = np.ones((STATE * MIB // 2 // 8, 2), np.float64)[:, 0]
    return State(7, np.ones((4096, side), np.float32, order="F"), flow)


# --- the work of the child processes --------------------------------------------------------------


def saves_file(path: Path) -> Callable[[], object]:
    state = whole()
    return lambda: save_file(state, path / "file")


def saves_scattered(path: Path) -> Callable[[], object]:
    state = scattered()
    return lambda: save_file(state, path / "file")


def saves_captured(path: Path) -> Callable[[], object]:
    checkpointer = Checkpointer(Kernel(whole()), path / "store")
    return lambda: asyncio.run(checkpointer.save()).result()


def saves_captured_scattered(path: Path) -> Callable[[], object]:
    checkpointer = Checkpointer(Kernel(scattered()), path / "store")
    return lambda: asyncio.run(checkpointer.save()).result()


def saves_a_delta(path: Path) -> Callable[[], object]:
    store, before = LocalStore(path), whole()
    base = archive.save(store, before, 7).name
    np.asarray(before.flow)[0] = 2
    return lambda: archive.save(store, before, 8, base=base)


def compacts(path: Path) -> Callable[[], object]:
    save = saves_a_delta(path)  # which keeps the state, so that its memory is not free for others
    save()
    return lambda: prune(LocalStore(path), last(1), compact=True) and save


def loads_file(path: Path) -> Callable[[], object]:
    return lambda: load_file(path / "saved", State)


def restores(path: Path) -> Callable[[], object]:
    checkpointer = Checkpointer(Kernel(whole()), path)
    return lambda: asyncio.run(checkpointer.restore_latest())


def restores_in_place(path: Path) -> Callable[[], object]:
    checkpointer = Checkpointer(Kernel(whole()), path, in_place=True)
    return lambda: asyncio.run(checkpointer.restore_latest())


def verifies(path: Path) -> Callable[[], object]:
    return lambda: archive.verify(LocalStore(path), archive.name_of(7))


def report_growth(job: Callable[[Path], Callable[[], object]], path: Path) -> None:
    """Print by how many MiB the peak during the work exceeds the memory before it."""
    work = job(path)
    before = _memory("VmRSS")
    work()
    print((_memory("VmHWM") - before) / MIB)


def _memory(what: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(what)


# --- tests ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a state as the file "saved", and as step 7 of a store."""
    folder = tmp_path_factory.mktemp("saved")
    entry = archive.save(LocalStore(folder), whole(), 7)
    (folder / "saved").hardlink_to(folder / entry.name)
    return folder


@pytest.mark.parametrize(
    ("job", "copies"),
    [
        (saves_file, 0),
        (saves_scattered, 0),
        (saves_captured, 1),
        (saves_captured_scattered, 1),
        (saves_a_delta, 0),
        (compacts, 0),
        (loads_file, 1),
        (restores, 1),
        (restores_in_place, 0),
        (verifies, 0),
    ],
)
def test_peak_of_memory(
    job: Callable[[Path], Callable[[], object]],
    copies: int,
    saved: Path,
    tmp_path: Path,
) -> None:
    path = tmp_path if job.__name__.startswith(("saves", "compacts")) else saved
    program = (
        f"import pathlib; from {__name__} import {job.__name__}, report_growth; "
        f"report_growth({job.__name__}, pathlib.Path({str(path)!r}))"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    root = Path(__file__).parent.parent
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    grown, allowed = float(ended.stdout), copies * STATE + SLACK
    assert grown >= copies * STATE * 0.99, f"{grown:.1f} MiB: did it work at all?"
    assert grown <= allowed, f"{job.__name__} took {grown:.1f} MiB more, but {allowed} are allowed"


class Counting:
    """Counts the bytes of the reads that it forwards."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.count = 0

    @property
    def size(self) -> int:
        return self.reader.size

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        self.count += len(buffer)
        self.reader.read_into(offset, buffer)


def test_metadata_of_a_huge_file_takes_its_header_only(tmp_path: Path) -> None:
    cells = 25_000_000_000
    huge = np.broadcast_to(np.float32(0), (cells,))  # 100 GB, all of them the same four bytes
    packed = codec.encode(State(7, huge, np.ones(3)), step=7)
    path = tmp_path / archive.name_of(7)
    path.write_bytes(packed.prefix)
    os.truncate(path, packed.size)
    assert path.stat().st_size > 100_000_000_000
    with open_reader(path) as reader:
        counting = Counting(reader)
        header = read_header(counting)
        assert header.arrays["field"].shape == (cells,)
        assert header.meta.step == 7
        assert len(packed.prefix) <= counting.count <= len(packed.prefix) + 8
    assert archive.read_header(LocalStore(tmp_path), path.name) == header
