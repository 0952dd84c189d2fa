"""A process that runs workloads in children of its own, to be killed or failed at any call.

Forked from one that has everything loaded, a child costs milliseconds, and the first system call
that strace sees of it is the workload's. It begins when the tracer is attached.
"""

import linecache
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from checkpointable import CheckpointableError
from tests.crash import mutations, workloads


class Victims:
    """Children that run a workload; `strace` is what to do to them."""

    def __init__(self, server: "subprocess.Popen[bytes]") -> None:
        self._server = server

    def begin(self, workload: str, root: Path, way: str = "") -> int:
        """Fork a child that waits; its pid."""
        self._say(f"{workload} {root} {way}\n".encode())
        return int(self._hear())

    def go(self) -> None:
        """Let it run."""
        self._say(b"g")

    def end(self) -> int:
        """Wait for its end; the exit code, or minus the signal that killed it."""
        return int(self._hear())

    def run(self, workload: str, root: Path, strace: Sequence[str] = (), way: str = "") -> int:
        """All of it, under strace if it is told what to do."""
        pid = self.begin(workload, root, way)
        if not strace:
            self.go()
            return self.end()
        command = ["strace", "-f", "-p", str(pid), *strace]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
            assert tracer.stderr is not None
            attached = tracer.stderr.readline()
            assert b"attached" in attached, attached
            self.go()
            code = self.end()
            tracer.stderr.read()
        return code

    def _say(self, what: bytes) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(what)
        self._server.stdin.flush()

    def _hear(self) -> bytes:
        assert self._server.stdout is not None
        return self._server.stdout.readline()


@contextmanager
def victims() -> Iterator[Victims]:
    command = [sys.executable, "-m", "tests.crash.killed_process"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, process_group=0) as server:
        try:
            yield Victims(server)
            assert server.stdin is not None
            server.stdin.close()
        except BaseException:
            os.killpg(server.pid, signal.SIGKILL)  # a child may wait for a word, in vain
            raise


def lay(workload: str, root: Path) -> None:
    """Put there what is there before a workload."""
    root.mkdir()
    for path, data in workloads.before(workload).items():
        (root / path).mkdir() if data is None else (root / path).write_bytes(data)


def acknowledged(root: Path) -> list[Any]:
    """What a workload had been promised when it ended."""
    acks = root / "acks"
    return [orjson.loads(line) for line in acks.read_bytes().splitlines()] if acks.exists() else []


def _serve() -> None:
    for name in [*workloads.IN_ONE_THREAD, "runs_a_kernel"]:  # what is loaded late is loaded now
        with tempfile.TemporaryDirectory() as folder:
            lay(name, Path(folder) / "root")
            workloads.WORKLOADS[name](Path(folder) / "root")
    for name, module in [*sys.modules.items()]:
        if name.startswith(("checkpointable", "tests")):
            linecache.getlines(str(module.__file__))  # or each child reads them, for its traceback
    while line := _line():
        name, root, way = line.decode().removesuffix("\n").split(" ")
        ready, go = os.pipe()  # of its own: one that is killed early leaves nothing in ours
        child = os.fork()
        if not child:
            os._exit(_run(name, Path(root), way, ready))
        print(child, flush=True)
        os.write(go, os.read(0, 1))
        _, status = os.waitpid(child, 0)
        os.close(ready)
        os.close(go)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _line() -> bytes:
    """Read a line of the standard input unbuffered: the byte behind it lets the child run."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line


def _run(name: str, root: Path, way: str, ready: int) -> int:
    """Run a workload; 0 if it succeeds, 3 if it ends in an error of ours, 1 in any other.

    After an error of ours the process has to be able to go on: it saves once more.
    """
    mutations.take(way)
    os.read(ready, 1)
    os.getppid()  # nothing else calls it: here the workload begins
    try:
        workloads.WORKLOADS[name](root)
    except CheckpointableError as error:
        _note(root, error)
        try:
            workloads.save(root, 50)
        except BaseException as again:
            _note(root, again)
            return 1
        return 3
    except BaseException as error:
        _note(root, error)
        return 1
    return 0


def _note(root: Path, error: BaseException) -> None:
    text = "".join(traceback.format_exception(error))
    (root.parent / f"{root.name}.errors").open("a").write(text)


if __name__ == "__main__":
    _serve()
