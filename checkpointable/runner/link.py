"""The run's side of supervision: it reports its progress, and why it ends, to its supervisor.

`checkpointable.supervisor` starts a program with one end of a socket, whose number is in the
environment; the first `run` in that program uses it. Without a supervisor nothing here has any
effect.
"""

import faulthandler
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from checkpointable.errors import CheckpointableError
from checkpointable.runner.exit_codes import exit_code

if TYPE_CHECKING:
    import socket

VARIABLE = "CHECKPOINTABLE_SUPERVISED"
"""The environment variable with the socket's number, the run's directory and the grace time."""

ENDED = "ended.json"
"""The file in the run's directory with the reason why a supervised run ended."""

WHERE = signal.SIGRTMAX - 1
"""The signal that makes a supervised run dump its tracebacks; hardly used by others."""


_DONTWAIT = 0x40  # MSG_DONTWAIT of Linux; importing `socket` takes a while


class Link:
    """The connection of a run to its supervisor; without one it has no effect.

    `directory` is the run's, or None without a supervisor.
    """

    def __init__(
        self, channel: "socket.socket | None" = None, directory: Path | None = None
    ) -> None:
        self._channel = channel
        self.directory = directory
        self._step: object = None

    def send(self, word: str, value: object = "") -> None:
        """Send a word with a value. Never waits, and never fails."""
        if word == "step":
            self._step = value
        if self._channel is not None:
            with suppress(OSError):  # full: more will follow; closed: see `_watch`
                self._channel.send(f"{word} {value}".encode(), _DONTWAIT)

    def ended(self, code: int, what: str = "", *, error: str = "", trace: str = "") -> None:
        """Record in `ENDED` why the run ends, and its exit code, which may get lost in a pipe."""
        if self.directory is not None:
            facts = {"code": code, "step": self._step, "error": error, "what": what}
            scratch = self.directory / f".{ENDED}.tmp"
            with suppress(OSError):  # the disk may be full; then the exit code must do
                scratch.write_bytes(orjson.dumps({**facts, "traceback": trace}))
                scratch.replace(self.directory / ENDED)
            self.send("ended", code)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Record an error as the reason why the run ends, and pass it on."""
        try:
            yield
        except SystemExit as stop:
            self.ended(stop.code if isinstance(stop.code, int) else 1, "stopped by a signal")
            raise
        except BaseException as error:
            what = error.what if isinstance(error, CheckpointableError) else str(error)
            trace = "".join(traceback.format_exception(error))
            self.ended(exit_code(error), what, error=type(error).__name__, trace=trace)
            raise


@cache
def link() -> Link:
    """The link of this process to its supervisor.

    If the supervisor dies, this process gets SIGTERM, and SIGKILL after the grace time. The death
    is noticed by the end of the socket, which also shows one that came before we listen.
    """
    given = os.environ.pop(VARIABLE, "")  # so that a process that we start does not use it
    if not given:
        return Link()
    import socket  # here, since few runs need it

    settings = orjson.loads(given)
    try:
        channel = socket.socket(fileno=settings["socket"])
    except OSError as error:
        raise CheckpointableError(
            f"the supervisor's socket cannot be used: {error}",
            where=f"file descriptor {settings['socket']}",
            hint="the command between must pass the descriptor on to the program",
        ) from None
    channel.set_inheritable(False)
    channel.setblocking(True)
    faulthandler.register(WHERE)
    threading.Thread(target=_watch, args=(channel, settings["grace"]), daemon=True).start()
    link = Link(channel, Path(settings["directory"]))
    link.send("attached", os.getpid())
    return link


def no_link() -> Link:
    """No link, even if the environment has one, which is for rank 0 of the job."""
    os.environ.pop(VARIABLE, None)
    return Link()


def _watch(channel: "socket.socket", grace: float) -> None:
    with suppress(OSError):
        while channel.recv(1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os.kill(os.getpid(), signal.SIGKILL)
