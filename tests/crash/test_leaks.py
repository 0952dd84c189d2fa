"""A thousand saves, good or failed, leave no file open, no thread, and no memory taken."""

import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from checkpointable import Checkpointer, LocalStore, archive, last, load_file, save_file
from checkpointable.archive import name_of
from checkpointable.archive.prune import prune
from checkpointable.errors import CheckpointExists, CorruptCheckpoint, StoreFull, StoreLocked
from tests.crash import mutations
from tests.crash.subprocesses import apart, mount, names, namespace
from tests.crash.workloads import State, state
from tests.helpers.kernels import CounterCheckpoint, after, finish

REPEATS = 1000


def too_large(root: Path) -> None:
    with pytest.raises(StoreFull):
        archive.save(LocalStore(root), CounterCheckpoint(1, np.zeros(1 << 18, np.int64)), 1)


def taken(root: Path) -> None:
    with pytest.raises(CheckpointExists):
        save_file(state(1, ""), root / name_of(0))


def locked(root: Path) -> None:
    with LocalStore(root).lock(), pytest.raises(StoreLocked):
        archive.save(LocalStore(root), state(1, ""), 1)


def damaged(root: Path) -> None:
    with pytest.raises(CorruptCheckpoint):
        load_file(root / "damaged", State)


def raising(root: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x"
        raise KeyError

    with pytest.raises(KeyError):
        LocalStore(root).create("a", 2, chunks())


def good(root: Path) -> None:
    store = LocalStore(root)
    archive.save(store, state(0, ""), 0)
    assert archive.latest(store, State)
    for entry in archive.entries(store)[1:]:
        store.delete(entry.name)


def checkpointed(root: Path) -> None:
    checkpointer = Checkpointer(after(1), root)
    finish(checkpointer.save())
    finish(checkpointer.restore_latest())
    prune(checkpointer.store, last(1))
    checkpointer.store.delete(archive.entries(checkpointer.store)[-1].name)


def repeats(root: str, way: str, kind: str) -> None:
    mutations.take(way)
    mount(Path(root), "size=1m")
    path = Path(root) / "run"
    archive.save(LocalStore(path), state(0, ""), 0)
    data = bytearray((path / name_of(0)).read_bytes())
    data[-100] ^= 1
    (path / "damaged").write_bytes(data)
    for _ in range(REPEATS):  # until the caches beneath us have filled; with threads that is slow
        vars(sys.modules[__name__])[kind](path)
    before, there = held(), names(path)
    for _ in range(REPEATS):
        vars(sys.modules[__name__])[kind](path)
    after = held()
    assert names(path) == there
    assert after[:2] == before[:2]
    assert after[2] - before[2] < REPEATS // 2


def held() -> tuple[int, int, int]:
    """Open files, threads, and pieces of memory."""
    gc.collect()
    files, threads = (len(list(Path("/proc/self", what).iterdir())) for what in ("fd", "task"))
    return files, threads, sys.getallocatedblocks()


@pytest.mark.parametrize(
    ("kind", "way"),
    [(kind, "") for kind in (too_large, taken, locked, damaged, raising, good, checkpointed)]
    + [(kind, "no_tmpfile") for kind in (too_large, raising, good)],
)
def test_a_thousand_times_leak_nothing(
    kind: Callable[[Path], None], way: str, tmp_path: Path
) -> None:
    apart(repeats, tmp_path, way, kind.__name__, before=namespace())
