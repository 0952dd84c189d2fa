"""The stores keep the promises of `checkpointable.stores.protocol`, whatever goes wrong."""

import errno
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpointable.errors import (
    CheckpointableError,
    CheckpointExists,
    CorruptCheckpoint,
    NoCheckpoint,
    StoreError,
    StoreFull,
    StoreLocked,
)
from checkpointable.stores import LocalStore, MemoryStore, open_store
from checkpointable.stores.local import store as local
from checkpointable.stores.local import writer
from checkpointable.stores.local.file import open_reader, write_durably
from checkpointable.stores.protocol import Store
from checkpointable.testing.stores import listed as contents
from checkpointable.testing.stores import read


@pytest.fixture(params=["local", "local, without O_TMPFILE", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    if "without" in request.param:
        without_tmpfile(request.getfixturevalue("monkeypatch"))
    return LocalStore(tmp_path / "run" / "one")


def without_tmpfile(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS, where a file must have a name."""
    real = os.open

    def fake(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", fake)


def files(store: Store) -> set[str]:
    """Everything that a local store has in its directory, but the lock."""
    if not isinstance(store, LocalStore) or not store.path.exists():
        return set()
    return {path.name for path in store.path.iterdir()} - {".lock"}


class TestAnyStore:
    """What `testing.StoreTests` does not ask of every store, but ours do."""

    def test_many_threads_read_one_reader(self, store: Store) -> None:
        data = os.urandom(1 << 16)
        store.create("a", len(data), [data])
        result = bytearray(len(data))
        with store.open("a") as reader:

            def part(begin: int) -> None:
                for at in range(begin, len(data), 4096):
                    reader.read_into(at, memoryview(result)[at : at + 1024])

            threads = [threading.Thread(target=part, args=(i * 1024,)) for i in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert result == data

    def test_it_never_overwrites(self, store: Store) -> None:
        store.create("a", 3, [b"old"])
        with pytest.raises(CheckpointExists) as caught:
            store.create("a", 3, (pytest.fail("asked for in vain") for _ in "x"))
        assert caught.value.where.endswith("a")
        assert read(store, "a") == b"old"

    def test_it_never_overwrites_what_came_meanwhile(self, store: Store) -> None:
        def chunks() -> Iterator[bytes]:
            store.create("a", 5, [b"first"])
            yield b"second"

        with pytest.raises(CheckpointExists):
            store.create("a", 6, chunks())
        assert read(store, "a") == b"first"
        assert files(store) <= {"a"}

    @pytest.mark.parametrize("error", [ValueError("mine"), OSError(errno.ENOSPC, "mine")])
    def test_an_error_of_the_chunks_passes_and_leaves_nothing(
        self, store: Store, error: Exception
    ) -> None:
        def chunks() -> Iterator[bytes]:
            yield b"x" * 100
            raise error

        with pytest.raises(type(error)) as caught:
            store.create("a", 200, chunks())
        assert caught.value is error
        assert contents(store) == {}
        assert files(store) == set()
        store.create("a", 1, [b"y"])

    @pytest.mark.parametrize("size", [0, 9, 11, 10**7])
    def test_a_wrong_size_is_refused_and_leaves_nothing(self, store: Store, size: int) -> None:
        with pytest.raises(StoreError, match=str(size)):
            store.create("a", size, [b"01234", b"56789"])
        assert contents(store) == {}
        assert files(store) == set()

    def test_a_store_that_was_never_written_is_empty(self, store: Store) -> None:
        assert contents(store) == {}
        with pytest.raises(NoCheckpoint), store.open("a"):
            pass
        with pytest.raises(NoCheckpoint):
            store.delete("a")
        assert not isinstance(store, LocalStore) or not store.path.exists()

    @pytest.mark.parametrize(
        "name", ["", ".", "..", ".a", "a/b", "/a", "../a", "a\0", "ü" * 128, "\ud800"], ids=ascii
    )
    def test_only_plain_names(self, store: Store, name: str) -> None:
        calls: list[Callable[[], object]] = [
            lambda: store.create(name, 0, []),
            lambda: store.delete(name),
            lambda: store.open(name).__enter__(),
        ]
        for call in calls:
            with pytest.raises(StoreError, match="not a name"):
                call()
        store.create("ü" * 127, 0, [])
        assert contents(store) == {"ü" * 127: 0}

    def test_the_lock_may_be_entered_again(self, store: Store) -> None:
        with store.lock():
            with store.lock():
                store.create("a", 1, [b"x"])
            store.create("b", 1, [b"x"])
            thread = threading.Thread(target=store.delete, args=("a",))
            thread.start()
            thread.join()
        with store.lock():
            assert contents(store) == {"b": 1}

    def test_others_of_a_job_write_under_one_lock(self, store: LocalStore | MemoryStore) -> None:
        store.without_lock().create("before", 1, [b"b"])  # which makes the directory, if need be
        with store.lock():
            other = store.without_lock()
            with other.lock(), other.without_lock().lock():
                other.create("a", 1, [b"a"])
            with pytest.raises(CheckpointExists):
                other.create("a", 1, [b"z"])
            other.delete("before")
        assert contents(store) == {"a": 1}
        assert read(store, "a") == b"a"

    def test_open_store_takes_it_as_it_is(self, store: Store) -> None:
        assert open_store(store) is store


class TestOpenStore:
    def test_a_path_is_a_directory(self, tmp_path: Path) -> None:
        for where in (tmp_path, str(tmp_path)):
            store = open_store(where)
            assert isinstance(store, LocalStore)
            assert store.path == tmp_path

    def test_memory_is_new_each_time(self) -> None:
        store = open_store("memory://")
        store.create("a", 0, [])
        assert contents(open_store("memory://")) == {}

    @pytest.mark.parametrize("where", ["ftp://bucket", "file:///tmp", "memory://x", "", 3, None])
    def test_anything_else_is_refused(self, where: Any) -> None:
        with pytest.raises(StoreError) as caught:
            open_store(where)
        assert "directory" in caught.value.hint

    def test_a_relative_path_stays_where_it_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        store = open_store("run")
        monkeypatch.chdir("/")
        store.create("a", 0, [])
        assert (tmp_path / "run" / "a").exists()


HOLD = """
import sys
from checkpointable.stores import LocalStore
with LocalStore(sys.argv[1]).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of `tmp_path` until its input ends."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


class TestLock:
    def test_another_process_is_named(self, tmp_path: Path, holder: subprocess.Popen[str]) -> None:
        store = LocalStore(tmp_path)
        (tmp_path / "old").write_bytes(b"x")
        calls: list[Callable[[], object]] = [
            lambda: store.create("a", 0, []),
            lambda: store.delete("old"),
        ]
        for call in calls:
            with pytest.raises(StoreLocked, match=f"pid {holder.pid} on host") as caught:
                call()
            assert socket.gethostname() in str(caught.value)
            assert caught.value.hint
        assert contents(store) == {"old": 1}
        assert read(store, "old") == b"x"

    @pytest.mark.parametrize("how", ["kill -9", "end"])
    def test_it_ends_with_the_process(
        self, tmp_path: Path, holder: subprocess.Popen[str], how: str
    ) -> None:
        if how == "end":
            holder.communicate("")
        else:
            holder.send_signal(signal.SIGKILL)
            holder.wait()
        with LocalStore(tmp_path).lock():
            pass
        assert (tmp_path / ".lock").exists()

    @pytest.mark.parametrize(
        "text", [b"", b"{", b"[]", b"\xff", b'{"pid":{}}', b"[" * 5000, b'{"pid":1e999,"host":[]}']
    )
    def test_a_torn_note_of_the_holder_is_no_problem(self, tmp_path: Path, text: bytes) -> None:
        with LocalStore(tmp_path).lock():
            (tmp_path / ".lock").write_bytes(text)
            with pytest.raises(StoreLocked), LocalStore(tmp_path).lock():
                pass
        with LocalStore(tmp_path).lock():
            pass

    def test_what_others_left_in_its_file_does_not_hide_the_holder(self, tmp_path: Path) -> None:
        for text in (b"[" * 5000, b'{"pid":1,"host":"%s"}\n' % (b"x" * 200), b"\n\n{}\n"):
            (tmp_path / ".lock").write_bytes(text)
            with LocalStore(tmp_path).lock():
                with pytest.raises(StoreLocked) as caught, LocalStore(tmp_path).lock():
                    pass
                named = f"pid {os.getpid()} on host {socket.gethostname()!r}"
                assert caught.value.what.endswith(named)

    @pytest.mark.parametrize("broken", [False, True])
    def test_an_earlier_holder_is_not_named(
        self, tmp_path: Path, broken: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither before the new one has said who it is, nor if it cannot."""
        with LocalStore(tmp_path).lock():
            if broken:
                monkeypatch.setattr(os, "pwrite", failing(errno.ENOSPC))
        file = os.open(tmp_path / ".lock", os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            with pytest.raises(StoreLocked, match="pid is not known"), LocalStore(tmp_path).lock():
                pass
        finally:
            os.close(file)
        (tmp_path / ".lock").write_bytes(b'{"pid":1,"host":"x"}\n')  # it was killed
        monkeypatch.setattr(os, "pwrite", failing(errno.ENOSPC))
        unknown = pytest.raises(StoreLocked, match="pid is not known")
        with LocalStore(tmp_path).lock(), unknown, LocalStore(tmp_path).lock():
            pass

    def test_it_is_free_after_an_error_within(self, tmp_path: Path) -> None:
        def fail() -> None:
            with LocalStore(tmp_path).lock():
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        with LocalStore(tmp_path).lock():
            pass

    def test_it_is_free_although_a_forked_child_lives_on(self, tmp_path: Path) -> None:
        code = """
import os, sys
from checkpointable.errors import StoreLocked
from checkpointable.stores import LocalStore
read, write = os.pipe()
with LocalStore(sys.argv[1]).lock():
    if not (child := os.fork()):
        os.close(write)
        os.read(read, 1)
        os._exit(0)
with LocalStore(sys.argv[1]).lock():
    print("free")
os.close(write)
os.waitpid(child, 0)
"""
        assert run(code, tmp_path) == "free\n"

    def test_who_writes_without_it_removes_nothing_and_ends_nothing(
        self, tmp_path: Path, holder: subprocess.Popen[str]
    ) -> None:
        leftover = tmp_path / f".checkpointable-{'0' * 32}.tmp"
        leftover.write_bytes(b"half")
        LocalStore(tmp_path).without_lock().create("a", 1, [b"a"])
        assert leftover.exists()
        with pytest.raises(StoreLocked, match=f"pid {holder.pid} "), LocalStore(tmp_path).lock():
            pass

    def test_leftovers_of_the_dead_are_removed_and_only_those(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        without_tmpfile(monkeypatch)
        dead = f".checkpointable-{'0a' * 16}.tmp"
        others = {"a.tmp", ".b.tmp", f"{dead}x", f".checkpointable-{'0g' * 16}.tmp", "step-1"}
        for name in {dead, *others}:
            (tmp_path / name).write_bytes(b"x")

        store = LocalStore(tmp_path)

        def chunks() -> Iterator[bytes]:
            living = files(store) - others - {dead}
            assert len(living) == 1
            with LocalStore(tmp_path).lock():
                assert files(store) - others == living
            yield b"x"

        write_durably(tmp_path, "saved", 1, chunks())
        assert files(store) == {"saved", *others}

    def test_a_full_disk_does_not_keep_from_deleting(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = LocalStore(tmp_path)
        store.create("a", 1, [b"x"])
        monkeypatch.setattr(os, "pwrite", failing(errno.ENOSPC))
        store.delete("a")
        assert contents(store) == {}


def failing(number: int, after: int = 0) -> Callable[..., Any]:
    """A system call that fails from the (`after` + 1)th time on; before, it does nothing."""
    calls = iter(range(after))

    def fail(*args: Any, **kwargs: Any) -> None:
        for _ in calls:
            return
        raise OSError(number, os.strerror(number))

    return fail


def run(code: str, *args: object) -> str:
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


class TestLocalFiles:
    def test_other_things_are_not_listed(self, tmp_path: Path) -> None:
        store = LocalStore(tmp_path)
        store.create("a", 1, [b"x"])
        (tmp_path / "directory").mkdir()
        (tmp_path / "link").symlink_to("a")
        (tmp_path / ".hidden").write_bytes(b"x")
        os.mkfifo(tmp_path / "pipe")
        os.close(os.open(os.fsencode(tmp_path) + b"/\xff", os.O_CREAT))
        assert contents(store) == {"a": 1}

    @pytest.mark.parametrize("kind", ["link", "dangling", "loop", "directory", "pipe", "socket"])
    def test_only_a_regular_file_is_opened(
        self, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)  # the name of a socket must be short
        Path("target").write_bytes(b"secret")
        with socket.socket(socket.AF_UNIX) as plug:
            {
                "link": lambda: Path("a").symlink_to("target"),
                "dangling": lambda: Path("a").symlink_to("nowhere"),
                "loop": lambda: Path("a").symlink_to("a"),
                "directory": lambda: Path("a").mkdir(),
                "pipe": lambda: os.mkfifo("a"),
                "socket": lambda: plug.bind("a"),
            }[kind]()
            store = LocalStore(tmp_path)
            with pytest.raises(CorruptCheckpoint, match="regular"), store.open("a"):
                pass
            with pytest.raises(CheckpointExists):
                store.create("a", 0, [])
            assert Path("target").read_bytes() == b"secret"

    def test_a_path_of_the_user_may_be_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "target").write_bytes(b"x")
        (tmp_path / "link").symlink_to("target")
        with open_reader(tmp_path / "link") as reader:
            assert reader.size == 1
        with pytest.raises(NoCheckpoint), open_reader(tmp_path / "nothing"):
            pass

    @pytest.mark.parametrize("umask", [0o022, 0o077])
    def test_the_umask_is_respected(
        self, tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = os.umask(umask)
        try:
            write_durably(tmp_path, "a", 0, [])
            without_tmpfile(monkeypatch)
            write_durably(tmp_path, "b", 0, [])
        finally:
            os.umask(before)
        for name in "ab":
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask

    def test_without_proc_a_file_has_a_name_from_the_beginning(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("checkpointable.stores.local.file._has_proc", lambda: False)

        def chunks() -> Iterator[bytes]:
            assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]
            yield b"x"

        write_durably(tmp_path, "a", 1, chunks())
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    def test_short_writes_and_reads_go_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pwrite, preadv = os.pwrite, os.preadv
        monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:3], at))
        monkeypatch.setattr(os, "preadv", lambda fd, to, at: preadv(fd, [to[0][:3]], at))
        store = LocalStore(tmp_path)
        store.create("a", 10, [b"0123456789"])
        assert read(store, "a") == b"0123456789"

    def test_a_file_that_shrinks_is_corrupt(self, tmp_path: Path) -> None:
        store = LocalStore(tmp_path)
        store.create("a", 10, [b"0123456789"])
        with store.open("a") as reader:
            os.truncate(tmp_path / "a", 4)
            with pytest.raises(CorruptCheckpoint, match="ends before byte 10"):
                reader.read_into(0, memoryview(bytearray(10)))

    @pytest.mark.parametrize(
        ("number", "error"), [(errno.EIO, CorruptCheckpoint), (errno.EBADF, StoreError)]
    )
    def test_errors_of_reading(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
        error: type[CheckpointableError],
    ) -> None:
        store = LocalStore(tmp_path)
        store.create("a", 1, [b"x"])
        monkeypatch.setattr(os, "preadv", failing(number))
        with store.open("a") as reader, pytest.raises(error) as caught:
            reader.read_into(0, memoryview(bytearray(1)))
        assert type(caught.value) is error
        assert caught.value.where == str(tmp_path / "a")

    def test_a_closed_reader_reads_nothing_else(self, tmp_path: Path) -> None:
        store = LocalStore(tmp_path)
        store.create("a", 1, [b"x"])
        with store.open("a") as reader:
            pass
        with store.open("a"), pytest.raises(StoreError):
            reader.read_into(0, memoryview(bytearray(1)))

    @pytest.mark.parametrize("path", ["file", "file/below"])
    def test_a_store_where_a_file_is(self, tmp_path: Path, path: str) -> None:
        (tmp_path / "file").write_bytes(b"x")
        store = LocalStore(tmp_path / path)
        for call in (store.list, lambda: store.create("a", 0, []), lambda: store.delete("a")):
            with pytest.raises(StoreError):
                call()
        with pytest.raises(StoreError), store.open("a"):
            pass
        assert (tmp_path / "file").read_bytes() == b"x"


class TestWriteDurably:
    @pytest.fixture(params=[writer.LARGE, 1], ids=["small", "large"], autouse=True)
    def large(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have even a byte written as the bytes of large files are."""
        monkeypatch.setattr(writer, "LARGE", request.param)

    @pytest.mark.parametrize("scratch", [False, True])
    def test_the_sequence(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scratch: bool
    ) -> None:
        """The whole point: nothing is named before it is safe, nor done before the name is."""
        if scratch:
            without_tmpfile(monkeypatch)
        steps: list[str] = []
        for name in ("pwrite", "fsync", "link", "unlink", "posix_fallocate"):
            monkeypatch.setattr(os, name, noting(steps, name, getattr(os, name)))
        write_durably(tmp_path, "a", 2, [b"x", b"y"])
        named = ["link", "unlink"] if scratch else ["link"]
        large = ["posix_fallocate", "pwrite"]  # gathered; for small ones room is not asked for
        before = [*(large if writer.LARGE == 1 else ["pwrite", "pwrite"]), "fsync file"]
        after = ["fsync directory", "fsync file"]
        assert steps[: len(before + named + after)] == before + named + after

    @pytest.mark.parametrize("scratch", [False, True])
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
    @pytest.mark.parametrize("call", ["posix_fallocate", "pwrite", "fsync", "link"])
    def test_an_error_throws_the_file_away(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        scratch: bool,
        call: str,
        number: int,
    ) -> None:
        if scratch:
            without_tmpfile(monkeypatch)
        if call == "posix_fallocate":  # which small files go without
            monkeypatch.setattr(writer, "LARGE", 1)
        store = LocalStore(tmp_path)
        with store.lock():
            with monkeypatch.context() as patch:
                patch.setattr(os, call, failing(number))
                with pytest.raises(StoreError) as caught:
                    store.create("a", 1, [b"x"])
            assert type(caught.value) is (StoreError if number == errno.EIO else StoreFull)
            assert caught.value.where == str(store.path / "a")
            assert caught.value.hint
            assert files(store) == set()
            store.create("a", 1, [b"y"])
        assert read(store, "a") == b"y"

    def test_without_fallocate_it_writes_all_the_same(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "posix_fallocate", failing(errno.EOPNOTSUPP))
        write_durably(tmp_path, "a", 1, [b"x"])
        assert (tmp_path / "a").read_bytes() == b"x"

    @pytest.mark.parametrize("after", [1, 2])
    def test_an_error_after_the_link_withdraws_it_and_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
    ) -> None:
        monkeypatch.setattr(os, "fsync", failing(errno.EIO, after))
        with pytest.raises(
            StoreError, match=r"not be made durable \(Input/output error\).*withdrawn"
        ) as caught:
            write_durably(tmp_path, "a", 1, [b"x"])
        assert "crash" in caught.value.hint
        assert list(tmp_path.iterdir()) == []

    def test_what_cannot_be_withdrawn_is_reported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "fsync", failing(errno.EIO, 1))
        monkeypatch.setattr(os, "unlink", failing(errno.EIO))
        with pytest.raises(StoreError, match="still there") as caught:
            write_durably(tmp_path, "a", 1, [b"x"])
        assert "crash" in caught.value.hint

    def test_an_interrupt_stays_an_interrupt(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = os.link

        def interrupted(*args: Any, **kwargs: Any) -> None:
            link(*args, **kwargs)
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "link", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_durably(tmp_path, "a", 1, [b"x"])
        assert list(tmp_path.iterdir()) == []

    def test_a_real_limit_of_file_size_is_full(self, tmp_path: Path) -> None:
        code = """
import os, resource, signal, sys
from checkpointable.errors import StoreFull
from checkpointable.stores import LocalStore
store = LocalStore(sys.argv[1])
store.create("small", 10, [b"0123456789"])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for fallocate in (os.posix_fallocate, lambda *args: None):
    os.posix_fallocate = fallocate
    try:
        store.create("big", 10_000, [b"x" * 5000] * 2)
    except StoreFull as error:
        print(error.where, [entry.name for entry in store.list()])
"""
        assert run(code, tmp_path) == f"{tmp_path / 'big'} ['small']\n" * 2
        assert files(LocalStore(tmp_path)) == {"small"}

    def test_new_directories_are_durable(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[Path] = []
        monkeypatch.setattr(local, "sync_directory", synced.append)
        LocalStore(tmp_path / "a" / "b").create("x", 0, [])
        assert {tmp_path, tmp_path / "a"} <= set(synced)
        synced.clear()
        LocalStore(tmp_path / "a" / "b").create("y", 0, [])
        assert synced == []

    def test_a_deletion_is_durable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = LocalStore(tmp_path)
        store.create("x", 0, [])
        synced: list[Path] = []
        monkeypatch.setattr(local, "sync_directory", synced.append)
        store.delete("x")
        assert synced == [tmp_path]

    def test_a_new_name_is_durable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = LocalStore(tmp_path)
        store.create("x", 1, [b"x"])
        synced: list[Path] = []
        monkeypatch.setattr(local, "sync_directory", synced.append)
        store.rename("x", "y")
        assert synced == [tmp_path]
        assert [entry.name for entry in store.list()] == ["y"]

    def test_a_new_name_is_never_that_of_another(self, tmp_path: Path) -> None:
        store = LocalStore(tmp_path)
        for name in ("x", "y"):
            store.create(name, 1, [name.encode()])
        with pytest.raises(CheckpointExists):
            store.rename("x", "y")
        assert {(tmp_path / name).read_text() for name in ("x", "y")} == {"x", "y"}

    @pytest.mark.parametrize("folder", [".", "absent"])
    def test_nothing_has_no_new_name(self, tmp_path: Path, folder: str) -> None:
        with pytest.raises(NoCheckpoint):
            LocalStore(tmp_path / folder).rename("x", "y")
        assert not (tmp_path / "absent").exists()


def noting(steps: list[str], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*args: Any, **kwargs: Any) -> Any:
        what = ""
        if name == "fsync":
            what = " directory" if stat.S_ISDIR(os.fstat(args[0]).st_mode) else " file"
        steps.append(name + what)
        return call(*args, **kwargs)

    return noted
