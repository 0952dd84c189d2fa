"""One writer at a time in an object store: a lease, which its holder renews.

The lease is an object that names its holder; every change of it is conditional on its previous
version. Its age is measured by the server's clock. A holder that did not renew it in time has lost
it.
"""

import os
import secrets
import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import orjson
from attrs import asdict, evolve, frozen

from checkpointable.errors import CheckpointExists, NoCheckpoint, StoreError, StoreLocked

if TYPE_CHECKING:
    from datetime import datetime

    from checkpointable.stores.object.bucket import Bucket, Version

LEASE_SECONDS = 60.0
"""Seconds after which a lease that was not renewed can be taken over."""

KEY = "lock"
PROBES = "uploads/.probe"
"""Where the probes of the server are written: no checkpoint has such a name."""

_TRIES = 5
_HINT = "wait until it ends, or save elsewhere"


@frozen
class Holder:
    """The holder: a process of a machine, with its start time; none if `nonce` is empty.

    `turn` makes each renewal a different object.
    """

    pid: int = 0
    host: str = ""
    machine: str = ""
    start: str = ""
    nonce: str = ""
    turn: int = 0

    def __str__(self) -> str:
        return f"pid {self.pid} on host {self.host}" if self.pid else "its pid is not known"

    def is_dead(self) -> bool:
        """Whether the holder is known to have ended: a process of this machine that is gone."""
        here = self.machine != "" and self.machine == _machine()
        return here and _start(self.pid) != self.start


class Lease:
    """The lock of one store object, which makes it safe for threads."""

    def __init__(self, bucket: "Bucket", seconds: float = LEASE_SECONDS) -> None:
        self._bucket = bucket
        self._seconds = seconds
        self._me = Holder()
        self._version: Version = {}
        self._since = 0.0
        self._lost = ""
        self._released = threading.Event()
        self._renewer: threading.Thread | None = None

    def acquire(self) -> bool:
        """Become the holder; return whether the previous holder can no longer be writing.

        Raises `StoreLocked` if another writer holds the lease.
        """
        me = Holder(
            os.getpid(), os.uname().nodename, _machine(), _start(os.getpid()), secrets.token_hex(8)
        )
        over, failure = True, StoreError("the lease could not be acquired")
        for _ in range(_TRIES):
            current = self._read()
            if current and current[0].nonce == me.nonce:
                self._begin(me, current[1])
                return over
            if current and current[0].nonce and not current[0].is_dead():
                if not self._is_over(current[2]):
                    what = f"another writer holds the store: {current[0]}"
                    raise StoreLocked(what, where=self._bucket.address, hint=_HINT)
                over = False
            self._since = time.monotonic()
            try:
                self._bucket.put(KEY, _bytes(me), current[1] if current else "create")
            except (
                StoreError
            ) as error:  # it may have been written all the same; the next read shows
                failure = error
        if isinstance(failure, CheckpointExists):
            what = "other writers are taking the store at the same moment"
            raise StoreLocked(what, where=self._bucket.address, hint=_HINT)
        raise failure

    def check(self) -> None:
        """Raise `StoreLocked` if the lease is, or may be, lost."""
        if not self._lost and time.monotonic() - self._since > self._seconds:
            self._lost = f"it could not be renewed for {self._seconds:g} s"
        if self._lost:
            what = f"this writer has lost the store: {self._lost}"
            raise StoreLocked(what, where=self._bucket.address, hint="end it, and start it again")

    def renew(self) -> None:
        """Extend the lease, or find out that it is lost."""
        asked, mine = time.monotonic(), evolve(self._me, turn=self._me.turn + 1)
        try:
            self._version = self._bucket.put(KEY, _bytes(mine), self._version)
        except StoreError:  # or it was written, and the answer was lost
            current = self._read()
            if not current or current[0].nonce != mine.nonce:
                self._lost = f"{current[0]} has it" if current else "its lease was removed"
                return
            self._version = current[1]
            if current[0].turn != mine.turn:
                return
        self._me, self._since = mine, asked

    def release(self) -> None:
        """Give up the lease; the write is conditional, so it cannot harm another's lease."""
        self._released.set()
        if self._renewer:
            self._renewer.join()
        if not self._lost:
            with suppress(StoreError):  # then it expires, or ends with this process
                self._bucket.put(KEY, _bytes(Holder()), self._version)

    def _begin(self, me: Holder, version: "Version") -> None:
        self._me, self._version, self._lost = me, version, ""
        self._released = threading.Event()
        self._renewer = threading.Thread(
            target=self._keep, args=(self._released,), name="checkpointable-lease", daemon=True
        )
        self._renewer.start()

    def _keep(self, released: threading.Event) -> None:
        while not self._lost and not released.wait(self._seconds / 4):
            with suppress(StoreError):  # it is retried
                self.renew()

    def _read(self) -> "tuple[Holder, Version, datetime] | None":
        try:
            current = self._bucket.get(KEY)
        except NoCheckpoint:
            return None
        return _holder(current.body), current.version, current.modified

    def _is_over(self, since: "datetime") -> bool:
        return probe(self._bucket) - since >= timedelta(seconds=self._seconds)


def probe(bucket: "Bucket") -> "datetime":
    """Check that the server supports conditional writes; return the time by its clock.

    Raises `StoreError` if it does not: some servers ignore the conditions, and two writers of one
    name would both succeed.
    """
    key = f"{PROBES}/{secrets.token_hex(16)}"
    try:
        with suppress(CheckpointExists):  # the answer of an earlier try was lost
            bucket.put(key, b"1", "create")
        _must_fail(bucket, key, "create", "a new object replaces one (it ignores If-None-Match)")
        first = bucket.get(key).version
        with suppress(CheckpointExists):
            bucket.put(key, b"2", first)
        _must_fail(bucket, key, first, "an old version is overwritten (it ignores If-Match)")
        return bucket.modified(key)
    finally:
        with suppress(StoreError):
            bucket.delete(key)


def _must_fail(bucket: "Bucket", key: str, mode: 'Literal["create"] | Version', what: str) -> None:
    try:
        bucket.put(key, b"3", mode)
    except CheckpointExists:
        return
    hint = "use a server with conditional writes, such as S3, GCS or Azure"
    raise StoreError(
        f"the server is not safe for checkpoints: {what}", where=bucket.address, hint=hint
    )


def _bytes(holder: Holder) -> bytes:
    return orjson.dumps(asdict(holder))


def _holder(body: bytes) -> Holder:
    """The holder in the bytes of a lease; an unknown one if they are damaged."""
    try:
        fields = orjson.loads(body)
        host, machine, start, nonce = (
            str(fields[name])[:255] for name in ("host", "machine", "start", "nonce")
        )
        return Holder(int(fields["pid"]), host, machine, start, nonce, int(fields["turn"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return Holder(nonce="?")


def _start(pid: int) -> str:
    """When a process started, in the system's ticks; empty if it is gone, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _machine() -> str:
    """The scope in which a pid is unique: this boot and this namespace."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return ""
