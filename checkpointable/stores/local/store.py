"""A store in a local directory: durable files, each written once; one writer at a time."""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import orjson

from checkpointable.errors import NoCheckpoint, StoreError, StoreLocked
from checkpointable.stores.local.errors import os_errors
from checkpointable.stores.local.file import (
    SCRATCH,
    check_name,
    close,
    name_fault,
    open_reader,
    sync_directory,
    write_durably,
)
from checkpointable.stores.protocol import Buffer, Entry, Reader
from checkpointable.stores.shared_lock import SharedLock

_LOCK = ".lock"
_SCANS = 10  # a scan of a directory that changes may miss both the old and the new


class LocalStore:
    """Checkpoints as plain files in one directory, which the first write makes.

    Whole or absent, and durable when `create` returns, through crash and power cut. One process
    writes at a time; any number read. Safe to use from many threads.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()  # the process may change its directory
        self._lock = SharedLock(lambda: _acquire(self.path), _release)

    def __repr__(self) -> str:
        return f"LocalStore({str(self.path)!r})"

    def create(self, name: str, size: int, chunks: Iterable[Buffer], /) -> None:
        """See `checkpointable.stores.Create`."""
        check_name(name)
        with self.lock():
            write_durably(self.path, name, size, chunks)

    @contextmanager
    def open(self, name: str, /) -> Iterator[Reader]:
        """See `checkpointable.stores.Open`; a file that is not regular is a `CorruptCheckpoint`."""
        check_name(name)
        with open_reader(self.path / name, follow_symlinks=False) as reader:
            yield reader

    def list(self) -> Iterator[Entry]:
        """See `checkpointable.stores.List`; a directory that does not exist holds nothing."""
        entries: list[Entry] = []
        with os_errors(self.path), suppress(FileNotFoundError):
            for _ in range(_SCANS):
                before = self.path.stat().st_mtime_ns
                entries = [*_scan(self.path)]
                if self.path.stat().st_mtime_ns == before:
                    break
        return iter(entries)

    def delete(self, name: str, /) -> None:
        """See `checkpointable.stores.Delete`."""
        check_name(name)
        with os_errors(self.path / name):
            if not self.path.is_dir():  # the lock would make it
                raise NoCheckpoint("no such checkpoint", where=str(self.path / name))
            with self.lock():
                (self.path / name).unlink()
                sync_directory(self.path)

    def rename(self, name: str, new: str, /) -> None:
        """See `checkpointable.stores.Renames`."""
        check_name(name)
        check_name(new)
        with os_errors(self.path / new):
            if not self.path.is_dir():
                raise NoCheckpoint("no such checkpoint", where=str(self.path / name))
            with self.lock():
                if os.path.lexists(self.path / new):
                    raise FileExistsError
                (self.path / name).rename(self.path / new)
                sync_directory(self.path)

    def lock(self) -> AbstractContextManager[None]:
        """See `checkpointable.stores.Lock`; threads that use this object share the lock.

        Acquiring it removes what a killed writer left behind.
        """
        return self._lock.held()

    def without_lock(self) -> "LocalStore":
        """See `checkpointable.stores.SharedWriters`."""
        return _SharedStore(self.path)


class _SharedStore(LocalStore):
    """The same directory, written under the lock of another process."""

    @contextmanager
    def lock(self) -> Iterator[None]:
        with os_errors(self.path):
            if not self.path.is_dir():
                _make_directory(self.path)
        yield


def _scan(path: Path) -> Iterator[Entry]:
    with os.scandir(path) as items:
        for item in items:
            with suppress(FileNotFoundError):  # deleted meanwhile
                if not name_fault(item.name) and item.is_file(follow_symlinks=False):
                    status = item.stat(follow_symlinks=False)
                    yield Entry(item.name, status.st_size, status.st_mtime)


def _make_directory(path: Path) -> None:
    """Make it and what is missing above it, durably."""
    new = [path]
    new += [parent for parent in path.parents if not parent.exists()]
    existed = path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # no name of a checkpoint is taken
        hint = "give a directory, or a path where one can be made"
        raise StoreError(
            "something else than a directory is there", where=str(path), hint=hint
        ) from None
    for directory in new:
        try:
            sync_directory(directory.parent)
        except PermissionError:
            if not existed:
                raise


def _acquire(path: Path) -> int:
    with os_errors(path):
        file = _open_lock(path)
        try:
            _take(file, path)
            _sweep(path)
        except BaseException:
            close(file)
            raise
        return file


def _open_lock(path: Path) -> int:
    lock, flags = f"{path}/{_LOCK}", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(lock, flags)
    except (FileNotFoundError, NotADirectoryError):  # where it is, the directory is durable
        _make_directory(path)
        return os.open(lock, flags | os.O_CREAT, 0o666)


def _take(file: int, path: Path) -> None:
    """Lock it, and say in its first line who has it; what is behind that may be of others."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        what = f"another writer holds the store: {_holder(file)}"
        hint = "wait until it ends, or save elsewhere"
        raise StoreLocked(what, where=str(path), hint=hint) from None
    holder = {"pid": os.getpid(), "host": os.uname().nodename}
    try:
        os.pwrite(file, orjson.dumps(holder, option=orjson.OPT_APPEND_NEWLINE), 0)
    except OSError:  # a full disk must not keep us from deleting
        _say_nothing(file)


def _release(file: int) -> None:
    try:
        os.pwrite(file, b"\n", 0)  # nobody; much faster than to truncate
    except OSError:
        _say_nothing(file)
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough if a child has inherited it
    close(file)


def _say_nothing(file: int) -> None:
    with suppress(OSError):
        os.ftruncate(file, 0)


def _holder(file: int) -> str:
    try:
        holder = orjson.loads(os.pread(file, 4096, 0).partition(b"\n")[0])
        return f"pid {holder['pid']!r:.20} on host {holder['host']!r:.255}"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "its pid is not known"


def _sweep(path: Path) -> None:
    """Remove the scratch files of killed writers; a living one has a lock on its own."""
    for name in os.listdir(path):  # noqa: PTH208  (names are enough, and much faster)
        if SCRATCH.fullmatch(name):
            scratch = path / name
            with suppress(OSError):
                file = os.open(scratch, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    scratch.unlink()
                finally:
                    close(file)
