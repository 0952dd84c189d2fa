"""Real faults while a store is used: each ends in success or in a clear error of ours.

What was there stays, nothing is left behind, and when the fault is gone the same objects go on.
Full and read-only disks are mounted in a process of its own, in a mount namespace.
"""

import errno
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from checkpointable import Checkpointer, LocalStore, StoreError, archive, events, every, last, run
from checkpointable.archive import name_of
from checkpointable.archive.prune import prune
from checkpointable.errors import NoCheckpoint, StoreFull
from tests.crash import mutations
from tests.crash.recorder import need_strace
from tests.crash.subprocesses import WAYS, apart, fails, mount, names, namespace
from tests.helpers.equality import same
from tests.helpers.kernels import Counter, CounterCheckpoint, after, finish

SIZE = 3000  # of the kernel: 24 KB, so that a disk can be full in the middle of one


# --- what is asked under every fault --------------------------------------------------------------


def endures(
    root: Path,
    fault: AbstractContextManager[None],
    error: type[StoreError],
    *,
    unreadable: type[StoreError] | None = None,
    prunes: bool = False,
) -> None:
    """Save before, during and after a fault in which no save can succeed.

    `unreadable` is the error of a read, if none can succeed; `prunes` says that it does.
    """
    path = root / "run"
    kernel = after(3, SIZE)
    checkpointer = Checkpointer(kernel, path)
    for _ in range(2):
        finish(checkpointer.save())
        kernel.advance(1)
    before = names(path)
    with fault:
        store = checkpointer.store
        for attempt in (
            lambda: finish(checkpointer.save()),
            lambda: archive.save(store, CounterCheckpoint(5, kernel.total), 5),
        ):
            fails(attempt, error, path)
        if unreadable is None:
            assert names(path) == before
            holds(path, [3, 4])
        else:
            fails(lambda: archive.latest(store, CounterCheckpoint), unreadable, path)
        if prunes:
            assert [entry.step for entry in prune(store, last(1))] == [3]
        else:
            fails(lambda: prune(store, last(1)), error, path)
    assert finish(checkpointer.save()).name == name_of(5)
    holds(path, [4, 5] if prunes else [3, 4, 5])
    again = Counter(SIZE)
    assert finish(Checkpointer(again, path).restore_latest()).skipped == ()
    assert same(again.total, after(5, SIZE).total)


def begins(root: Path, fault: AbstractContextManager[None], error: type[StoreError]) -> None:
    """The very first save of a store meets the fault."""
    checkpointer = Checkpointer(after(5, SIZE), root / "new" / "run")
    with fault:
        fails(lambda: finish(checkpointer.save()), error, root / "new" / "run")
    assert finish(checkpointer.save()).name == name_of(5)
    holds(root / "new" / "run", [5])


def holds(path: Path, steps: list[int]) -> None:
    """There are the checkpoints of these steps, each exact, and nothing else."""
    store = LocalStore(path)
    assert [entry.step for entry in archive.entries(store)] == steps
    for entry in archive.entries(store):
        result = archive.load(store, entry.name, CounterCheckpoint)
        assert same(result.total, after(entry.step, SIZE).total)
    assert names(path) - {events.FILE} == {name_of(step) for step in steps} | {".lock"}


# --- a disk of its own ----------------------------------------------------------------------------


@contextmanager
def full(root: Path) -> Iterator[None]:
    """Half of a checkpoint still fits."""
    with (root / "filler").open("wb", buffering=0) as filler:
        until_full(lambda: filler.write(bytes(4096)))
        filler.truncate(filler.tell() - SIZE * 4)
    yield
    (root / "filler").unlink()


@contextmanager
def without_inodes(root: Path) -> Iterator[None]:
    (root / "many").mkdir()
    numbers = iter(range(10**9))
    until_full(lambda: (root / "many" / str(next(numbers))).touch())
    yield
    shutil.rmtree(root / "many")


def until_full(take: Callable[[], object]) -> None:
    try:
        while True:
            take()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


