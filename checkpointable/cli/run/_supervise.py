"""`checkpointable run --supervise`: the same command in a child process, under a supervisor."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from checkpointable.cli._shared import clean, duration_text, report_errors, say, say_json
from checkpointable.events import Event
from checkpointable.runner import EX_CONFIG

FLAG = "--supervise"


def run_supervised(words: Sequence[str], store: str, *, as_json: bool) -> int:
    """Run the command line of these words, without `--supervise`, until it has done its work.

    This process never imports the kernel: its words are understood by the child alone, and wrong
    ones end that with code 64, which ends it all.
    """
    try:
        from checkpointable.supervisor import supervise
        from checkpointable.supervisor.supervise import EX_GAVE_UP
    except ImportError as error:
        say(f"error: {error}", error=True)
        return EX_CONFIG

    command = [sys.executable, "-m", "checkpointable", *without_flag(words)]
    with report_errors(as_json):
        outcome = supervise(command, store, on_event=_tell_json if as_json else _tell_line)
    if outcome.code == EX_GAVE_UP and not as_json:  # the child has told of its wrong usage itself
        say(f"error: {outcome}", error=True)
    return outcome.code


def without_flag(words: Sequence[str]) -> list[str]:
    """The words without the flag, which is not one where it stands behind `--`.

    >>> without_flag(["run", "wave", "--supervise", "--", "--supervise"])
    ['run', 'wave', '--', '--supervise']
    """
    own = list(words).index("--") if "--" in words else len(words)
    return [word for word in words[:own] if word != FLAG] + list(words[own:])


def _tell_json(event: Event) -> None:
    say_json({"event": type(event).__name__.lower(), **attrs.asdict(event)})


def _tell_line(event: Event) -> None:
    kind, facts = type(event).__name__, attrs.asdict(event)
    if kind in _LINES:
        say(_LINES[kind](facts), error=True)


_LINES: dict[str, Callable[[dict[str, Any]], str]] = {
    "Stalled": lambda f: (
        f"warning: no step for {duration_text(f['seconds'])} after step {f['step']}: it is ended"
    ),
    "Restarted": lambda f: (
        f"warning: ended at step {f['step']} ({_one_line(f['cause'])}): attempt {f['attempt']} "
        f"begins in {duration_text(f['delay'])}"
    ),
    "Quarantined": lambda f: (
        f"warning: {f['name']} ended two readers, and is now named {f['now']}; "
        "the one before it is used"
    ),
}


def _one_line(text: str) -> str:
    return clean(" ".join(text.split()))
