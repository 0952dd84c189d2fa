"""Single files: written durably and whole or not at all, and read with suspicion.

`write_durably` is the one place where the order of the system calls decides what a crash leaves.
"""

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

from checkpointable.errors import CorruptCheckpoint, StoreError
from checkpointable.stores.local.errors import os_errors, translated
from checkpointable.stores.local.mapped import Mapping
from checkpointable.stores.local.writer import write_all
from checkpointable.stores.protocol import Buffer

SCRATCH = re.compile(r"\.checkpointable-[0-9a-f]{32}\.tmp")
"""The names of unfinished files, where the file system has none without a name."""

_LEAST_MAPPED = 1 << 18  # bytes; below, read(2) is as fast
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS, errno.ENODEV)


def write_durably(directory: Path, name: str, size: int, chunks: Iterable[Buffer]) -> None:
    """Write a file whole or not at all, durable on return, never over another; takes no lock.

    The promises and errors are those of `checkpointable.stores.protocol.Create.create`.
    """
    where = directory / name
    with os_errors(where):
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with os_errors(where):
            if os.path.lexists(where):  # asked early, to spare the work; link has the last word
                raise FileExistsError
            file, scratch = _open_scratch(folder)
        try:
            write_all(file, size, exactly(size, chunks, str(where)), where)
            with os_errors(where):
                os.fsync(file)  # never retried: after an error the next one may lie
            _publish(file, scratch, folder, name, where)
        finally:
            if scratch:
                _unlink_if_there(scratch, folder)
            close(file)
    finally:
        close(folder)


def _publish(file: int, scratch: str, folder: int, name: str, where: Path) -> None:
    """Give a file its name, durably; or, if that fails, none."""
    try:
        with os_errors(where):
            source = scratch or f"/proc/self/fd/{file}"
            os.link(source, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=True)
            if scratch:
                _unlink_if_there(scratch, folder)
            os.fsync(folder)
            # XFS was once seen to lose 9 of 300 files in power cuts without this one; with
            # either of the two left out, later ones lost none, and with neither 93 of 100.
            os.fsync(file)
    except BaseException as error:
        _withdraw(folder, name, file, where, error)
        raise


@contextmanager
def open_reader(
    path: str | os.PathLike[str], *, follow_symlinks: bool = True
) -> Iterator["FileReader"]:
    """Open one file for reading.

    Raises `NoCheckpoint` if nothing is there, `CorruptCheckpoint` if it is not a regular file.
    """
    # Without O_NONBLOCK, a pipe of that name would hang us.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    with ExitStack() as stack:
        try:
            file = os.open(path, flags if follow_symlinks else flags | os.O_NOFOLLOW)
            stack.callback(close, file)
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.ENXIO, "not a regular file")
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                what = "not a regular file"
                raise CorruptCheckpoint(what, where=os.fspath(path)) from error
            raise translated(error, Path(path)) from error
        reader = FileReader(file, status.st_size, Path(path))
        stack.callback(reader.close)
        yield reader


class FileReader:
    """A file that is open for reading: see `checkpointable.stores.protocol.Reader`."""

    def __init__(self, file: int, size: int, where: Path) -> None:
        self._file = file
        self._size = size
        self._where = where
        self._mapping: Mapping | None = None

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self._size

    def mapped(self) -> Mapping:
        """The whole file in memory; it stays when the file is closed. Raises `OSError`."""
        if self._mapping is None:
            self._mapping = Mapping(self._file, self._size)
        return self._mapping

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """See `checkpointable.stores.Reader`."""
        if len(buffer) >= _LEAST_MAPPED:
            with suppress(OSError):  # not on this file system
                if self.mapped().copy(offset, buffer):
                    return
        while len(buffer):
            try:
                count = os.preadv(self._file, [buffer], offset)
            except OSError as error:
                if error.errno == errno.EIO:
                    what = f"the medium cannot give byte {offset} back"
                    raise CorruptCheckpoint(what, where=str(self._where)) from error
                raise translated(error, self._where) from error
            if not count:
                what = f"the file ends before byte {offset + len(buffer)}"
                raise CorruptCheckpoint(what, where=str(self._where))
            buffer = buffer[count:]
            offset += count

    def close(self) -> None:
        """Read no more."""
        self._file = -1  # whoever reads on gets EBADF, not another file that has the number by then


def check_name(name: str) -> None:
    """Raise `StoreError` unless it is a plain name: 1 to 255 bytes, no slash, no leading dot."""
    if fault := name_fault(name):
        raise StoreError(f"not a name for a checkpoint: {fault}", where=repr(name))


def exactly(size: int, chunks: Iterable[Buffer], where: str) -> Iterator[memoryview]:
    """Pass the chunks on, and raise `StoreError` unless they have `size` bytes in all."""
    count = 0
    for chunk in chunks:
        view = memoryview(chunk).cast("B")
        count += len(view)
        if count > size:
            raise StoreError(f"got more than the announced {size} bytes", where=where)
        yield view
    if count < size:
        raise StoreError(f"got {count} bytes, but {size} were announced", where=where)


def name_fault(name: str) -> str:
    """What is wrong with a name; empty if it is valid."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "it is not Unicode"
    if not 1 <= length <= 255:
        return f"it has {length} bytes, and may have 1 to 255"
    if "/" in name or "\0" in name:
        return "it has a slash or a NUL"
    return "it begins with a dot" if name.startswith(".") else ""


def _open_scratch(folder: int) -> tuple[int, str]:
    """Open a file without a name, or where that is not possible, with one of `SCRATCH`."""
    try:
        file = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=folder)
        if _has_proc():  # by which it is linked
            return file, ""
        close(file)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    scratch = f".checkpointable-{os.urandom(16).hex()}.tmp"
    flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC
    file = os.open(scratch, flags, 0o666, dir_fd=folder)
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # so that _sweep leaves it alone
    return file, scratch


@cache
def _has_proc() -> bool:
    return Path("/proc/self/fd").exists()


def _withdraw(folder: int, name: str, file: int, where: Path, error: BaseException) -> None:
    """Remove the name again, if it is this file's, and say in the error whether that worked."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return
    if not os.path.samestat(status, os.fstat(file)):
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
    with suppress(OSError):  # the next writer to take the lock removes it
        os.unlink(name, dir_fd=folder)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        close(folder)


def close(file: int) -> None:
    """Close a descriptor; an error now says nothing that fsync has not said before."""
    with suppress(OSError):
        os.close(file)
