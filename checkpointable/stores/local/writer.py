"""Writing the bytes of a file as fast as the disk takes them.

A small file is written directly. A larger one goes through a few aligned buffers, which threads
write while the next one is filled. Where the file system supports it (`O_DIRECT`, open(2)) they
bypass the page cache, which is faster and leaves the cache alone; elsewhere they go through it and
are flushed at once. The buffers use huge pages, which the disk takes in fewer pieces.
"""

import errno
import fcntl
import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from checkpointable.arrays import fresh
from checkpointable.stores.local.errors import os_errors

if TYPE_CHECKING:
    from concurrent.futures import Future

LARGE = 4 << 20
"""Bytes at which a file counts as large."""

BUFFER = 8 << 20
"""Bytes of one buffer: a multiple of the page."""

_BUFFERS = 4
_THREADS = 3  # one more than keeps the disk busy, so that a full buffer never waits for one
_PAGE = 4096
_CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV, errno.EBADF)

Memory: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

_spare: list[Memory] = []  # reused: fresh memory costs half as much as the disk write


def write_all(file: int, size: int, chunks: Iterable[memoryview], where: Path) -> None:
    """Write the chunks, `size` bytes in total, from the beginning of the file; not yet durable.

    Raises what reading the chunks raises, and `StoreError`, about `where`, if the file cannot
    take them.
    """
    if size < LARGE:
        offset = 0
        for chunk in chunks:
            _write(file, chunk, offset, where)
            offset += len(chunk)
        return
    from concurrent.futures import ThreadPoolExecutor  # here, since it takes a while

    _reserve(file, size, where)
    direct = _set_direct(file, on=True)
    writes: deque[tuple[Memory, Future[None]]] = deque()
    with ThreadPoolExecutor(_THREADS, "checkpointable-write") as threads:
        buffer, offset, whole, count = np.empty(0, np.uint8), 0, 0, 0
        for buffer, count in _filled(chunks, _buffers(writes)):
            whole = count - count % _PAGE if direct else count
            write = threads.submit(
                _write, file, buffer.data[:whole], offset, where, flush=not direct
            )
            writes.append((buffer, write))
            offset += count
        for _, write in writes:
            write.result()
    _set_direct(file, on=False)
    _write(file, buffer.data[whole:count], offset - count + whole, where)
    _spare.extend(buffer for buffer, _ in writes)
    del _spare[_BUFFERS:]


def _reserve(file: int, size: int, where: Path) -> None:
    """Fail at once if there is not enough space, rather than after writing for a while."""
    with os_errors(where):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in _CANNOT_RESERVE:
                raise


def _buffers(writes: deque[tuple[Memory, "Future[None]"]]) -> Iterator[Memory]:
    """Yield aligned buffers; after the first few those of the oldest writes, once they end."""
    for _ in range(_BUFFERS):
        try:
            yield _spare.pop()
        except IndexError:  # none left
            yield fresh(BUFFER)
    while True:
        buffer, write = writes.popleft()
        write.result()
        yield buffer


def _filled(
    chunks: Iterable[memoryview], buffers: Iterator[Memory]
) -> Iterator[tuple[Memory, int]]:
    """Fill buffers with the chunks; yield each with the number of bytes in it."""
    buffer, count = next(buffers), 0
    for chunk in chunks:
        while len(chunk):
            if count == len(buffer):
                yield buffer, count
                buffer, count = next(buffers), 0
            part = chunk[: len(buffer) - count]
            np.copyto(buffer[count : count + len(part)], np.frombuffer(part, np.uint8))
            chunk, count = chunk[len(part) :], count + len(part)
    yield buffer, count


def _write(file: int, data: memoryview, offset: int, where: Path, *, flush: bool = False) -> None:
    """Write all of `data`; with `flush` the system starts at once to write it to the disk."""
    begin, size, refused = offset, len(data), False
    with os_errors(where):
        while len(data):
            try:
                count = os.pwrite(file, data, offset)
            except OSError as error:
                if error.errno != errno.EINVAL or refused:
                    raise
                refused = True  # the file system accepted O_DIRECT, but not the write
                _set_direct(file, on=False)
                continue
            data, offset = data[count:], offset + count
        if flush:
            os.posix_fadvise(file, begin, size, os.POSIX_FADV_DONTNEED)


def _set_direct(file: int, *, on: bool) -> bool:
    """Set whether writes bypass the page cache; return whether they do."""
    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    try:
        fcntl.fcntl(file, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)
    except OSError:  # not on this file system
        return False
    return on
