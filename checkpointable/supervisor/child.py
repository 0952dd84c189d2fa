"""One child process of the supervisor: started, heard, and ended with all that it has started."""

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson
import psutil

from checkpointable.errors import StoreLocked
from checkpointable.runner import VARIABLE, WHERE

STDERR = "stderr.txt"
"""The file in the run's directory that takes what the child writes to stderr."""

_RECORD = ".child.json"
_LOCK = ".supervisor.lock"
_LOOK_SECONDS = 1.0  # between two looks at what the child has started
_POLL_SECONDS = 0.05
_TAIL = 8192


class Child:
    """A process that calls `run`, started anew: it shares no memory with this one, and no CUDA.

    It is in a process group of its own, so that Ctrl-C on a terminal reaches only the supervisor,
    which passes it on. Its stderr goes to a file, from which it is copied to ours: the file stays
    writable if we die, and its end is what there is to know of a process that crashed.
    """

    def __init__(self, command: Sequence[str], directory: Path, grace: float) -> None:
        self._stderr = directory / STDERR
        self._shown = 0
        self._looked = 0.0
        self._tree: set[psutil.Process] = set()
        self.pid_of_run: int | None = None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._stderr.open("wb") as stderr:
            told = {"socket": theirs.fileno(), "directory": str(directory), "grace": grace}
            environment = {"PYTHONFAULTHANDLER": "1", **os.environ}
            environment[VARIABLE] = orjson.dumps(told).decode()
            try:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stderr=stderr, env=environment,
                    pass_fds=[theirs.fileno()], process_group=0,
                )  # fmt: skip
            except BaseException:
                ours.close()
                raise
        self._link: socket.socket | None = ours
        record(directory, self.process.pid)

    def receive(self, seconds: float) -> list[tuple[str, str]]:
        """What the run has told, after waiting up to so long: words, each with what it is about."""
        self._scan_children()
        heard: list[tuple[str, str]] = []
        while self._link and select.select([self._link], [], [], 0 if heard else seconds)[0]:
            try:
                message = self._link.recv(65536).decode()
            except OSError:
                message = ""
            if not message:  # it has ended, or is about to
                self._link.close()
                self._link = None
                seconds = 0
                break
            word, _, about = message.partition(" ")
            if word == "attached":
                self.pid_of_run = int(about)
            heard.append((word, about))
        if self._link is None and not heard:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(max(seconds, 0.01))
        self._forward_stderr()
        return heard

    def ended(self) -> bool:
        """Say whether the process has ended; then `process.returncode` says how."""
        return self.process.poll() is not None

    def terminate(self) -> None:
        """Ask it to save and stop: the process that called `run`, if another stands between."""
        self._scan_children(now=True)
        pid = self.pid_of_run if self.pid_of_run in {p.pid for p in self._tree} else None
        with suppress(ProcessLookupError):
            os.kill(self.process.pid if pid is None else pid, signal.SIGTERM)

    def dump_tracebacks(self) -> None:
        """Let the run write to stderr where all its threads are, even if they hold the GIL."""
        if self.pid_of_run is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid_of_run, WHERE)

    def kill(self) -> None:
        """End it at once; `close` does the same to what it has started."""
        self._scan_children(now=True)
        self.process.kill()
        self.process.wait()

    def close(self) -> str:
        """End what it has started and we have seen; return the end of what it wrote to stderr."""
        kill_all(self._tree)
        if self._link is not None:
            self._link.close()
        self._forward_stderr()
        with suppress(OSError), self._stderr.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            return file.read().decode(errors="replace")
        return ""

    def _scan_children(self, now: bool = False) -> None:
        """Note its descendants: once it has died, nobody can say which they were."""
        if now or time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked = time.monotonic()
            with suppress(psutil.Error):
                self._tree.update(psutil.Process(self.process.pid).children(recursive=True))

    def _forward_stderr(self) -> None:
        with suppress(OSError), self._stderr.open("rb") as file:
            file.seek(self._shown)
            new = file.read()
            self._shown += len(new)
            if new:
                sys.stderr.write(new.decode(errors="replace"))
                sys.stderr.flush()


def kill_all(tree: set[psutil.Process]) -> None:
    """SIGKILL to each of them that is still the process that it was."""
    for process in tree:
        with suppress(psutil.Error):
            process.kill()


def record(directory: Path, pid: int) -> None:
    """Write down which process runs here, for who comes after us if we die."""
    with suppress(psutil.Error, OSError):
        facts = {"pid": pid, "created": psutil.Process(pid).create_time()}
        scratch = directory / f"{_RECORD}.tmp"
        scratch.write_bytes(orjson.dumps(facts))
        scratch.replace(directory / _RECORD)


def end_orphan(directory: Path, grace: float) -> int | None:
    """End the child of a supervisor that has died, if it still runs; return its pid.

    It was told to stop by the death itself, and has the grace time to save.
    """
    try:
        found = orjson.loads((directory / _RECORD).read_bytes())
        process = psutil.Process(int(found["pid"]))
        if abs(process.create_time() - found["created"]) > 1:
            return None  # another, that has the pid by now
        tree = {process, *process.children(recursive=True)}
    except (OSError, ValueError, TypeError, KeyError, psutil.Error):
        return None
    kill_at = time.monotonic() + grace
    while not ended(process) and time.monotonic() < kill_at:
        time.sleep(_POLL_SECONDS)
    kill_all(tree)
    while not ended(process):
        time.sleep(_POLL_SECONDS)
    return int(found["pid"])


def ended(process: psutil.Process) -> bool:
    """Say whether it has ended, though nobody may have asked how: a container may have no init."""
    try:
        return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Be the only supervisor of this directory, however we end; `StoreLocked` if there is one."""
    file = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreLocked(
                "the run has a supervisor already", where=str(directory), hint="let it work"
            ) from None
        yield
    finally:
        os.close(file)
