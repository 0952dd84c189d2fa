"""A store in an object store: S3 and compatible ones, Google's and Azure's, by obstore.

A checkpoint is an upload, written first under a key that no other attempt uses, and a commit
object, a tiny object that names the upload. The commit object is created last, and only if there is
none. An upload without a commit object is a leftover, which the next writer removes.
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
    Commit,
    commit_key,
    delete_upload,
    opened,
    read_commit,
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
    """Checkpoints in a bucket; `store` is an obstore store, with its credentials and options.

    Whole or absent, and durable when `create` returns, since the service has acknowledged it. One
    process writes at a time, under a lease of one minute that it renews; any number read. Safe to
    use from threads. A reader stays readable after a `delete` by this process; after one by another
    process it raises `NoCheckpoint`.

    >>> import obstore.store
    >>> store = ObjectStore(obstore.store.S3Store("bucket", region="eu-central-1"), "runs/heat")
    >>> store
    ObjectStore('S3Store/bucket/runs/heat')
    """

    def __init__(self, store: "Remote", prefix: str = "", *, address: str = "") -> None:
        prefix = prefix.strip("/")
        self._bucket = Bucket(store, prefix, address or _address(store, prefix))
        self._lease = Lease(self._bucket)
        self._lock = SharedLock(self._acquire, lambda _: self._lease.release())
        self._probed = False

    def __repr__(self) -> str:
        return f"ObjectStore({self._bucket.address!r})"

    def create(self, name: str, size: int, chunks: Iterable[Buffer], /) -> None:
        """See `checkpointable.stores.Create`."""
        check_name(name)
        with self.lock():
            if self._bucket.exists(commit_key(name)):  # fail early; `_commit` decides
                raise self._exists(name)
            commit = Commit(secrets.token_hex(16), size)
            key = upload_key(name, commit.nonce)
            self._bucket.upload(key, size, chunks)
            try:
                self._commit(name, commit)
            except (CheckpointExists, StoreLocked):  # after others it may be there
                delete_upload(self._bucket, key)
                raise

    def open(self, name: str, /) -> AbstractContextManager[Reader]:
        """See `checkpointable.stores.Open`."""
        check_name(name)
        return opened(self._bucket, name)

    def list(self) -> Iterator[Entry]:
        """See `checkpointable.stores.List`; no upload is opened."""
        commits = {one.key.removeprefix(f"{HEADS}/"): one for one in self._bucket.list(HEADS)}
        uploads = _uploads(self._bucket)  # after the commit objects, so that each has its upload
        for text, commit in commits.items():
            if (name := unescaped(text)) is None:
                continue
            candidates = uploads[text]
            if len(candidates) > 1:  # of attempts that failed
                with suppress(NoCheckpoint, CorruptCheckpoint):
                    key = self._key(name)
                    candidates = [upload for upload in candidates if upload.key == key]
            for upload in candidates[:1]:  # none if it was deleted meanwhile
                yield Entry(name, upload.size, commit.modified.timestamp())

    def delete(self, name: str, /) -> None:
        """See `checkpointable.stores.Delete`."""
        check_name(name)
        if not self._bucket.exists(commit_key(name)):  # which needs no lock
            raise NoCheckpoint("no such checkpoint", where=self._bucket.where(name))
        with self.lock():
            key = ""
            with suppress(CorruptCheckpoint):
                key = self._key(name)
            self._check()
            with suppress(NoCheckpoint):  # deleted by a request whose answer was lost
                self._bucket.delete(commit_key(name))
            if key:
                delete_upload(self._bucket, key)

    def lock(self) -> AbstractContextManager[None]:
        """See `checkpointable.stores.Lock`; threads that use this object share the lock.

        A writer that cannot renew the lease, for example when the network is down for a minute,
        loses it: `create` and `delete` then raise `StoreLocked`. Acquiring it removes what a killed
        writer left behind, and raises `StoreError` if the server ignores conditional writes.
        """
        return self._lock.held()

    def without_lock(self) -> "ObjectStore":
        """See `checkpointable.stores.SharedWriters`."""
        bucket = self._bucket
        return _SharedStore(bucket.remote, bucket.prefix, address=bucket.address)

    def _commit(self, name: str, commit: Commit) -> None:
        """Create the commit object; if it is unclear whether it was created, read it."""
        pause, failure = _PAUSE, StoreError("")
        for _ in range(_TRIES):
            self._check()
            try:
                self._bucket.put(commit_key(name), commit.to_bytes(), "create")
                return
            except StoreError as error:
                failure = error
            try:
                if read_commit(self._bucket, name) == commit:
                    return
                raise self._exists(name)
            except CorruptCheckpoint:
                raise self._exists(name) from None
            except NoCheckpoint:
                if not isinstance(failure, CheckpointExists):
                    raise failure from None
            time.sleep(pause)  # servers also report a conflict while another writer creates it
            pause *= 2
        what = "other writers are creating the same name"
        raise StoreError(what, where=self._bucket.where(name), hint="try again") from failure

    def _exists(self, name: str) -> CheckpointExists:
        hint = "save under another name, or delete that one first"
        return CheckpointExists("the name is taken", where=self._bucket.where(name), hint=hint)

    def _check(self) -> None:
        """Raise `StoreLocked` if the lock was lost."""
        self._lease.check()

    def _acquire(self) -> None:
        if not self._probed:
            probe(self._bucket)
            self._probed = True
        sweep = self._lease.acquire()
        try:
            if sweep:
                self._sweep()
        except BaseException:
            self._lease.release()
            raise

    def _sweep(self) -> None:
        """Remove uploads without a commit object, as killed writers leave them."""
        uploads = _uploads(self._bucket)
        commits = {one.key.removeprefix(f"{HEADS}/") for one in self._bucket.list(HEADS)}
        for text, candidates in uploads.items():
            name = unescaped(text)
            if name is None:  # probes of the server, which others may be making now
                candidates = [
                    one for one in candidates if time.time() - one.modified.timestamp() > _DAY
                ]
            elif len(candidates) > 1 or text not in commits:
                candidates = [*self._leftovers(name, candidates)]
            else:
                continue
            for upload in candidates:
                delete_upload(self._bucket, upload.key)

    def _leftovers(self, name: str, uploads: Iterable[Listed]) -> Iterator[Listed]:
        """Those uploads of a name that its commit object does not refer to."""
        for upload in uploads:
            try:
                if self._key(name) != upload.key:
                    yield upload
            except NoCheckpoint:
                yield upload
            except CorruptCheckpoint:  # it may refer to any of them
                return

    def _key(self, name: str) -> str:
        """The key of the upload that is the checkpoint of this name."""
        return upload_key(name, read_commit(self._bucket, name).nonce)


class _SharedStore(ObjectStore):
    """The same place, written under the lock of another process."""

    @contextmanager
    def lock(self) -> Iterator[None]:
        yield

    def _check(self) -> None:
        pass


def _address(store: "Remote", prefix: str) -> str:
    """The place of an obstore store; not its `repr`, which for Azure's may panic."""
    config = getattr(store, "config", {})
    bucket = config.get("bucket") or config.get("container_name") or ""
    parts = [type(store).__name__, bucket, getattr(store, "prefix", None) or "", prefix]
    return "/".join(part for part in parts if part)


def _uploads(bucket: Bucket) -> dict[str, list[Listed]]:
    """All uploads, by the name as it is escaped in keys."""
    uploads: dict[str, list[Listed]] = defaultdict(list)
    for upload in bucket.list(UPLOADS):
        uploads[upload.key.split("/")[1]].append(upload)
    return uploads
