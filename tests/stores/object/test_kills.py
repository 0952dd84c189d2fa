"""A writer is killed at each of its requests, before the server has it and after."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from checkpointable.stores.object.store import ObjectStore
from checkpointable.testing.stores import listed, read
from tests.stores.object.killed_processes import CHUNK, CHUNKS
from tests.stores.object.places import Place
from tests.stores.object.proxy import Proxy, Request

BLOB = CHUNK * CHUNKS


class Victims:
    """Processes that save by a proxy."""

    def __init__(self, process: "subprocess.Popen[str]", proxy: Proxy) -> None:
        assert process.stdin
        assert process.stdout
        self._input, self._output = process.stdin, process.stdout
        self._proxy = proxy

    def save(self, place: Place, name: str, kill: int = 0, *, before: bool = False) -> bool:
        """Save; killed at a request. Says whether it was."""
        pid = 0

        def die(request: Request) -> str:
            if request.number == kill:
                os.kill(pid, signal.SIGKILL)
                return "refused"
            return ""

        self._proxy.reset()
        self._proxy.fate = die if before else lambda request: ""
        self._proxy.passed = (lambda request: None) if before else die
        with self._proxy.stopped():  # until it is known who it is
            print(place.address, place.prefix, name, file=self._input, flush=True)
            pid = int(self._output.readline())
        ended = int(self._output.readline())
        assert ended in (0, -signal.SIGKILL)
        return ended != 0


@pytest.fixture
def victims(proxy: Proxy) -> Iterator[Victims]:
    command = [sys.executable, "-m", "tests.stores.object.killed_processes"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Victims(process, proxy)
        process.kill()


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_killed_at_any_request(
    victims: Victims, proxy: Proxy, near: Place, far: Place, before: bool
) -> None:
    store = near.store()
    store.create("earlier", len(CHUNK), [CHUNK])
    kept, kill = {"earlier": CHUNK}, 1
    while victims.save(far, f"killed-at-{kill}", kill, before=before):
        _check(near.store(), near, kept, f"killed-at-{kill}")
        kill += 1
    assert kill > 15, "so many requests does a save take, and the last one was not killed"
    assert f"killed-at-{kill - 1}" in kept, "the commit object is not the last that it does"
    assert "killed-at-10" not in kept


def _check(store: ObjectStore, place: Place, kept: dict[str, bytes], name: str) -> None:
    """Whole or absent; the next writer is let in at once, and removes what was left."""
    assert set(kept) <= set(listed(store)) <= {*kept, name}
    with store.lock():
        if name in listed(store):
            kept[name] = BLOB
        else:
            store.create(name, 3, [b"new"])
            kept[name] = b"new"
            assert read(store, name) == b"new"
            store.delete(name)
            del kept[name]
        whole = {name: len(blob) for name, blob in kept.items()}
        assert listed(store) == whole
        result = [key for key in place.keys("uploads") if ".probe" not in key]
        assert len(result) == len(kept)
    for name, blob in kept.items():
        assert read(store, name) == blob