@contextmanager
def read_only(root: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", str(root)], check=True)


def on_a_full_disk(root: str, way: str) -> None:
    mutations.take(way)
    mount(Path(root), "size=1m")
    endures(Path(root), full(Path(root)), StoreFull, prunes=True)
    begins(Path(root), full(Path(root)), StoreFull)


def on_a_disk_without_inodes(root: str, way: str) -> None:
    mutations.take(way)
    mount(Path(root), "size=1m,nr_inodes=20")
    endures(Path(root), without_inodes(Path(root)), StoreFull, prunes=True)
    begins(Path(root), without_inodes(Path(root)), StoreFull)


def on_a_read_only_disk(root: str, way: str) -> None:
    mutations.take(way)
    mount(Path(root), "size=1m")
    endures(Path(root), read_only(Path(root)), StoreError)
    begins(Path(root), read_only(Path(root)), StoreError)


@WAYS
@pytest.mark.parametrize(
    "scenario", [on_a_full_disk, on_a_disk_without_inodes, on_a_read_only_disk]
)
def test_a_disk_that_takes_nothing(
    scenario: Callable[[str, str], None], way: str, tmp_path: Path
) -> None:
    apart(scenario, tmp_path, way, before=namespace())


@WAYS
@pytest.mark.parametrize("error", ["ENOSYS", "EOPNOTSUPP"])
def test_a_full_disk_that_cannot_reserve(way: str, error: str, tmp_path: Path) -> None:
    """The space ends at a write: ours, or that by which the C library reserves all the same."""
    need_strace()
    (tmp_path / "disk").mkdir()
    log = tmp_path / "log"
    strace = ["strace", "-f", "-o", str(log), "-e", "trace=fallocate,write,pwrite64"]
    inject = ["-e", f"inject=fallocate:error={error}"]
    apart(on_a_full_disk, tmp_path / "disk", way, before=[*namespace(), *strace, *inject])
    ends = re.findall(r"(\w+)\(.*\) += -1 ENOSPC", log.read_text())
    fill, save = "write", "pwrite64"
    assert ends == [fill, save, save, fill, save]


# --- permissions ----------------------------------------------------------------------------------


def as_another_user(root: Path) -> None:
    """Be a user to whom permissions apply, with everything loaded that comes late."""
    with tempfile.TemporaryDirectory() as folder:
        checkpointer = Checkpointer(Counter(), folder)
        finish(checkpointer.save())
        finish(checkpointer.restore_latest())
    if os.geteuid() == 0:
        os.chown(root, 65534, 65534)
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


@contextmanager
def mode(path: Path, bits: int) -> Iterator[None]:
    before = path.stat().st_mode
    path.chmod(bits)
    yield
    path.chmod(before)


def without_permission(root: str, what: str, bits: str) -> None:
    as_another_user(Path(root))
    path = Path(root) / "run"
    path.mkdir()
    (path / ".lock").touch()
    unreadable = StoreError if (what, bits) == (".", "0") else None
    endures(Path(root), mode(path / what, int(bits, 8)), StoreError, unreadable=unreadable)


def with_an_unreadable_newest(root: str) -> None:
    """It may be sound, so it is not passed over."""
    as_another_user(Path(root))
    store = LocalStore(Path(root) / "run")
    for step in (1, 2):
        archive.save(store, CounterCheckpoint(step, after(step, SIZE).total), step)
    with mode(store.path / name_of(2), 0):
        fails(lambda: archive.latest(store, CounterCheckpoint), StoreError, Path(name_of(2)))
        fails(lambda: prune(store, last(1)), StoreError, Path(name_of(2)))
        archive.save(store, CounterCheckpoint(3, after(3, SIZE).total), 3)
        result = archive.latest(store, CounterCheckpoint)
        assert result is not None
        assert result.entry.step == 3
    holds(store.path, [1, 2, 3])


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that another user can reach."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.parametrize(
    ("what", "bits"), [(".", "0555"), (".", "0"), (".lock", "0444"), (".lock", "0")]
)
def test_without_permission(what: str, bits: str, public: Path) -> None:
    apart(without_permission, public, what, bits)


def test_an_unreadable_newest(public: Path) -> None:
    apart(with_an_unreadable_newest, public)


# --- the directory goes away ----------------------------------------------------------------------


def test_a_directory_removed_between_saves_is_made_again(tmp_path: Path) -> None:
    kernel = after(3, SIZE)
    checkpointer = Checkpointer(kernel, tmp_path / "run")
    finish(checkpointer.save())
    shutil.rmtree(tmp_path / "run")
    assert finish(checkpointer.restore_latest()) is None
    kernel.advance(2)
    finish(checkpointer.save())
    holds(tmp_path / "run", [5])


def test_a_directory_removed_during_a_run_ends_it(tmp_path: Path) -> None:
    class Removing(Counter):
        def advance(self, steps: int) -> None:
            super().advance(steps)
            if self.step == 3:  # a save may be under way, so at once
                (tmp_path / "run").rename(tmp_path / "gone")

    def attempt(kernel: Counter) -> object:
        return run(kernel, tmp_path / "run", 5, save=every(steps=1), keep=last(9))

    with pytest.raises(StoreError) as caught:
        attempt(Removing(SIZE))
    assert str(tmp_path / "run") in caught.value.where
    assert caught.value.hint
    attempt(Counter(SIZE))
    holds(tmp_path / "run", [1, 2, 3, 4, 5])


@WAYS
def test_a_directory_removed_during_a_save(tmp_path: Path, way: str) -> None:
    apart(removed_during_a_save, tmp_path / "run", way)


def removed_during_a_save(path: str, way: str) -> None:
    mutations.take(way)
    store = LocalStore(path)

    def chunks() -> Iterator[bytes]:
        shutil.rmtree(path)
        yield b"x"

    fails(lambda: store.create("a", 1, chunks()), NoCheckpoint, Path(path) / "a")
    assert not Path(path).exists()
    archive.save(store, CounterCheckpoint(5, after(5, SIZE).total), 5)
    holds(Path(path), [5])


def test_a_file_instead_of_the_directory(tmp_path: Path) -> None:
    path = tmp_path / "run"

    @contextmanager
    def replaced() -> Iterator[None]:
        path.rename(tmp_path / "aside")
        path.write_bytes(b"mine")
        yield
        assert path.read_bytes() == b"mine"
        path.unlink()
        (tmp_path / "aside").rename(path)

    endures(tmp_path, replaced(), StoreError, unreadable=NoCheckpoint)
