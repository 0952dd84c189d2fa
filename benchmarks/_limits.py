"""What the machine can do at best, which the benchmarks set their figures beside.

The same bytes written raw and synced, through the page cache and past it; read raw, into warm and
into fresh memory; copied into warm memory; digested. And the means: arrays in aligned memory,
fsync of whole directory trees, and files put out of the page cache.
"""

import ctypes
import mmap
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import xxhash

BLOCK = 1 << 20
PAGE = mmap.PAGESIZE

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Memory: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

_libc = ctypes.CDLL(None, use_errno=True)


def random_floats(count: int) -> Floats:
    """Random numbers in memory that begins at a page, so that direct writes can read it."""
    memory = np.empty(4 * count + PAGE, np.uint8)
    begin = -memory.ctypes.data % PAGE
    floats = memory[begin : begin + 4 * count].view(np.float32)
    np.random.default_rng(1).random(out=floats, dtype=np.float32)
    return floats


def views(arrays: Mapping[str, Floats]) -> list[memoryview]:
    """The bytes of the arrays."""
    return [array.view(np.uint8).data for array in arrays.values()]


# --- making durable, and forgetting ---------------------------------------------------------------


def sync(path: Path) -> None:
    """Make one file or directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(path: Path, *, files: bool = True) -> None:
    """Make a directory and all below it durable, and its own name; files only where asked."""
    for folder, _, names in os.walk(path, topdown=False):
        for name in names if files else ():
            sync(Path(folder, name))
        sync(Path(folder))
    sync(path.parent)


def forget(paths: Iterable[Path]) -> None:
    """Put files out of the page cache; raises `RuntimeError` if a part of one stays there."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            size = os.fstat(descriptor).st_size
            if size and (pages := _cached(descriptor, size)):
                raise RuntimeError(f"{pages} pages of {path.name} stay in the page cache")
        finally:
            os.close(descriptor)


def back(size: int) -> None:
    """Touch that much memory and give it back.

    A virtual machine may have to ask its host for memory that was free for a while; whoever takes
    some next then finds it there, and does not pay for that by chance.
    """
    np.ones(size, np.uint8)


def _cached(descriptor: int, size: int) -> int:
    """How many pages of a file are in the page cache."""
    with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as mapped:
        bytes_ = np.frombuffer(mapped, np.uint8)
        pages = np.zeros(-(-size // PAGE), np.uint8)
        addresses = [ctypes.c_void_p(array.ctypes.data) for array in (bytes_, pages)]
        failed = _libc.mincore(addresses[0], ctypes.c_size_t(size), addresses[1])
        del bytes_
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return int(np.count_nonzero(pages & 1))


# --- the limits -----------------------------------------------------------------------------------


def write_raw(path: Path, data: Sequence[memoryview]) -> None:
    """Write the bytes to a new file, through the page cache, and make it durable."""
    with path.open("xb", buffering=0) as file:
        for view in data:
            rest = view
            while rest:
                rest = rest[file.write(rest) or 0 :]
        os.fsync(file.fileno())
    sync(path.parent)


def write_direct(path: Path, data: Sequence[memoryview]) -> None:
    """The same past the page cache; all data is aligned, and so are its sizes."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_DIRECT, 0o600)
    try:
        os.posix_fallocate(file, 0, sum(map(len, data)))
        offset = 0
        for view in data:
            for begin in range(0, len(view), 4 * BLOCK):
                offset += os.pwrite(file, view[begin : begin + 4 * BLOCK], offset)
        os.fsync(file)
    finally:
        os.close(file)
    sync(path.parent)
    if offset != sum(map(len, data)):
        raise OSError(f"only {offset} bytes were written")


def replace_durably(path: Path, data: Sequence[memoryview]) -> None:
    """Write, fsync, rename, fsync of the directory: the least that a durable file takes."""
    scratch = path.with_suffix(".tmp")
    with scratch.open("xb", buffering=0) as file:
        for view in data:
            file.write(view)
        os.fsync(file.fileno())
    scratch.replace(path)
    sync(path.parent)


def read_raw(path: Path, into: Memory) -> None:
    """Read a file into memory of its size."""
    with path.open("rb", buffering=0) as file:
        rest = into.data
        while rest:
            count = file.readinto(rest)
            if not count:
                raise EOFError(path)
            rest = rest[count:]


def copy_mapped(path: Path, into: Memory) -> None:
    """Map a file, and copy it into memory of its size."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        np.copyto(into, np.frombuffer(mapped, np.uint8))


def copier(arrays: Mapping[str, Floats]) -> Callable[[], None]:
    """Give what copies the arrays into memory that is there already."""
    warm = [np.ones_like(array) for array in arrays.values()]

    def memcpy() -> None:
        for into, array in zip(warm, arrays.values(), strict=True):
            np.copyto(into, array)

    return memcpy


def digest(data: Sequence[memoryview]) -> None:
    """XXH3-128 of every block of 1 MiB."""
    for view in data:
        for begin in range(0, len(view), BLOCK):
            xxhash.xxh3_128_digest(view[begin : begin + BLOCK])
