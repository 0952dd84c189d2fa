"""One writer at a time, by a lease: who may take it over, and who has lost it."""

import os
import socket
import subprocess
import sys
import threading

import attrs
import obstore
import orjson
import pytest

from checkpointable.errors import StoreError, StoreLocked
from checkpointable.stores.object import lease
from checkpointable.stores.object.lease import KEY, Holder, Lease
from checkpointable.stores.object.store import ObjectStore
from checkpointable.testing.stores import listed
from tests.stores.object.places import Place, remote


def put(place: Place, holder: Holder) -> None:
    """Have someone hold the lock, from this moment on."""
    body = orjson.dumps(attrs.asdict(holder))
    obstore.put(remote(place.address), f"{place.prefix}/{KEY}", body)


def hurry(store: ObjectStore, seconds: float) -> Lease:
    """Give a store a lease of another length; a long one never renews itself in a test."""
    store._lease = Lease(store._bucket, seconds)
    return store._lease


ELSEWHERE = Holder(123, "elsewhere", "another machine", "1", "a nonce")
HOUR = 3600.0


def test_another_host_is_named_and_waited_for(place: Place) -> None:
    put(place, ELSEWHERE)
    with pytest.raises(StoreLocked, match="pid 123 on host elsewhere") as caught:
        place.store().create("a", 0, [])
    assert caught.value.hint


def test_it_is_anyone_s_when_its_time_is_over(place: Place) -> None:
    put(place, ELSEWHERE)
    store = place.store()
    hurry(store, 0)  # by the server's clock: it is always over
    with store.lock():
        hurry(other := place.store(), HOUR)
        with pytest.raises(StoreLocked, match=f"pid {os.getpid()} "), other.lock():
            pass


def test_after_such_an_end_nothing_is_swept(place: Place) -> None:
    """Whoever had it may be at it still."""
    upload = f"{place.prefix}/uploads/a/{'0' * 32}"
    obstore.put(remote(place.address), upload, b"on its way")
    put(place, ELSEWHERE)
    store = place.store()
    hurry(store, 0)
    with store.lock():
        assert place.keys("uploads/a")
    with place.store().lock():
        assert not place.keys("uploads/a")


