"""One writer at a time in an object store: a lease, which its holder renews.

It is an object that says who holds it; every change of it is conditional on what it was before.
How old it is, the server's clock says. A holder that could not renew it in time has lost it.
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
"""Seconds after which a lock that was not renewed is anyone's."""

KEY = "lock"
PROBES = "uploads/.probe"
"""Where what is written to try the server lies: no checkpoint has such a name."""

_TRIES = 5
_HINT = "wait until it ends, or save elsewhere"


@frozen
class Holder:
    """Who holds it: a process of a machine, by the time that it began; nobody if `nonce` is empty.

    `turn` makes each renewal another object than the one before.
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
        """Whether it is known to have ended: a process of this machine that is no more."""
        here = self.machine != "" and self.machine == _machine()
        return here and _start(self.pid) != self.start


class Lease:
    """The lock of one store object. Not safe for threads: its store sees to that."""

    def __init__(self, bucket: "Bucket", seconds: float = LEASE_SECONDS) -> None:
        self._bucket = bucket
        self._seconds = seconds
        self._me = Holder()
        self._version: Version = {}
        self._since = 0.0
        self._lost = ""
        self._given_back = threading.Event()
        self._renewer: threading.Thread | None = None

    def take(self) -> bool:
        """Be the holder; say whether nobody before can be writing any more.

        Raises `StoreLocked` if another has it.
        """
        me = Holder(
            os.getpid(), os.uname().nodename, _machine(), _start(os.getpid()), secrets.token_hex(8)
        )
        over, failure = True, StoreError("no luck")
        for _ in range(_TRIES):
            found = self._read()
            if found and found[0].nonce == me.nonce:
                self._begin(me, found[1])
                return over
            if found and found[0].nonce and not found[0].is_dead():
                if not self._is_over(found[2]):
                    what = f"another writer holds the store: {found[0]}"
                    raise StoreLocked(what, where=self._bucket.address, hint=_HINT)
                over = False
            self._since = time.monotonic()
            try:
                self._bucket.put(KEY, _bytes(me), found[1] if found else "create")
            except StoreError as error:  # also if it was done all the same: then it is ours
                failure = error
        if isinstance(failure, CheckpointExists):
            what = "other writers are taking the store at the same moment"
            raise StoreLocked(what, where=self._bucket.address, hint=_HINT)
        raise failure

    def check(self) -> None:
        """Raise `StoreLocked` if it is not, or may not be, held any more."""
        if not self._lost and time.monotonic() - self._since > self._seconds:
            self._lost = f"it could not be renewed for {self._seconds:g} s"
        if self._lost:
            what = f"this writer has lost the store: {self._lost}"
            raise StoreLocked(what, where=self._bucket.address, hint="end it, and start it again")

    def renew(self) -> None:
        """Hold it for longer; find out if it was lost."""
        asked, mine = time.monotonic(), evolve(self._me, turn=self._me.turn + 1)
        try:
            self._version = self._bucket.put(KEY, _bytes(mine), self._version)
        except StoreError:  # or done, and the answer was lost
            found = self._read()
            if not found or found[0].nonce != mine.nonce:
                self._lost = f"{found[0]} has it" if found else "its lock was removed"
                return
            self._version = found[1]
            if found[0].turn != mine.turn:
                return
        self._me, self._since = mine, asked

    def give_back(self) -> None:
        """Hold it no more. What is written says so, which nobody else's lock can suffer from."""
        self._given_back.set()
        if self._renewer:
            self._renewer.join()
        if not self._lost:
            with suppress(StoreError):  # then it ends with its time, or with this process
                self._bucket.put(KEY, _bytes(Holder()), self._version)

    def _begin(self, me: Holder, version: "Version") -> None:
        self._me, self._version, self._lost = me, version, ""
        self._given_back = threading.Event()
        self._renewer = threading.Thread(
            target=self._keep, args=(self._given_back,), name="checkpointable-lease", daemon=True
        )
        self._renewer.start()

    def _keep(self, given_back: threading.Event) -> None:
        while not self._lost and not given_back.wait(self._seconds / 4):
            with suppress(StoreError):  # it is tried again
                self.renew()

    def _read(self) -> "tuple[Holder, Version, datetime] | None":
        try:
            found = self._bucket.get(KEY)
        except NoCheckpoint:
            return None
        return _holder(found.body), found.version, found.modified

    def _is_over(self, since: "datetime") -> bool:
        return probe(self._bucket) - since >= timedelta(seconds=self._seconds)


def probe(bucket: "Bucket") -> "datetime":
    """Try whether the server keeps to conditions; give the time by its clock.

    Raises `StoreError` if it does not: some servers take no notice of them, and then two writers
    of one name both succeed.
    """
    key = f"{PROBES}/{secrets.token_hex(16)}"
    try:
        with suppress(CheckpointExists):  # a try whose answer was lost
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
    hint = "use a server with conditional writes, as those of S3, GCS and Azure are"
    raise StoreError(f"no safe place for checkpoints: {what}", where=bucket.address, hint=hint)


def _bytes(holder: Holder) -> bytes:
    return orjson.dumps(asdict(holder))


def _holder(body: bytes) -> Holder:
    """Who holds it, of what is written; someone not known if that makes no sense."""
    try:
        said = orjson.loads(body)
        host, machine, start, nonce = (
            str(said[name])[:255] for name in ("host", "machine", "start", "nonce")
        )
        return Holder(int(said["pid"]), host, machine, start, nonce, int(said["turn"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return Holder(nonce="?")


def _start(pid: int) -> str:
    """When a process began, in the system's ticks; nothing if there is none, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _machine() -> str:
    """Where a pid means something: since this boot, in this namespace."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return ""
