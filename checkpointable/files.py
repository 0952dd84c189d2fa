"""One checkpoint in one file, without a store."""

import os
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from checkpointable.archive import Arrays, codec
from checkpointable.capture import arrays_of
from checkpointable.errors import errors_at
from checkpointable.format import Opened, reader
from checkpointable.stores import Reader, open_reader, write_durably

C = TypeVar("C")


def save_file(
    checkpoint: object,
    path: str | os.PathLike[str],
    *,
    step: int = 0,
    cls: Any = None,
    key: bytes | None = None,
) -> None:
    """Write one checkpoint to a file: whole or absent at any moment, durable on return.

    `cls` is needed only for a generic class: `Box[int]`. With a `key` of at least 16 random bytes
    the file is signed; `load_file` with that key refuses any other file. Raises `CheckpointExists`
    if the path exists: nothing is overwritten.

    >>> import attrs, pathlib, tempfile
    >>> @attrs.frozen
    ... class Walk:
    ...     step: int
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_file(Walk(step=3), f"{folder}/walk.safetensors")
    ...     load_file(f"{folder}/walk.safetensors", Walk)
    Walk(step=3)
    """
    target = Path(path)
    packed = codec.encode(checkpoint, step=step, cls=cls, key=key)
    with errors_at(str(target)):
        write_durably(target.parent, target.name, packed.size, packed.chunks())


def load_file(
    path: str | os.PathLike[str],
    cls: type[C],
    *,
    key: bytes | None = None,
    into: object = None,
    arrays: Arrays = "read",
) -> C:
    """Load a checkpoint of class `cls` from a file, every byte verified.

    With `into`, a kernel, the file is read straight into the kernel's arrays of the same names, and
    the returned checkpoint holds these arrays: no second copy, half the memory. If one of them
    differs in dtype or shape, none is used. If the file turns out to be damaged halfway, the kernel
    must be restored from another one.

    With `arrays="lazy"` only the header is read now, and each array when it is used, as a
    `LazyArray`: `checkpoint.field[100:200]` reads and verifies the blocks of these rows, and no
    others. The file stays open as long as one of the arrays exists. With `arrays="mmap"` the arrays
    are read-only views of the file; its header and seal are verified, its data is not. A file of an
    older version of the class is always read at once.

    Raises `NoCheckpoint` if there is no such file; `CorruptCheckpoint` if it is damaged, is not a
    checkpoint, or is not signed with the key that is given; `SchemaMismatch` if it holds another
    class or version.
    """
    targets = None if into is None else arrays_of(cls, into)
    with errors_at(str(path)), ExitStack() as on_error:
        files = on_error.enter_context(ExitStack())
        opened = _open(files, Path(path), key)
        checkpoint = codec.decode(opened, cls, into=targets, arrays=arrays)
        weakref.finalize(opened, files.close)
        on_error.pop_all()
    return checkpoint


@contextmanager
def opened_file(path: str | os.PathLike[str], *, key: bytes | None = None) -> Iterator[Opened]:
    """Open a checkpoint file and its parents, its seal verified."""
    with errors_at(str(path)), ExitStack() as files:
        yield _open(files, Path(path), key)


def _open(files: ExitStack, path: Path, key: bytes | None) -> Opened:
    def sibling(name: str) -> Reader:
        return files.enter_context(open_reader(path.parent / name, follow_symlinks=False))

    return reader.opened(files.enter_context(open_reader(path)), sibling, name=str(path), key=key)
