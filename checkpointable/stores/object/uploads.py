"""What lies in the bucket: keys, heads, and reading the bytes of an upload.

uploads/<name>/<nonce>    the bytes of a checkpoint, under a key that no other attempt uses
heads/<name>              says which attempt it is
"""

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import quote, unquote

import numpy as np
import orjson
from attrs import frozen

from checkpointable.errors import CorruptCheckpoint, NoCheckpoint, StoreError
from checkpointable.stores.local.file import name_fault
from checkpointable.stores.object.bucket import REQUESTS, Bucket
from checkpointable.threads import parallel_map

HEADS = "heads"
UPLOADS = "uploads"

PART = 8 << 20
"""Bytes of one request of a large read."""

_OLDER = "use an older checkpoint"
_AHEAD = 64 << 10  # bytes; a smaller read brings as much along, and reads in order ever more
_MORE = 4
_ESCAPED = re.compile(r"[%\\]|[^\w !-~]")
_NONCE = re.compile(r"[0-9a-f]{32}")

_reading: Counter[str] = Counter()  # how many readers in this process have an upload open
_doomed: dict[str, Callable[[], None]] = {}  # what to do when the last of them closes
_guard = threading.Lock()


@frozen
class Head:
    """What makes an upload a checkpoint: which one, and its size."""

    nonce: str
    size: int

    def to_bytes(self) -> bytes:
        """As it is written."""
        return orjson.dumps({"nonce": self.nonce, "size": self.size})


def read_head(bucket: Bucket, name: str) -> Head:
    """Read a head; `NoCheckpoint` if there is none, `CorruptCheckpoint` if it makes no sense."""
    key = head_key(name)
    body = bucket.get(key).body
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        said = orjson.loads(body)
        nonce, size = said["nonce"], said["size"]
        if _NONCE.fullmatch(nonce) and type(size) is int and size >= 0:
            return Head(nonce, size)
    raise CorruptCheckpoint("its head is damaged", where=bucket.where(key), hint=_OLDER)


def head_key(name: str) -> str:
    """Where the head of a checkpoint lies."""
    return f"{HEADS}/{escaped(name)}"


def upload_key(name: str, nonce: str) -> str:
    """Where the bytes of one attempt lie."""
    return f"{UPLOADS}/{escaped(name)}/{nonce}"


def escaped(name: str) -> str:
    r"""Write a name without what not every server keeps as it is.

    >>> escaped("step-1 ä.safetensors"), escaped("50%\n")
    ('step-1 ä.safetensors', '50%25%0A')
    """
    return _ESCAPED.sub(lambda found: quote(found[0], safe=""), name)


def unescaped(text: str) -> str | None:
    """Give the name that was written so; None if none is."""
    name = unquote(text, errors="surrogateescape")
    return name if not name_fault(name) and escaped(name) == text else None


@contextmanager
def opened(bucket: Bucket, name: str) -> Iterator["ObjectReader"]:
    """Open a checkpoint for reading; its upload stays until then, as far as this process goes."""
    head = read_head(bucket, name)
    key = upload_key(name, head.nonce)
    with _guard:
        _reading[key] += 1
    try:
        yield ObjectReader(bucket, name, head)
    finally:
        with _guard:
            _reading[key] -= 1
            last = not _reading[key]
            delete = _doomed.pop(key, None) if last else None
            if last:
                del _reading[key]
        if delete:
            delete()


def delete_upload(bucket: Bucket, key: str) -> None:
    """Delete an upload, as soon as this process does not read it any more.

    If that fails it is a leftover, which the next writer removes.
    """

    def delete() -> None:
        with suppress(StoreError):
            bucket.delete(key)

    with _guard:
        if _reading[key]:
            _doomed[key] = delete
            return
        del _reading[key]
    delete()


class _Window(threading.local):
    """What a thread has read last."""

    begin = -1
    bytes = memoryview(b"")


class ObjectReader:
    """A checkpoint that is open for reading: see `checkpointable.stores.protocol.Remote`."""

    part = PART

    def __init__(self, bucket: Bucket, name: str, head: Head) -> None:
        self._bucket = bucket
        self._name = name
        self._head = head
        self._own = _Window()

    @property
    def size(self) -> int:
        """Size of the checkpoint in bytes."""
        return self._head.size

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """See `checkpointable.stores.Reader`; a large one by a few requests at once."""
        end = offset + len(buffer)
        if offset < 0 or end > self.size:
            what = f"it ends at {self.size}, before {end}"
            raise CorruptCheckpoint(what, where=self._bucket.where(self._name))
        if 0 < len(buffer) < PART:
            self._serve(offset, buffer)
            return

        def read(begin: int) -> None:
            part = buffer[begin : begin + PART]
            read = self._read(offset + begin, offset + begin + len(part))
            np.copyto(np.frombuffer(part, np.uint8), np.frombuffer(read, np.uint8))

        parallel_map(read, range(0, len(buffer), PART), REQUESTS, "read")

    def _serve(self, offset: int, buffer: memoryview) -> None:
        """Fill a small buffer from the thread's window; else move that, further if it follows."""
        own, end = self._own, offset + len(buffer)
        over = own.begin + len(own.bytes)
        if not own.begin <= offset <= end <= over:
            ahead = min(_MORE * len(own.bytes), PART) if own.begin <= offset <= over else _AHEAD
            own.bytes = self._read(offset, min(offset + max(ahead, len(buffer)), self.size))
            own.begin = offset
        buffer[:] = own.bytes[offset - own.begin : end - own.begin]

    def _read(self, begin: int, end: int) -> memoryview:
        """Read one range by one request."""
        key = upload_key(self._name, self._head.nonce)
        where = self._bucket.where(self._name)
        try:
            part = self._bucket.read_range(key, begin, end)
        except NoCheckpoint:
            with suppress(NoCheckpoint):
                if read_head(self._bucket, self._name) == self._head:
                    what = "its bytes are gone, although its head is there"
                    raise CorruptCheckpoint(what, where=where, hint=_OLDER) from None
            what = "it was deleted by another process while it was read"
            raise NoCheckpoint(what, where=where, hint="open another") from None
        if len(part) != end - begin:
            what = f"the object ends at {begin + len(part)}, and has to have {self.size} bytes"
            raise CorruptCheckpoint(what, where=where, hint=_OLDER)
        return part
