"""Other writers, readers that are overtaken, clocks that jump, calls that fail or are missing."""

import errno
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointable import LocalStore, StoreError, archive, last
from checkpointable.archive import name_of
from checkpointable.archive.prune import prune
from checkpointable.errors import StoreLocked
from checkpointable.stores.protocol import Entry
from tests.crash import mutations
from tests.crash.recorder import need_strace
from tests.crash.subprocesses import WAYS, apart, names
from tests.crash.workloads import State, meet, state
from tests.helpers.equality import same

# --- others at the same time ----------------------------------------------------------------------


BOTH = 50


def one_of_two(root: str) -> None:
    """Save, as often as it takes, while another process does the same."""
    known = rf"pid (?!{os.getpid()} )\d+ on host '{re.escape(socket.gethostname())}'"
    meet(root, str(os.getpid()), "ready")
    step = 0
    while step < BOTH:
        try:
            archive.save(LocalStore(root), state(step, str(os.getpid())), step)
        except StoreLocked as error:
            if not re.search(f"{known}$|its pid is not known$", error.what):
                raise
        else:
            step += 1


def test_two_writers_lose_nothing_and_name_each_other(tmp_path: Path) -> None:
    code = "import sys; from tests.crash.test_others import one_of_two; one_of_two(sys.argv[1])"
    path = tmp_path / "run"
    command = [sys.executable, "-c", code, str(path)]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    result = archive.entries(LocalStore(path))
    assert [(e.step, e.attempt) for e in result] == [(s, a) for s in range(BOTH) for a in (0, 1)]
    for entry in result:
        loaded = archive.load(LocalStore(path), entry.name, State)
        assert same(loaded, state(entry.step, loaded.writer))


def save_and_prune(root: str) -> None:
    store = LocalStore(root)
    for step in range(2, 301):
        entry = archive.save(store, state(step, ""), step)
        prune(store, last(1), valid=entry.name)


def test_a_reader_always_finds_one_while_another_process_prunes(tmp_path: Path) -> None:
    store, seen = LocalStore(tmp_path), 1
    archive.save(store, state(1, ""), 1)
    code = "import sys; from tests.crash.test_others import save_and_prune as w; w(sys.argv[1])"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as writer:
        while seen < 300:
            result = archive.latest(store, State)
            assert result is not None
            assert same(result.checkpoint, state(result.entry.step, ""))
            assert result.entry.step >= seen
            seen = result.entry.step
    assert writer.returncode == 0


class Overtaken(LocalStore):
    """Between its first listing and what comes next, another process saves and prunes."""

    overtaken = False

    def list(self) -> Iterator[Entry]:
        result = [*super().list()]
        if not self.overtaken:
            self.overtaken = True
            apart(save_and_prune_once, self.path)
        return iter(result)


def save_and_prune_once(root: str) -> None:
    archive.save(LocalStore(root), state(2, ""), 2)
    prune(LocalStore(root), last(1))


def test_a_reader_that_was_overtaken_lists_again(tmp_path: Path) -> None:
    archive.save(LocalStore(tmp_path), state(1, ""), 1)
    result = archive.latest(Overtaken(tmp_path), State)
    assert result is not None
    assert result.entry.step == 2


# --- clocks ---------------------------------------------------------------------------------------


times = st.integers(-(2**31), 2**33)


@settings(max_examples=50)
@given(st.lists(times, min_size=4, max_size=4))
def test_the_order_is_that_of_the_steps_whatever_the_clock(seconds: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(folder)
        for step, time in enumerate(seconds):
            archive.save(store, state(step, ""), step)
            os.utime(Path(folder, name_of(step)), (time, time))
        assert [entry.step for entry in archive.entries(store)] == [0, 1, 2, 3]
        result = archive.latest(store, State)
        assert result is not None
        assert same(result.checkpoint, state(3, ""))
        assert [entry.step for entry in prune(store, last(2))] == [0, 1]


@pytest.mark.parametrize("time", [-(2**31), 0, 2**33])
def test_a_listing_has_odd_ages(time: int, tmp_path: Path) -> None:
    archive.save(LocalStore(tmp_path), state(1, ""), 1)
    os.utime(tmp_path / name_of(1), (time, time))
    command = [sys.executable, "-m", "checkpointable", "ls", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert name_of(1) in done.stdout


# --- calls that the file system does not have, or that fail ---------------------------------------


def cannot_link(root: str, way: str) -> None:
    mutations.take(way)
    path = Path(root)
    before = names(path)
    with pytest.raises(StoreError) as caught:
        archive.save(LocalStore(path), state(2, ""), 2)
    assert type(caught.value) is StoreError
    assert "hard links" in caught.value.hint
    assert str(path / name_of(2)) in caught.value.where
    assert names(path) == before


@WAYS
@pytest.mark.parametrize("error", ["EPERM", "EOPNOTSUPP", "ENOSYS"])
def test_a_file_system_without_hard_links(error: str, way: str, tmp_path: Path) -> None:
    need_strace()
    store = LocalStore(tmp_path)
    archive.save(store, state(1, ""), 1)
    strace = ["strace", "-f", "-o", os.devnull, "-e", "trace=linkat"]
    apart(cannot_link, tmp_path, way, before=[*strace, "-e", f"inject=linkat:error={error}"])
    result = archive.latest(store, State)
    assert result is not None
    assert same(result.checkpoint, state(1, ""))


def fsync_fails_once(root: str, way: str) -> None:
    mutations.take(way)
    with pytest.raises(StoreError, match=os.strerror(errno.EIO)) as caught:
        archive.save(LocalStore(root), state(2, ""), 2)
    assert type(caught.value) is StoreError
    archive.save(LocalStore(root), state(3, ""), 3)


@WAYS
def test_after_a_failed_fsync_the_file_is_only_closed(way: str, tmp_path: Path) -> None:
    need_strace()
    store = LocalStore(tmp_path / "run")
    archive.save(store, state(1, ""), 1)
    log = tmp_path / "log"
    strace = ["strace", "-f", "-o", str(log), "-e", "trace=desc,linkat"]
    inject = ["-e", "inject=fsync:error=EIO:when=1"]
    apart(fsync_fails_once, store.path, way, before=[*strace, *inject])
    lines = log.read_text().splitlines()
    failed = next(i for i, line in enumerate(lines) if "fsync(" in line and "EIO" in line)
    match = re.search(r"fsync\((\d+)\)", lines[failed])
    assert match
    after_it = []
    for line in lines[failed + 1 :]:
        if re.search(rf"\b\w+\({match[1]}\b|/fd/{match[1]}\b|\blinkat\(", line):
            after_it.append(line.split("(")[0].split()[-1])
        if after_it[-1:] == ["close"]:
            break
    assert after_it == ["close"]
    assert [entry.step for entry in archive.entries(store)] == [1, 3]
