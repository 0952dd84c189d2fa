"""The run's side of supervision: it tells its progress, and why it ends, to who has started it.

`checkpointable.supervisor` starts a program with one end of a socket, and names it in the
environment; the first `run` in that program finds it. Without one, nothing here does anything.
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

from checkpointable.errors import (
    CheckpointableError,
)
from checkpointable.runner.exit_codes import exit_code

if TYPE_CHECKING:
    import socket

VARIABLE = "CHECKPOINTABLE_SUPERVISED"
"""The environment variable with the socket's number, the run's directory and the grace time."""

ENDED = "ended.json"
"""The file in the run's directory in which a supervised run says why it ended."""

WHERE = signal.SIGRTMAX - 1
"""The signal at which a supervised run writes where it is; nobody else is likely to use it."""


_DONTWAIT = 0x40  # MSG_DONTWAIT of Linux: importing `socket` takes a while


class Link:
    """What a run tells its supervisor; nothing at all if it has none.

    `directory` is the run's; `None` for a run that nobody supervises.
    """

    def __init__(
        self, channel: "socket.socket | None" = None, directory: Path | None = None
    ) -> None:
        self._channel = channel
        self.directory = directory
        self._step: object = None

    def tell(self, what: str, about: object = "") -> None:
        """Send one word, and what it is about. Never waits, and never fails."""
        if what == "step":
            self._step = about
        if self._channel is not None:
            with suppress(OSError):  # it is full: more will follow; it is closed: see `_watch`
                self._channel.send(f"{what} {about}".encode(), _DONTWAIT)

    def ended(self, code: int, what: str = "", *, error: str = "", trace: str = "") -> None:
        """Say why the run ends, in `ENDED`, and by which exit code if that does not get lost."""
        if self.directory is not None:
            facts = {"code": code, "step": self._step, "error": error, "what": what}
            scratch = self.directory / f".{ENDED}.tmp"
            with suppress(OSError):  # the disk may be full; then the exit code has to do
                scratch.write_bytes(orjson.dumps({**facts, "traceback": trace}))
                scratch.replace(self.directory / ENDED)
            self.tell("ended", code)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Pass errors on, and say that the run ends by them."""
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

    If the supervisor dies, this process gets SIGTERM, and after the grace time SIGKILL. Its death
    is seen by the end of the socket, which also tells of a death before we began to listen.
    """
    given = os.environ.pop(VARIABLE, "")  # so that what we start is not taken for us
    if not given:
        return Link()
    import socket  # here, since few runs need it

    found = orjson.loads(given)
    try:
        channel = socket.socket(fileno=found["socket"])
    except OSError as error:
        raise CheckpointableError(
            f"the supervisor's socket is not there: {error}",
            where=f"file descriptor {found['socket']}",
            hint="what starts the program must keep the descriptor open",
        ) from None
    channel.set_inheritable(False)
    channel.setblocking(True)
    faulthandler.register(WHERE)
    threading.Thread(target=_watch, args=(channel, found["grace"]), daemon=True).start()
    made = Link(channel, Path(found["directory"]))
    made.tell("attached", os.getpid())
    return made


def no_link() -> Link:
    """None, though the environment names one: it is for another rank of the job."""
    os.environ.pop(VARIABLE, None)
    return Link()


def _watch(channel: "socket.socket", grace: float) -> None:
    with suppress(OSError):
        while channel.recv(1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os.kill(os.getpid(), signal.SIGKILL)
