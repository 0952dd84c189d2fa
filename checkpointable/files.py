"""Single checkpoint files."""

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
    """Write one checkpoint to a file; durable when this returns, whole or absent always.

    `cls` is needed only for a generic class: `Box[int]`. With a key, of at least 16 random bytes,
    the file is signed: `load_file` with that key refuses whatever was not. Raises
    `CheckpointExists` if the path is taken: nothing is overwritten.

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

    With `into`, a kernel, the arrays are read into its own of the same names, and are those of the
    checkpoint that is returned: without a second copy, and in half of the memory. If any is of
    another dtype or shape, none is. If the file turns out to be damaged on the way, the kernel has
    to be restored from another one.

    With `arrays="lazy"` the header is read, and each array when it is used, as a `LazyArray`:
    `checkpoint.field[100:200]` reads and verifies the blocks of these rows, and no others. The file
    stays open until the arrays are gone. With `arrays="mmap"` they are read-only views of the file,
    of which header and seal are verified, and the data is not. Of an older version of the class
    all is read at once.

    Raises `NoCheckpoint` if there is no such file, `CorruptCheckpoint` if it is damaged, not a
    checkpoint or, where a key is given, not signed with it, and `SchemaMismatch` if it is one of
    another class or version.
    """
    places = None if into is None else arrays_of(cls, into)
    with errors_at(str(path)), ExitStack() as until_made:
        stack = until_made.enter_context(ExitStack())
        checkpoint = _open(stack, Path(path), key)
        made = codec.decode(checkpoint, cls, into=places, arrays=arrays)
        weakref.finalize(checkpoint, stack.close)
        until_made.pop_all()
    return made


@contextmanager
def opened_file(path: str | os.PathLike[str], *, key: bytes | None = None) -> Iterator[Opened]:
    """Open a checkpoint file, its seal verified, together with those that it continues."""
    with errors_at(str(path)), ExitStack() as stack:
        yield _open(stack, Path(path), key)


def _open(stack: ExitStack, path: Path, key: bytes | None) -> Opened:
    def sibling(name: str) -> Reader:
        return stack.enter_context(open_reader(path.parent / name, follow_symlinks=False))

    return reader.opened(stack.enter_context(open_reader(path)), sibling, name=str(path), key=key)
