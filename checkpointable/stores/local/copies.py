"""Copies of a file that take the least space; durable, and never over another file."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias

from checkpointable.stores.local.errors import os_errors
from checkpointable.stores.local.file import close

How: TypeAlias = Literal["linked", "cloned", "copied"]
"""A hard link; a file that shares the blocks; or one that shares nothing."""

_FICLONE = 0x40049409  # of linux/fs.h
_PIECE = 1 << 24


def duplicate(source: Path, target: Path) -> How:
    """Copy `source` to `target` in the way that takes the least space.

    Checkpoints never change, so a hard link is as good as a copy, except against damage to the
    medium. The file is durable on return, its name once the directory is synced. Raises
    `CheckpointExists` if the name is taken, `NoCheckpoint` if there is no such file, `StoreFull`.
    """
    with os_errors(target if os.path.lexists(target) else source):
        file = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            try:
                os.link(source, target, follow_symlinks=False)
            except (FileExistsError, FileNotFoundError):
                raise
            except OSError:  # another file system, one without links, or another user's file
                pass
            else:
                os.fsync(file)
                return "linked"
            return _own(file, target)
        finally:
            close(file)


def _own(file: int, target: Path) -> How:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    made = os.open(target, flags, 0o666)
    try:
        how = _fill(file, made)
        status = os.fstat(file)
        os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(made)
    except BaseException:
        with suppress(OSError):
            target.unlink()
        raise
    finally:
        close(made)
    return how


def _fill(file: int, made: int) -> How:
    try:
        fcntl.ioctl(made, _FICLONE, file)
    except OSError:  # not on this file system
        offset = 0
        while piece := os.pread(file, _PIECE, offset):
            view = memoryview(piece)
            while view:
                view = view[os.write(made, view) :]
            offset += len(piece)
        return "copied"
    return "cloned"
