"""What the page cache holds of a file, copied from a mapping: twice as fast as read(2) gives it.

A mapping of a file that was cut short, or of a medium that fails, would end the process (SIGBUS).
So the kernel is asked first to map the pages, which reports an error instead (`MADV_POPULATE_READ`,
madvise(2), Linux 5.14); and only of what begins in memory (mincore(2)), since from the disk read(2)
is faster. Where either fails, nothing is copied.
"""

import ctypes
import errno
import mmap
from functools import cache
from typing import Any

import numpy as np

_PAGE = mmap.PAGESIZE
_POPULATE_READ = 22
_MOST = 16 << 20  # bytes that stay mapped; what is mapped counts as memory of ours


class Mapping:
    """The `size` bytes of an open file, read-only; raises `OSError` if it cannot be mapped.

    `bytes` keep the mapping as long as they are in use.
    """

    def __init__(self, file: int, size: int) -> None:
        try:
            mapped = mmap.mmap(file, size, prot=mmap.PROT_READ)
        except ValueError as error:  # it has become shorter
            raise OSError(errno.EINVAL, str(error)) from error
        self.bytes = np.frombuffer(mapped, np.uint8)
        self._address = self.bytes.ctypes.data
        self._copied = 0

    def copy(self, offset: int, buffer: memoryview) -> bool:
        """Fill the buffer from `offset`, if that is in memory; say whether it was."""
        end = offset + len(buffer)
        begin = offset - offset % _PAGE
        first = ctypes.create_string_buffer(1)
        if (
            end > len(self.bytes)
            or self._call("mincore", begin, 1, first)
            or not first.raw[0] & 1
            or self._call("madvise", begin, end - begin, _POPULATE_READ)
        ):
            return False
        np.copyto(np.frombuffer(buffer, np.uint8), self.bytes[offset:end])
        self._copied += len(buffer)
        if self._copied >= _MOST:  # another thread's pages among them, which come back to it
            self._copied = 0
            self._call("madvise", 0, len(self.bytes), mmap.MADV_DONTNEED)
        return True

    def _call(self, name: str, begin: int, size: int, what: Any) -> int:
        where = ctypes.c_void_p(self._address + begin)
        result: int = getattr(_libc(), name)(where, ctypes.c_size_t(size), what)
        return result


@cache
def _libc() -> Any:
    return ctypes.CDLL(None)
