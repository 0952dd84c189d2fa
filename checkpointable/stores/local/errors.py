"""What an `OSError` means to a store."""

import errno
from pathlib import Path

from checkpointable.errors import CheckpointExists, NoCheckpoint, StoreError, StoreFull

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def translated(error: OSError, where: Path) -> StoreError:
    """The `StoreError` for an error of the system at this path."""
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


class os_errors:
    """A context that turns an `OSError` into the `StoreError` that it means."""

    def __init__(self, where: Path) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            raise translated(error, self._where) from error
