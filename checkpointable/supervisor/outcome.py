"""How the children of a supervisor ended, by their exit codes and their own records."""

import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from attrs import frozen

from checkpointable.runner import ENDED, EX_CONFIG, EX_GAVE_UP, EX_PREEMPTED, EX_USAGE


@frozen
class Attempt:
    """One child: its first and last step, its duration in seconds, and how it ended.

    `cause` is "done", "preempted" or what went wrong; `code` is its exit code, below 0 for a
    signal; `traceback` is its own, or the end of its stderr.
    """

    number: int
    first_step: int
    step: int
    seconds: float
    code: int
    cause: str
    traceback: str


@frozen
class Outcome:
    """How supervision ended: the exit `code`, `why`, the last `step`, the number of `attempts`.

    `failed` are the attempts since the last new checkpoint. `str()` is the report of a failure.
    """

    code: int
    why: str
    step: int
    attempts: int
    failed: tuple[Attempt, ...]

    def __str__(self) -> str:
        lines = [f"{self.why} (step {self.step}, attempt {self.attempts}, code {self.code})"]
        for a in self.failed:
            lines.append(f"attempt {a.number}: steps {a.first_step} to {a.step}, {a.seconds:.1f} s")
            lines.append(f"  cause: {a.cause}")
            lines += [f"  | {line}" for line in a.traceback.splitlines()]
        return "\n".join(lines)


def read_ended(directory: Path) -> dict[str, Any]:
    """What the run in this directory recorded about its end; empty if it could not."""
    with suppress(OSError, ValueError):
        record = orjson.loads((directory / ENDED).read_bytes())
        if isinstance(record, dict):
            return record
    return {}


def outcome_of(returncode: int, record: dict[str, Any], stalled: str) -> tuple[int, str]:
    """The code and the cause of an end, from the exit code and the run's own record.

    >>> outcome_of(-11, {}, "")
    (-11, 'signal SIGSEGV')
    >>> outcome_of(0, {"code": 75}, "")  # the exit code was lost in a pipe
    (75, 'preempted')
    """
    code, error, what = record.get("code"), record.get("error"), record.get("what", "")
    text = f"{error}: {what}" if error else ""
    if (returncode, code) == (0, 0):
        return 0, "done"
    if stalled:
        return EX_PREEMPTED if EX_PREEMPTED in (returncode, code) else -signal.SIGKILL, stalled
    for known, cause in ((EX_PREEMPTED, "preempted"), (EX_CONFIG, text), (EX_USAGE, text)):
        if known in (returncode, code):
            return known, cause or f"exit code {known}"
    if text and returncode >= 0:
        return returncode or EX_GAVE_UP, text
    if returncode < 0 or returncode > 128:  # as shells report it
        number = -returncode if returncode < 0 else returncode - 128
        with suppress(ValueError):
            name = signal.Signals(number).name
            hint = ", by a person or for lack of memory" if number == signal.SIGKILL else ""
            return returncode, f"signal {name}{hint}"
    if returncode == 0:
        return EX_GAVE_UP, "exit code 0, but no run finished"
    return returncode, f"exit code {returncode}"
