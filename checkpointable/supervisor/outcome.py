"""How the children of a supervisor ended: by their exit codes, and by what they said themselves."""

import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from attrs import frozen

from checkpointable.runner import ENDED, EX_CONFIG, EX_GAVE_UP, EX_PREEMPTED, EX_USAGE


@frozen
class Attempt:
    """One child: from which step it came how far, in how long, and how it ended.

    `cause` is "done", "preempted" or what went wrong; `code` its exit code, below 0 for a signal;
    `traceback` its own, or the end of what it wrote to stderr.
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
    """How it all ended: the exit `code`, `why`, the last `step`, how many `attempts` there were.

    `failed` are the attempts since the last new checkpoint. As text it is the report of a failure.
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
    """What the run in this directory said of its end; nothing if it could not."""
    with suppress(OSError, ValueError):
        found = orjson.loads((directory / ENDED).read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def outcome_of(returncode: int, said: dict[str, Any], stalled: str) -> tuple[int, str]:
    """The code and the cause of an end, from the exit code and from what the run said itself.

    >>> outcome_of(-11, {}, "")
    (-11, 'signal SIGSEGV')
    >>> outcome_of(0, {"code": 75}, "")  # the exit code was lost in a pipe
    (75, 'preempted')
    """
    code, error, what = said.get("code"), said.get("error"), said.get("what", "")
    told = f"{error}: {what}" if error else ""
    if (returncode, code) == (0, 0):
        return 0, "done"
    if stalled:
        return EX_PREEMPTED if EX_PREEMPTED in (returncode, code) else -signal.SIGKILL, stalled
    for known, cause in ((EX_PREEMPTED, "preempted"), (EX_CONFIG, told), (EX_USAGE, told)):
        if known in (returncode, code):
            return known, cause or f"exit code {known}"
    if told and returncode >= 0:
        return returncode or EX_GAVE_UP, told
    if returncode < 0 or returncode > 128:  # a shell's way to say it
        number = -returncode if returncode < 0 else returncode - 128
        with suppress(ValueError):
            name = signal.Signals(number).name
            hint = ", by a person or for lack of memory" if number == signal.SIGKILL else ""
            return returncode, f"signal {name}{hint}"
    if returncode == 0:
        return EX_GAVE_UP, "exit code 0, but no run came to its end"
    return returncode, f"exit code {returncode}"
