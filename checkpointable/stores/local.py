"""A store in a local directory: durable files, each written once."""

import errno
import fcntl
import json
import os
import re
import secrets
import socket
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from checkpointable.errors import (
    CheckpointExists,
    CorruptCheckpoint,
    NoCheckpoint,
    StoreError,
    StoreFull,
    StoreLocked,
)
from checkpointable.store import Buffer, Entry, Reader

_LOCK = ".lock"
_SCRATCH = re.compile(r"\.checkpointable-[0-9a-f]{32}\.tmp")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS, errno.ENODEV)


class LocalStore:
    """Checkpoints as plain files in one directory, which the first write makes.

    Whole or absent, and durable when `create` returns, through crash and power cut. One process
    writes at a time; any number read. Safe to use from many threads.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()  # the process may change its directory
        self._guard = threading.Lock()
        self._holds = 0
        self._lock_file = -1

    def __repr__(self) -> str:
        return f"LocalStore({str(self.path)!r})"

    def create(self, name: str, size: int, chunks: Iterable[Buffer], /) -> None:
        """See `checkpointable.store.Create`."""
        check_name(name)
        with self.lock():
            write_durably(self.path, name, size, chunks)

    @contextmanager
    def open(self, name: str, /) -> Iterator[Reader]:
        """See `checkpointable.store.Open`; raises `CorruptCheckpoint` if it is no regular file."""
        check_name(name)
        with open_reader(self.path / name, follow_symlinks=False) as reader:
            yield reader

    def list(self) -> Iterator[Entry]:
        """See `checkpointable.store.List`; a directory that is not there holds nothing."""
        entries = []
        with _errors(self.path), suppress(FileNotFoundError), os.scandir(self.path) as found:
            for item in found:
                with suppress(FileNotFoundError):  # deleted meanwhile
                    if not _fault(item.name) and item.is_file(follow_symlinks=False):
                        status = item.stat(follow_symlinks=False)
                        entries.append(Entry(item.name, status.st_size, status.st_mtime))
        return iter(entries)

    def delete(self, name: str, /) -> None:
        """See `checkpointable.store.Delete`."""
        check_name(name)
        if not self.path.is_dir():  # the lock would make it
            raise NoCheckpoint("no such checkpoint", where=str(self.path / name))
        with self.lock(), _errors(self.path / name):
            (self.path / name).unlink()
            _sync_directory(self.path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """See `checkpointable.store.Lock`; also for all threads that use this object.

        Taking it removes what a killed writer has left behind.
        """
        with self._guard:
            if not self._holds:
                self._lock_file = _acquire(self.path)
            self._holds += 1
        try:
            yield
        finally:
            with self._guard:
                self._holds -= 1
                if not self._holds:
                    _release(self._lock_file)


def write_durably(
    directory: str | os.PathLike[str], name: str, size: int, chunks: Iterable[Buffer]
) -> None:
    """Write a file whole or not at all, durable on return, never over another; takes no lock.

    The promises and errors are those of `checkpointable.store.Create.create`.
    """
    where = Path(directory) / name
    with ExitStack() as stack:
        with _errors(where):
            folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, folder)
            if os.path.lexists(where):  # asked early, to spare the work; link has the last word
                raise FileExistsError
            file, scratch = _open_scratch(folder)
            stack.callback(os.close, file)
            if scratch:
                stack.callback(_unlink_if_there, scratch, folder)
            _reserve(file, size)
        for chunk in exactly(size, chunks, str(where)):
            with _errors(where):
                _write(file, chunk)
        with _errors(where):
            os.fsync(file)  # never retried: after an error the next one may lie
        try:
            with _errors(where):
                source = scratch or f"/proc/self/fd/{file}"
                os.link(source, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=True)
                if scratch:
                    _unlink_if_there(scratch, folder)
                os.fsync(folder)
                # XFS, after a forced shutdown, lost 9 of 300 files that were synced only before
                # they were linked, and none that were synced once more.
                os.fsync(file)
        except BaseException as error:
            _withdraw(folder, name, file, where, error)
            raise


@contextmanager
def open_reader(path: str | os.PathLike[str], follow_symlinks: bool = True) -> Iterator[Reader]:
    """Open one file for reading.

    Raises `NoCheckpoint` if nothing is there, `CorruptCheckpoint` if it is no regular file.
    """
    # Without O_NONBLOCK, a pipe of that name would hang us.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    with ExitStack() as stack:
        try:
            file = os.open(path, flags if follow_symlinks else flags | os.O_NOFOLLOW)
            stack.callback(os.close, file)
            status = os.fstat(file)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):
                raise _translated(error, Path(path)) from error
            regular = False
        else:
            regular = stat.S_ISREG(status.st_mode)
        if not regular:
            raise CorruptCheckpoint("not a regular file", where=os.fspath(path))
        reader = _Reader(file, status.st_size, Path(path))
        stack.callback(reader.close)
        yield reader


class _Reader:
    def __init__(self, file: int, size: int, where: Path) -> None:
        self._file = file
        self._size = size
        self._where = where

    @property
    def size(self) -> int:
        return self._size

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        while len(buffer):
            try:
                count = os.preadv(self._file, [buffer], offset)
            except OSError as error:
                if error.errno == errno.EIO:
                    what = f"the medium cannot give byte {offset} back"
                    raise CorruptCheckpoint(what, where=str(self._where)) from error
                raise _translated(error, self._where) from error
            if not count:
                what = f"the file ends before byte {offset + len(buffer)}"
                raise CorruptCheckpoint(what, where=str(self._where))
            buffer = buffer[count:]
            offset += count

    def close(self) -> None:
        self._file = -1  # whoever reads on gets EBADF, not another file that has the number by then


def check_name(name: str) -> None:
    """Raise `StoreError` unless it is a plain name: 1 to 255 bytes, no slash, no leading dot."""
    if fault := _fault(name):
        raise StoreError(f"not a name for a checkpoint: {fault}", where=repr(name))


def exactly(size: int, chunks: Iterable[Buffer], where: str) -> Iterator[memoryview]:
    """Pass the chunks on, and raise `StoreError` unless they have `size` bytes in all."""
    count = 0
    for chunk in chunks:
        view = memoryview(chunk).cast("B")
        count += len(view)
        if count > size:
            raise StoreError(f"more bytes came than the {size} announced", where=where)
        yield view
    if count < size:
        raise StoreError(f"{count} bytes came, and {size} were announced", where=where)


def _fault(name: str) -> str:
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "it is not Unicode"
    if not 1 <= length <= 255:
        return f"it has {length} bytes, and may have 1 to 255"
    if "/" in name or "\0" in name:
        return "it has a slash or a NUL"
    return "it begins with a dot" if name.startswith(".") else ""


def _translated(error: OSError, where: Path) -> StoreError:
    text = error.strerror or "the name is taken"
    if error.errno in _FULL:
        hint = "free some space, or raise the quota or the limit of file size (ulimit -f)"
        return StoreFull(f"no room for it: {text}", where=str(where), hint=hint)
    if isinstance(error, FileExistsError):
        hint = "save under another name, or delete that one first"
        return CheckpointExists("the name is taken", where=str(where), hint=hint)
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return NoCheckpoint("nothing is there", where=str(where), hint="check the path")
    hint = "check the permissions, the medium, and that it is a local file system with hard links"
    return StoreError(text, where=str(where), hint=hint)


@contextmanager
def _errors(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _translated(error, where) from error


def _open_scratch(folder: int) -> tuple[int, str]:
    """Open a file without a name, or where that is not possible, with one of `_SCRATCH`."""
    try:
        file = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=folder)
        if Path(f"/proc/self/fd/{file}").exists():  # by which it is linked
            return file, ""
        os.close(file)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    scratch = f".checkpointable-{secrets.token_hex(16)}.tmp"
    flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC
    file = os.open(scratch, flags, 0o666, dir_fd=folder)
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # so that _sweep leaves it alone
    return file, scratch


def _reserve(file: int, size: int) -> None:
    """Find out at once whether there is room."""
    try:
        if size:
            os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (*_UNSUPPORTED, errno.EBADF):
            raise


def _write(file: int, view: memoryview) -> None:
    while len(view):
        view = view[os.write(file, view) :]


def _withdraw(folder: int, name: str, file: int, where: Path, error: BaseException) -> None:
    """Take the name away again, if it is this file's; if that fails, say so."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return
    if not os.path.samestat(found, os.fstat(file)):
        return
    try:
        os.unlink(name, dir_fd=folder)
        what, hint = "withdrawn", "after a crash of the machine it may be there again, whole"
    except OSError:
        what, hint = "still there, and whole", "a crash of the machine may take it: save again"
    if isinstance(error, StoreError):
        what = f"it could not be made durable ({error.what}); it is {what}"
        raise type(error)(what, where=str(where), hint=hint) from error


