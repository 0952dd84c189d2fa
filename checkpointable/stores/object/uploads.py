"""The objects in the bucket: keys, commit objects, and reading an upload.

uploads/<name>/<nonce>    the bytes of a checkpoint, under a key that no other attempt uses
heads/<name>              the commit object: which attempt is the checkpoint
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
class Commit:
    """A commit object, which makes an upload a checkpoint: its nonce and size."""

    nonce: str
    size: int

    def to_bytes(self) -> bytes:
        """The object's bytes."""
        return orjson.dumps({"nonce": self.nonce, "size": self.size})


def read_commit(bucket: Bucket, name: str) -> Commit:
    """Read a commit object; raises `NoCheckpoint` if absent, `CorruptCheckpoint` if damaged."""
    key = commit_key(name)
    body = bucket.get(key).body
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        fields = orjson.loads(body)
        nonce, size = fields["nonce"], fields["size"]
        if _NONCE.fullmatch(nonce) and type(size) is int and size >= 0:
            return Commit(nonce, size)
    raise CorruptCheckpoint("its commit object is damaged", where=bucket.where(key), hint=_OLDER)


def commit_key(name: str) -> str:
    """The key of a checkpoint's commit object."""
    return f"{HEADS}/{escaped(name)}"


def upload_key(name: str, nonce: str) -> str:
    """The key of the bytes of one attempt."""
    return f"{UPLOADS}/{escaped(name)}/{nonce}"


def escaped(name: str) -> str:
    r"""Escape the characters of a name that some servers change.

    >>> escaped("step-1 ä.safetensors"), escaped("50%\n")
    ('step-1 ä.safetensors', '50%25%0A')
    """
    return _ESCAPED.sub(lambda match: quote(match[0], safe=""), name)


def unescaped(text: str) -> str | None:
    """The name that was escaped so; None if no name is."""
    name = unquote(text, errors="surrogateescape")
    return name if not name_fault(name) and escaped(name) == text else None


@contextmanager
def opened(bucket: Bucket, name: str) -> Iterator["ObjectReader"]:
    """Open a checkpoint for reading; this process does not delete its upload meanwhile."""
    commit = read_commit(bucket, name)
    key = upload_key(name, commit.nonce)
    with _guard:
        _reading[key] += 1
    try:
        yield ObjectReader(bucket, name, commit)
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
    """Delete an upload once this process no longer reads it.

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
    """What a thread read last."""

    begin = -1
    bytes = memoryview(b"")


class ObjectReader:
    """A checkpoint that is open for reading: see `checkpointable.stores.protocol.Remote`."""

    part = PART

    def __init__(self, bucket: Bucket, name: str, commit: Commit) -> None:
        self._bucket = bucket
        self._name = name
        self._commit = commit
        self._window = _Window()

    @property
    def size(self) -> int:
        """Size of the checkpoint in bytes."""
        return self._commit.size

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """See `checkpointable.stores.Reader`; a large range takes a few concurrent requests."""
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
        """Fill a small buffer from the thread's window; a sequential read enlarges the window."""
        window, end = self._window, offset + len(buffer)
        over = window.begin + len(window.bytes)
        if not window.begin <= offset <= end <= over:
            ahead = (
                min(_MORE * len(window.bytes), PART) if window.begin <= offset <= over else _AHEAD
            )
            window.bytes = self._read(offset, min(offset + max(ahead, len(buffer)), self.size))
            window.begin = offset
        buffer[:] = window.bytes[offset - window.begin : end - window.begin]

    def _read(self, begin: int, end: int) -> memoryview:
        """Read one range in one request."""
        key = upload_key(self._name, self._commit.nonce)
        where = self._bucket.where(self._name)
        try:
            part = self._bucket.read_range(key, begin, end)
        except NoCheckpoint:
            with suppress(NoCheckpoint):
                if read_commit(self._bucket, self._name) == self._commit:
                    what = "its bytes are gone, but its commit object is there"
                    raise CorruptCheckpoint(what, where=where, hint=_OLDER) from None
            what = "it was deleted by another process while it was read"
            raise NoCheckpoint(what, where=where, hint="open another") from None
        if len(part) != end - begin:
            what = f"the object ends at {begin + len(part)}, but must have {self.size} bytes"
            raise CorruptCheckpoint(what, where=where, hint=_OLDER)
        return part