PROGRAM = """
import sys
from checkpointable.stores.object import ObjectStore
from tests.stores.object.places import remote
with ObjectStore(remote(sys.argv[1]), sys.argv[2]).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_process_of_this_machine_is_named_and_its_death_ends_it(place: Place) -> None:
    command = [sys.executable, "-c", PROGRAM, place.address, place.prefix]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreLocked, match=f"pid {holder.pid} on host {socket.gethostname()}"):
            place.store().create("a", 0, [])
        holder.kill()
        holder.wait()
    place.store().create("a", 0, [])


@pytest.mark.parametrize("machine", ["", "another"])
def test_a_pid_means_nothing_without_its_machine_and_beginning(place: Place, machine: str) -> None:
    store = place.store()
    with store.lock():
        me = store._lease._me
    earlier = attrs.evolve(me, nonce="x", start="1", machine=machine or me.machine)
    put(place, earlier)
    if not machine:  # the pid is another process's by now
        place.store().create("a", 0, [])
    else:
        with pytest.raises(StoreLocked):
            place.store().create("a", 0, [])


@pytest.mark.parametrize("body", [b"", b"[]", b'{"pid": "x"}', b"\xff" * 99_999])
def test_a_lock_that_makes_no_sense_is_someone_s(place: Place, body: bytes) -> None:
    obstore.put(remote(place.address), f"{place.prefix}/{KEY}", body)
    with pytest.raises(StoreLocked, match="its pid is not known"):
        place.store().create("a", 0, [])


def test_a_renewed_one_is_as_new(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = place.store()
    mine, now = hurry(store, HOUR), 0.0
    monkeypatch.setattr("checkpointable.stores.object.lease.time.monotonic", lambda: now)
    with store.lock():
        now += HOUR - 1
        mine.renew()
        now += HOUR - 1
        store.create("a", 0, [])
        now += 2
        with pytest.raises(StoreLocked, match="could not be renewed for 3600 s"):
            store.create("b", 0, [])
    assert listed(store) == {"a": 0}


def test_who_has_lost_it_creates_nothing_more(place: Place) -> None:
    store = place.store()
    mine = hurry(store, HOUR)

    def chunks() -> "list[bytes]":
        put(place, ELSEWHERE)
        mine.renew()
        return []

    with store.lock():
        with pytest.raises(StoreLocked, match="pid 123 on host elsewhere has it"):
            store.create("a", 0, (chunk for _ in [0] for chunk in chunks()))
        with pytest.raises(StoreLocked, match="lost"):
            store.delete(_existing(place))
    assert not place.keys("uploads/a")
    assert _holder(place) == ELSEWHERE, "it must not give back what is another's"


def test_a_removed_lock_is_lost(place: Place) -> None:
    store = place.store()
    mine = hurry(store, HOUR)
    with store.lock():
        obstore.delete(remote(place.address), f"{place.prefix}/{KEY}")
        mine.renew()
        with pytest.raises(StoreLocked, match="was removed"):
            store.create("a", 0, [])


def test_it_renews_itself(place: Place) -> None:
    store, renewed = place.store(), threading.Semaphore(0)

    class Told(Lease):
        def renew(self) -> None:
            super().renew()
            renewed.release()

    store._lease = Told(store._bucket, 0.4)
    with store.lock():
        turn = _holder(place).turn
        assert renewed.acquire(timeout=60)
        assert renewed.acquire(timeout=60)
        assert _holder(place).turn >= turn + 2


def _existing(place: Place) -> str:
    place.store().without_lock().create("existing", 0, [])
    return "existing"


def _holder(place: Place) -> Holder:
    body = bytes(obstore.get(remote(place.address), f"{place.prefix}/{KEY}").bytes())
    return lease._holder(body)


def test_without_the_lock_nobody_is_kept_out(place: Place) -> None:
    put(place, ELSEWHERE)
    store = place.store().without_lock()
    with store.lock(), store.without_lock().lock():
        store.create("a", 1, [b"a"])
        store.create("b", 1, [b"b"])
        store.delete("b")
    assert listed(place.store()) == {"a": 1}
    assert _holder(place) == ELSEWHERE


def test_a_sweep_leaves_what_a_head_names(place: Place) -> None:
    store = place.store()
    store.create("a", 3, [b"abc"])
    store.create("b", 1, [b"b"])
    (kept,) = place.keys("uploads/a")
    for name, size in (("a", 5), ("c", 5)):
        key = f"{place.prefix}/uploads/{name}/{'0' * 32}"
        obstore.put(remote(place.address), key, b"x" * size)
    assert listed(store) == {"a": 3, "b": 1}
    with store.lock():
        assert place.keys("uploads/a") == [kept]
        assert not place.keys("uploads/c")
        assert len(place.keys("uploads")) == 2


def test_what_is_read_while_it_is_deleted_goes_with_its_last_reader(place: Place) -> None:
    store = place.store()
    store.create("a", 3, [b"abc"])
    with store.open("a"):
        with place.store().open("a"):
            store.delete("a")
            with store.lock():  # which sweeps
                pass
        assert place.keys("uploads/a")
    assert not place.keys("uploads/a")


def test_reading_needs_no_right_to_write(place: Place) -> None:
    """Nothing is written by it."""
    store = place.store()
    store.create("a", 3, [b"abc"])
    before = place.keys()
    with place.store().open("a") as reader:
        reader.read_into(0, memoryview(bytearray(3)))
    assert listed(place.store()) == {"a": 3}
    with pytest.raises(StoreError):
        place.store().delete("none")
    assert place.keys() == before
