"""Requests to a place in an object store, by obstore; errors are ours and hold no secrets.

The only module that imports obstore; import it where it is needed, not before.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import obstore
from attrs import frozen
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from checkpointable.errors import (
    CheckpointExists,
    CorruptCheckpoint,
    NoCheckpoint,
    StoreError,
    StoreFull,
)
from checkpointable.stores.local.file import exactly
from checkpointable.stores.protocol import Buffer

if TYPE_CHECKING:
    from obstore import UpdateVersion
    from obstore.store import ObjectStore

    Version: TypeAlias = UpdateVersion

PART = 16 << 20
"""Bytes of one part of an upload; a smaller object takes one request."""

REQUESTS = 8
"""How many requests run concurrently."""

_SMALL = 1 << 16
_MOST_PARTS = 9_000  # S3 takes 10,000
_FULL = re.compile(r"status code: 507|InsufficientStorage|Quota|StorageFull|DiskFull", re.I)
_RANGE = re.compile(r"status code: 416|InvalidRange", re.I)
_STATUS = re.compile(r"status code: (\d+(?: [A-Z][\w-]*)*)")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_REQUEST = re.compile(r"Error performing (\w+) \S+ in \S+ - ")
_NOISE = re.compile(r"^(Generic \w+ error|Error performing list request): ")
_QUERY = re.compile(r"\?\S*")
_SECRET = re.compile(r"secret|key|token|password|sas|credential", re.I)
_HINTS = {
    "401": "check the credentials: AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, ...",
    "403": "check the credentials, and what they are allowed to do here",
    "404": "make the bucket first, or check its name",
}
_HINT = "check the address, the credentials and the network, then try again"


@frozen(eq=False)
class SmallObject:
    """A small object as it was read: its bytes, its version, and when it was last written."""

    body: bytes
    version: "Version"
    modified: datetime


@frozen(eq=False)
class Listed:
    """An object as a listing shows it; the key is below the place."""

    key: str
    size: int
    modified: datetime


@frozen(eq=False, repr=False)
class Bucket:
    """The objects below a prefix of an obstore store; `address` is that place, without secrets.

    Every method raises `StoreError`: `NoCheckpoint` if the object does not exist,
    `CheckpointExists` if a condition does not hold, `StoreFull`; after any other it is unknown
    whether the request was carried out.
    """

    remote: "ObjectStore"
    prefix: str
    address: str

    def where(self, key: str) -> str:
        """The address of an object."""
        if not key:
            return self.address
        place, mark, query = self.address.partition("?")
        return f"{place.rstrip('/')}/{key}{mark}{query}"

    def get(self, key: str) -> SmallObject:
        """Read a small object; the body of a larger one is left empty."""
        with self._errors(key):
            result = obstore.get(self.remote, self._path(key))
            body = bytes(result.bytes()) if result.meta["size"] <= _SMALL else b""
            return SmallObject(body, _version(result.meta), result.meta["last_modified"])

    def exists(self, key: str) -> bool:
        """Whether an object exists."""
        return self._size(key) is not None

    def put(self, key: str, body: bytes, mode: 'Literal["create"] | Version') -> "Version":
        """Write a small object if there is none ("create"), or if it has this version."""
        with self._errors(key):
            return _version(obstore.put(self.remote, self._path(key), body, mode=mode))

    def delete(self, key: str) -> None:
        """Delete an object; not all servers report that it does not exist."""
        with self._errors(key):
            obstore.delete(self.remote, self._path(key))

    def list(self, folder: str) -> Iterator[Listed]:
        """List all objects below a folder."""
        begin = len(self._path(""))
        with self._errors(""):
            for chunk in obstore.list(self.remote, self._path(folder), chunk_size=1000):
                for meta in chunk:
                    yield Listed(meta["path"][begin:], meta["size"], meta["last_modified"])

    def read_range(self, key: str, begin: int, end: int) -> memoryview:
        """Read a range of an object, less if it ends early; `CorruptCheckpoint` if it is empty."""
        with self._errors(key):
            return memoryview(obstore.get_range(self.remote, self._path(key), start=begin, end=end))

    def upload(self, key: str, size: int, chunks: Iterable[Buffer]) -> None:
        """Write an object of any size under a key that nothing else uses, whole or not at all.

        An error raised by `chunks` passes through.
        """
        raised: list[BaseException] = []
        part = max(PART, -(-size // _MOST_PARTS))

        def parts() -> Iterator[Buffer]:
            try:
                yield from _joined(exactly(size, chunks, self.where(key)), size, part)
            except BaseException as error:
                raised.append(error)
                raise

        try:
            with self._errors(key):
                self._put_parts(key, size, part, parts())
        except BaseException as error:
            if raised:
                raise raised[0] from None
            if not isinstance(error, StoreError) or self._size(key) != size:
                raise  # else it was written, and the answer was lost

    def _put_parts(self, key: str, size: int, part: int, parts: Iterator[Buffer]) -> None:
        path = self._path(key)
        if size <= part:
            (body,) = parts
            obstore.put(self.remote, path, body, use_multipart=False)
        else:
            obstore.put(self.remote, path, parts, chunk_size=part, max_concurrency=REQUESTS)

    def _size(self, key: str) -> int | None:
        """The size of an object; None if it does not exist."""
        try:
            with self._errors(key):
                return obstore.head(self.remote, self._path(key))["size"]
        except NoCheckpoint:
            return None

    def modified(self, key: str) -> datetime:
        """When an object was last written, by the server's clock."""
        with self._errors(key):
            return obstore.head(self.remote, self._path(key))["last_modified"]

    def _path(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except (BaseError, OSError, ValueError) as error:
            raise self._translated(error, self.where(key)) from None  # its text has secrets

    def _translated(self, error: Exception, where: str) -> StoreError | CorruptCheckpoint:
        """The `StoreError` for an error of obstore."""
        text = str(error)
        status = match[1] if (match := _STATUS.search(text)) else ""
        code = f" ({match[1]})" if (match := _CODE.search(text)) else ""
        what = f"the server answered {status}{code}"
        if not status:
            first = _REQUEST.sub(r"\1: ", text.partition("\n")[0])
            what = _QUERY.sub("", _NOISE.sub("", _NOISE.sub("", first)))
        for secret in _secrets(self.remote):
            what = what.replace(secret, "...")
        if _FULL.search(text):
            hint = "delete what is not needed, or raise the quota"
            return StoreFull(f"no room for it: {what}", where=where, hint=hint)
        if _RANGE.search(text):
            return CorruptCheckpoint("the object ends before that", where=where)
        if "NoSuchBucket" in text:
            return StoreError(f"no such bucket: {what}", where=where, hint=_HINTS["404"])
        if isinstance(error, FileNotFoundError):
            return NoCheckpoint("nothing is there", where=where, hint="check the address")
        if isinstance(error, (AlreadyExistsError, PreconditionError)):
            hint = "save under another name, or delete that one first"
            return CheckpointExists("the name is taken", where=where, hint=hint)
        return StoreError(what, where=where, hint=_HINTS.get(status[:3], _HINT))


def _secrets(remote: "ObjectStore") -> set[str]:
    """What may be credentials, in the store's options and in the environment."""
    config: dict[str, Any] = getattr(remote, "config", {})
    named = (
        value for name, value in (*os.environ.items(), *config.items()) if _SECRET.search(name)
    )
    return {value for value in named if isinstance(value, str) and len(value) > 5}


def _version(meta: Any) -> "Version":
    """The version of an object, as the condition of a later write."""
    version: Version = {}
    if meta["e_tag"] is not None:
        version["e_tag"] = meta["e_tag"]
    if meta["version"] is not None:
        version["version"] = meta["version"]
    return version


def _joined(chunks: Iterable[memoryview], size: int, part: int) -> Iterator[Buffer]:
    """Copy the chunks into parts of fresh memory, since an upload may hold on to them for long.

    All parts have the same size except the last one, which exists even if there is no chunk.
    """
    count, left = 0, size
    buffer = np.empty(min(part, left), np.uint8)
    for chunk in chunks:
        while len(chunk):
            if count == len(buffer):
                yield buffer.data
                left -= count
                count, buffer = 0, np.empty(min(part, left), np.uint8)
            piece = chunk[: len(buffer) - count]
            np.copyto(buffer[count : count + len(piece)], np.frombuffer(piece, np.uint8))
            chunk, count = chunk[len(piece) :], count + len(piece)
    yield buffer.data
