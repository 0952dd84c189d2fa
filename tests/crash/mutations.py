"""Ways to get it wrong, each of which the explorer must catch: it is tested by mutation."""

import errno
import os
import stat
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from checkpointable import archive

_chosen = ""
_fsync, _link, _open = os.fsync, os.link, os.open


def chosen() -> str:
    """The way that this process has taken; nothing is the right one."""
    return _chosen


def take(way: str) -> None:
    """Get it wrong in this process from now on."""
    global _chosen
    _chosen = way
    if way:
        WAYS[way]()


def put(module: Any, name: str, value: Any) -> None:
    """Replace a function or a value, in this process."""
    setattr(module, name, value)


def no_tmpfile() -> None:
    """Not wrong: as on a file system that has no files without a name."""

    def open_it(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no O_TMPFILE")
        return _open(path, flags, *args, **options)

    put(os, "open", open_it)


def without_file_fsync() -> None:
    without_fsync(lambda status: stat.S_ISREG(status.st_mode))


def without_directory_fsync() -> None:
    without_fsync(lambda status: stat.S_ISDIR(status.st_mode))


def without_fsync(skipped: Callable[[os.stat_result], bool]) -> None:
    """Leave out the fsync of these files and directories."""

    def fsync(file: int) -> None:
        if not skipped(os.fstat(file)):
            _fsync(file)

    put(os, "fsync", fsync)


def prune_before_save() -> None:
    save = archive.save

    def pruning(store: Any, checkpoint: Any, step: int, **options: Any) -> Any:
        for entry in archive.entries(store):
            store.delete(entry.name)
        return save(store, checkpoint, step, **options)

    put(archive, "save", pruning)


def prune_before_directory_fsync() -> None:
    from tests.crash.workloads import say

    def link(source: Any, name: Any, **options: Any) -> None:
        _link(source, name, **options)
        folder = Path(f"/proc/self/fd/{options['dst_dir_fd']}").resolve()
        say(folder.parent, keeping=[])  # nothing is promised, but that the latest gets no older
        for old in folder.glob("step-0*"):
            if old.name != name:
                old.unlink()

    put(os, "link", link)


def overwriting_rename() -> None:
    no_tmpfile()

    def rename(source: Any, name: Any, **options: Any) -> None:
        os.rename(source, name, src_dir_fd=options["src_dir_fd"], dst_dir_fd=options["dst_dir_fd"])

    put(os, "link", rename)
    put(os.path, "lexists", lambda path: False)


def prune_without_looking() -> None:
    put(
        import_module("checkpointable.archive.prune"),
        "_newest_valid",
        lambda store, checkpoints, key: len(checkpoints) - 1,
    )


def prune_without_parents() -> None:
    put(
        import_module("checkpointable.archive.prune"),
        "needed",
        lambda store, checkpoints, wanted, files: {e.name for e in wanted},
    )


WAYS: dict[str, Callable[[], None]] = {
    way.__name__: way
    for way in (
        no_tmpfile,
        without_file_fsync,
        without_directory_fsync,
        prune_before_save,
        prune_before_directory_fsync,
        overwriting_rename,
        prune_without_looking,
        prune_without_parents,
    )
}
