"""A child process of the supervisor: starting, hearing and ending it with its descendants."""

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
"""The file in the run's directory that the child's stderr goes to."""

_RECORD = ".child.json"
_LOCK = ".supervisor.lock"
_SCAN_SECONDS = 1.0  # between two scans for what the child has started
_POLL_SECONDS = 0.05
_TAIL = 8192


class Child:
    """A process that calls `run`; it shares neither memory nor CUDA with this one.

    It is in a process group of its own, so that Ctrl-C on a terminal reaches only the supervisor,
    which passes it on. Its stderr goes to a file, which is copied to ours: the file stays writable
    if we die, and its end is all that is known of a process that crashed.
    """

    def __init__(self, command: Sequence[str], directory: Path, grace: float) -> None:
        self._stderr = directory / STDERR
        self._forwarded = 0
        self._scanned = 0.0
        self._tree: set[psutil.Process] = set()
        self.pid_of_run: int | None = None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._stderr.open("wb") as stderr:
            settings = {"socket": theirs.fileno(), "directory": str(directory), "grace": grace}
            environment = {"PYTHONFAULTHANDLER": "1", **os.environ}
            environment[VARIABLE] = orjson.dumps(settings).decode()
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
        """Return what the run sent, after waiting up to so many seconds: words with values."""
        self._scan_children()
        messages: list[tuple[str, str]] = []
        while self._link and select.select([self._link], [], [], 0 if messages else seconds)[0]:
            try:
                message = self._link.recv(65536).decode()
            except OSError:
                message = ""
            if not message:  # the run has ended, or is about to
                self._link.close()
                self._link = None
                seconds = 0
                break
            word, _, value = message.partition(" ")
            if word == "attached":
                self.pid_of_run = int(value)
            messages.append((word, value))
        if self._link is None and not messages:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(max(seconds, 0.01))
        self._forward_stderr()
        return messages

    def ended(self) -> bool:
        """Whether the process has ended; then `process.returncode` is set."""
        return self.process.poll() is not None

    def terminate(self) -> None:
        """Ask the process that called `run` to save and stop."""
        self._scan_children(now=True)
        pid = self.pid_of_run if self.pid_of_run in {p.pid for p in self._tree} else None
        with suppress(ProcessLookupError):
            os.kill(self.process.pid if pid is None else pid, signal.SIGTERM)

    def dump_tracebacks(self) -> None:
        """Have the run dump the tracebacks of its threads to stderr, even if one holds the GIL."""
        if self.pid_of_run is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid_of_run, WHERE)

    def kill(self) -> None:
        """Kill the process; `close` kills what it has started."""
        self._scan_children(now=True)
        self.process.kill()
        self.process.wait()

    def close(self) -> str:
        """Kill what it has started, as far as seen; return the end of its stderr."""
        kill_all(self._tree)
        if self._link is not None:
            self._link.close()
        self._forward_stderr()
        with suppress(OSError), self._stderr.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            return file.read().decode(errors="replace")
        return ""

    def _scan_children(self, *, now: bool = False) -> None:
        """Record its descendants, which cannot be found once it has died."""
        if now or time.monotonic() - self._scanned > _SCAN_SECONDS:
            self._scanned = time.monotonic()
            with suppress(psutil.Error):
                self._tree.update(psutil.Process(self.process.pid).children(recursive=True))

    def _forward_stderr(self) -> None:
        with suppress(OSError), self._stderr.open("rb") as file:
            file.seek(self._forwarded)
            new = file.read()
            self._forwarded += len(new)
            if new:
                sys.stderr.write(new.decode(errors="replace"))
                sys.stderr.flush()


def kill_all(tree: set[psutil.Process]) -> None:
    """Send SIGKILL to each process that is still the same."""
    for process in tree:
        with suppress(psutil.Error):
            process.kill()


def record(directory: Path, pid: int) -> None:
    """Record which process runs here, for the next supervisor if we die."""
    with suppress(psutil.Error, OSError):
        facts = {"pid": pid, "created": psutil.Process(pid).create_time()}
        scratch = directory / f"{_RECORD}.tmp"
        scratch.write_bytes(orjson.dumps(facts))
        scratch.replace(directory / _RECORD)


def end_orphan(directory: Path, grace: float) -> int | None:
    """End the child of a supervisor that died, if it still runs; return its pid.

    The death itself asked it to stop, and it has the grace time to save.
    """
    try:
        record = orjson.loads((directory / _RECORD).read_bytes())
        process = psutil.Process(int(record["pid"]))
        if abs(process.create_time() - record["created"]) > 1:
            return None  # another process has this pid by now
        tree = {process, *process.children(recursive=True)}
    except (OSError, ValueError, TypeError, KeyError, psutil.Error):
        return None
    kill_at = time.monotonic() + grace
    while not ended(process) and time.monotonic() < kill_at:
        time.sleep(_POLL_SECONDS)
    kill_all(tree)
    while not ended(process):
        time.sleep(_POLL_SECONDS)
    return int(record["pid"])


def ended(process: psutil.Process) -> bool:
    """Whether a process has ended, or is a zombie: a container may have no init to reap it."""
    try:
        return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Be the only supervisor of this directory within the context; `StoreLocked` if not."""
    file = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreLocked(
                "the run has a supervisor already",
                where=str(directory),
                hint="wait for it, or stop it first",
            ) from None
        yield
    finally:
        os.close(file)