def _unlink_if_there(name: str, folder: int) -> None:
    with suppress(OSError):  # what stays is removed by the next one who takes the lock
        os.unlink(name, dir_fd=folder)


def _sync_directory(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _make_directory(path: Path) -> None:
    """Make it and what is missing above it, durably."""
    new = [path]
    new += [parent for parent in path.parents if not parent.exists()]
    existed = path.exists()
    path.mkdir(parents=True, exist_ok=True)
    for directory in new:
        try:
            _sync_directory(directory.parent)
        except PermissionError:
            if not existed:
                raise


def _acquire(path: Path) -> int:
    with ExitStack() as stack, _errors(path):
        if not (path / _LOCK).exists():  # where it is, the directory is durable
            _make_directory(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(path / _LOCK, flags, 0o666)
        stack.callback(os.close, file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what = f"another writer holds the store: {_holder(file)}"
            hint = "wait until it ends, or save elsewhere"
            raise StoreLocked(what, where=str(path), hint=hint) from None
        with suppress(OSError):  # a full disk must not keep us from deleting
            os.ftruncate(file, 0)
            os.pwrite(
                file, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0
            )
        _sweep(path)
        stack.pop_all()
        return file


def _release(file: int) -> None:
    with suppress(OSError):
        os.ftruncate(file, 0)
    try:
        fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough if a child has inherited it
    finally:
        os.close(file)


def _holder(file: int) -> str:
    try:
        said = json.loads(os.pread(file, 4096, 0))
        return f"pid {said['pid']!r:.20} on host {said['host']!r:.255}"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "its pid is not known"


def _sweep(path: Path) -> None:
    """Remove the scratch files of killed writers; a living one has a lock on its own."""
    for scratch in path.iterdir():
        if _SCRATCH.fullmatch(scratch.name):
            with suppress(OSError):
                file = os.open(scratch, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    scratch.unlink()
                finally:
                    os.close(file)
