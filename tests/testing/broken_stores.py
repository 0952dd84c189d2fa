"""Stores with the mistakes that people make; all but `Plain`."""

import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from checkpointable.errors import (
    CheckpointExists,
    CorruptCheckpoint,
    NoCheckpoint,
    StoreError,
    StoreLocked,
)
from checkpointable.stores.local.file import check_name, exactly
from checkpointable.stores.protocol import Buffer, Entry, Reader


class Handle:
    """An open file, read by offset."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("rb")
        self.size = path.stat().st_size

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        data = os.pread(self.file.fileno(), len(buffer), offset)
        if len(data) != len(buffer):
            raise CorruptCheckpoint("it ends before that")
        buffer[:] = data


class Plain:
    """A simple store in a directory that keeps its promises, but for the durable ones."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path or tempfile.mkdtemp())
        self.guard = threading.Lock()
        self.held = 0
        self.lock_file = -1

    def create(self, name: str, size: int, chunks: Iterable[Buffer], /) -> None:
        check_name(name)
        with self.lock():
            if (self.path / name).exists():
                raise CheckpointExists("the name is taken")
            aside = self.path / f".{os.urandom(8).hex()}"
            try:
                with aside.open("xb") as file:
                    for chunk in exactly(size, chunks, name):
                        file.write(chunk)
                self.publish(aside, self.path / name)
            finally:
                aside.unlink(missing_ok=True)

    def publish(self, aside: Path, path: Path) -> None:
        try:
            os.link(aside, path)
        except FileExistsError as error:
            raise CheckpointExists("the name is taken") from error

    @contextmanager
    def open(self, name: str, /) -> Iterator[Reader]:
        check_name(name)
        try:
            handle = Handle(self.path / name)
        except FileNotFoundError as error:
            raise NoCheckpoint("nothing is there") from error
        with handle.file:
            yield handle

    def list(self) -> Iterator[Entry]:
        for path in self.path.iterdir():
            if self.is_shown(path):
                yield Entry(path.name, path.stat().st_size, path.stat().st_mtime)

    def is_shown(self, path: Path) -> bool:
        return not path.name.startswith(".")

    def delete(self, name: str, /) -> None:
        check_name(name)
        try:
            (self.path / name).unlink()
        except FileNotFoundError as error:
            raise NoCheckpoint("nothing is there") from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        with self.guard:
            if not self.held:
                self.acquire()
            self.held += 1
        try:
            yield
        finally:
            self.release()

    def acquire(self) -> None:
        file = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(file)
            raise StoreLocked("another writer holds it") from error
        self.lock_file = file

    def release(self) -> None:
        with self.guard:
            self.held -= 1
            if not self.held:
                os.close(self.lock_file)


class InPlace(Plain):
    """Writes straight to the final name."""

    def create(self, name: str, size: int, chunks: Iterable[Buffer], /) -> None:
        check_name(name)
        with self.lock():
            try:
                with (self.path / name).open("xb") as file:
                    for chunk in exactly(size, chunks, name):
                        file.write(chunk)
                        file.flush()
            except FileExistsError as error:
                raise CheckpointExists("the name is taken") from error


class CleansUp(InPlace):
    """Writes straight to the final name, and deletes that after an error."""

    def create(self, name: str, size: int, chunks: Iterable[Buffer], /) -> None:
        try:
            super().create(name, size, chunks)
        except CheckpointExists:
            raise
        except BaseException:
            (self.path / name).unlink(missing_ok=True)
            raise


class ShowsUnfinished(Plain):
    """Lists what it writes aside."""

    def is_shown(self, path: Path) -> bool:
        return path.name != ".lock"


class Overwrites(Plain):
    """Publishes by a rename, which replaces."""

    def publish(self, aside: Path, path: Path) -> None:
        aside.rename(path)


class DeletesAnything(Plain):
    def delete(self, name: str, /) -> None:
        check_name(name)
        (self.path / name).unlink(missing_ok=True)


class ShortReads(Plain):
    @contextmanager
    def open(self, name: str, /) -> Iterator[Reader]:
        with super().open(name) as reader:

            class Short:
                size = reader.size

                def read_into(self, offset: int, buffer: memoryview, /) -> None:
                    available = buffer[: max(0, reader.size - offset)]
                    reader.read_into(offset, available)

            yield Short()


class AnySize(Plain):
    """Accepts any number of bytes, whatever was announced."""

    def create(self, name: str, size: int, chunks: Iterable[Buffer], /) -> None:
        data = [bytes(chunk) for chunk in chunks]
        super().create(name, sum(map(len, data)), data)


class Collects(Plain):
    """Collects the chunks, which may be views of one buffer."""

    def create(self, name: str, size: int, chunks: Iterable[Buffer], /) -> None:
        super().create(name, size, list(chunks))


class ReopensByName(Plain):
    @contextmanager
    def open(self, name: str, /) -> Iterator[Reader]:
        again = super().open
        with again(name) as first:

            class ByName:
                size = first.size

                def read_into(self, offset: int, buffer: memoryview, /) -> None:
                    with again(name) as reader:
                        reader.read_into(offset, buffer)

            yield ByName()


class AnyName(Plain):
    """Accepts any name that the file system accepts."""

    def create(self, name: str, size: int, chunks: Iterable[Buffer], /) -> None:
        if "/" in name or "\0" in name:
            raise StoreError("not a name")
        path = self.path / name
        with path.open("xb") as file:
            file.writelines(chunks)


class LockForNobody(Plain):
    def lock(self) -> Any:
        return nullcontext()


class LockThatStays(Plain):
    """Is not released if the block raises."""

    @contextmanager
    def lock(self) -> Iterator[None]:
        with self.guard:
            if not self.held:
                self.acquire()
            self.held += 1
        yield
        self.release()


class ListsTwice(Plain):
    """Lists every blob twice."""

    def list(self) -> Iterator[Entry]:
        yield from super().list()
        yield from super().list()


class LocalTime(Plain):
    """Gives the time of creation in hours."""

    def list(self) -> Iterator[Entry]:
        for entry in super().list():
            yield Entry(entry.name, entry.size, time.time() / 3600)


class ChecksThenWrites(Plain):
    """No lock among its threads, and a check before a rename."""

    def create(self, name: str, size: int, chunks: Iterable[Buffer], /) -> None:
        check_name(name)
        if (self.path / name).exists():
            raise CheckpointExists("the name is taken")
        aside = self.path / f".{os.urandom(8).hex()}"
        aside.write_bytes(b"".join(exactly(size, chunks, name)))
        time.sleep(0.001)  # makes the time between check and rename long
        aside.rename(self.path / name)


class ForgetsDeletes(Plain):
    """Another object on the same place still lists what was deleted."""

    def __init__(self, path: str | Path | None = None) -> None:
        super().__init__(path)
        self.deleted: set[str] = set()

    def delete(self, name: str, /) -> None:
        check_name(name)
        if name in self.deleted or not (self.path / name).exists():
            raise NoCheckpoint("nothing is there")
        self.deleted.add(name)

    def is_shown(self, path: Path) -> bool:
        return super().is_shown(path) and path.name not in self.deleted
