"""A store in an object store: S3 and what speaks its language, Google's, Azure's; by obstore.

A checkpoint is an upload, written first and under a key that no other attempt uses, and then a
head, a tiny object that says which upload it is. The head is created last, and only if there is
none: it is the commit. An upload without a head is a leftover, which the next writer removes.
"""

import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING

from checkpointable.errors import (
    CheckpointExists,
    CorruptCheckpoint,
    NoCheckpoint,
    StoreError,
    StoreLocked,
)
from checkpointable.stores.local.file import check_name
from checkpointable.stores.object.bucket import Bucket, Listed
from checkpointable.stores.object.lease import Lease, probe
from checkpointable.stores.object.uploads import (
    HEADS,
    UPLOADS,
    Head,
    delete_upload,
    head_key,
    opened,
    read_head,
    unescaped,
    upload_key,
)
from checkpointable.stores.protocol import Buffer, Entry, Reader
from checkpointable.stores.shared_lock import SharedLock

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Remote

_TRIES = 5
_PAUSE = 0.1  # seconds, before the second try
_DAY = 86_400


class ObjectStore:
    """Checkpoints in a bucket; `store` is obstore's, with credentials and options as it has them.

    Whole or absent, and durable when `create` returns: the service has acknowledged it. One
    process writes at a time, by a lease of a minute that it renews; any number read. Safe to use
    from many threads. A reader stays readable after a `delete` by this process; after one by
    another it raises `NoCheckpoint`.

    >>> import obstore.store
    >>> store = ObjectStore(obstore.store.S3Store("bucket", region="eu-central-1"), "runs/heat")
    >>> store
    ObjectStore('S3Store/bucket/runs/heat')
    """

    def __init__(self, store: "Remote", prefix: str = "", *, address: str = "") -> None:
        prefix = prefix.strip("/")
        self._bucket = Bucket(store, prefix, address or _address(store, prefix))
        self._lease = Lease(self._bucket)
        self._lock = SharedLock(self._take, lambda _: self._lease.give_back())
        self._probed = False

    def __repr__(self) -> str:
        return f"ObjectStore({self._bucket.address!r})"

    def create(self, name: str, size: int, chunks: Iterable[Buffer], /) -> None:
        """See `checkpointable.stores.Create`."""
        check_name(name)
        with self.lock():
            if self._bucket.exists(head_key(name)):  # asked early; the head has the last word
                raise self._taken(name)
            head = Head(secrets.token_hex(16), size)
            key = upload_key(name, head.nonce)
            self._bucket.upload(key, size, chunks)
            try:
                self._commit(name, head)
            except (CheckpointExists, StoreLocked):  # after others it may yet be there
                delete_upload(self._bucket, key)
                raise

    def open(self, name: str, /) -> AbstractContextManager[Reader]:
        """See `checkpointable.stores.Open`."""
        check_name(name)
        return opened(self._bucket, name)

    def list(self) -> Iterator[Entry]:
        """See `checkpointable.stores.List`; no upload is opened."""
        heads = {found.key.removeprefix(f"{HEADS}/"): found for found in self._bucket.list(HEADS)}
        uploads = _uploads(self._bucket)  # after the heads: none of them is without its upload
        for text, head in heads.items():
            if (name := unescaped(text)) is None:
                continue
            found = uploads[text]
            if len(found) > 1:  # of attempts that came to nothing
                with suppress(NoCheckpoint, CorruptCheckpoint):
                    key = self._key(name)
                    found = [upload for upload in found if upload.key == key]
            for upload in found[:1]:  # none if it was deleted meanwhile
                yield Entry(name, upload.size, head.modified.timestamp())

    def delete(self, name: str, /) -> None:
        """See `checkpointable.stores.Delete`."""
        check_name(name)
        if not self._bucket.exists(head_key(name)):  # for this, no lock is taken
            raise NoCheckpoint("no such checkpoint", where=self._bucket.where(name))
        with self.lock():
            key = ""
            with suppress(CorruptCheckpoint):
                key = self._key(name)
            self._check()
            with suppress(NoCheckpoint):  # by a try whose answer was lost
                self._bucket.delete(head_key(name))
            if key:
                delete_upload(self._bucket, key)

    def lock(self) -> AbstractContextManager[None]:
        """See `checkpointable.stores.Lock`; threads that use this object share it, at once too.

        Who cannot renew the lease, as when the network is gone for a minute, loses it: `create`
        and `delete` then raise `StoreLocked`. Taking it removes what a killed writer has left
        behind, and raises `StoreError` if the server takes no notice of conditions.
        """
        return self._lock.held()

    def without_lock(self) -> "ObjectStore":
        """See `checkpointable.stores.SharedWriters`."""
        bucket = self._bucket
        return _SharedStore(bucket.remote, bucket.prefix, address=bucket.address)

    def _commit(self, name: str, head: Head) -> None:
        """Create the head; if it is unclear whether it was, look."""
        pause, failure = _PAUSE, StoreError("")
        for _ in range(_TRIES):
            self._check()
            try:
                self._bucket.put(head_key(name), head.to_bytes(), "create")
                return
            except StoreError as error:
                failure = error
            try:
                if read_head(self._bucket, name) == head:
                    return
                raise self._taken(name)
            except CorruptCheckpoint:
                raise self._taken(name) from None
            except NoCheckpoint:
                if not isinstance(failure, CheckpointExists):
                    raise failure from None
            time.sleep(pause)  # servers say "conflict", too, while another is at it
            pause *= 2
        what = "other writers are at the same name"
        raise StoreError(what, where=self._bucket.where(name), hint="try again") from failure

    def _taken(self, name: str) -> CheckpointExists:
        hint = "save under another name, or delete that one first"
        return CheckpointExists("the name is taken", where=self._bucket.where(name), hint=hint)

    def _check(self) -> None:
        """Raise `StoreLocked` if the lock was lost."""
        self._lease.check()

    def _take(self) -> None:
        if not self._probed:
            probe(self._bucket)
            self._probed = True
        over = self._lease.take()
        try:
            if over:
                self._sweep()
        except BaseException:
            self._lease.give_back()
            raise

    def _sweep(self) -> None:
        """Remove uploads without a head, as killed writers leave them."""
        uploads = _uploads(self._bucket)
        heads = {found.key.removeprefix(f"{HEADS}/") for found in self._bucket.list(HEADS)}
        for text, found in uploads.items():
            name = unescaped(text)
            if name is None:  # tries of the server, and others may be at it
                found = [one for one in found if time.time() - one.modified.timestamp() > _DAY]
            elif len(found) > 1 or text not in heads:
                found = [*self._leftovers(name, found)]
            else:
                continue
            for upload in found:
                delete_upload(self._bucket, upload.key)

    def _leftovers(self, name: str, uploads: Iterable[Listed]) -> Iterator[Listed]:
        """Those uploads of a name that are not the one that its head names, at this moment."""
        for upload in uploads:
            try:
                if self._key(name) != upload.key:
                    yield upload
            except NoCheckpoint:
                yield upload
            except CorruptCheckpoint:  # it may be any
                return

    def _key(self, name: str) -> str:
        """The key of the upload that is the checkpoint of this name."""
        return upload_key(name, read_head(self._bucket, name).nonce)


class _SharedStore(ObjectStore):
    """The same place, written under the lock of another process."""

    @contextmanager
    def lock(self) -> Iterator[None]:
        yield

    def _check(self) -> None:
        pass


def _address(store: "Remote", prefix: str) -> str:
    """Say where a store of obstore is; not by its `repr`, which for Azure's may panic."""
    config = getattr(store, "config", {})
    bucket = config.get("bucket") or config.get("container_name") or ""
    parts = [type(store).__name__, bucket, getattr(store, "prefix", None) or "", prefix]
    return "/".join(part for part in parts if part)


def _uploads(bucket: Bucket) -> dict[str, list[Listed]]:
    """All uploads, by the name as it is written in keys."""
    uploads: dict[str, list[Listed]] = defaultdict(list)
    for found in bucket.list(UPLOADS):
        uploads[found.key.split("/")[1]].append(found)
    return uploads
