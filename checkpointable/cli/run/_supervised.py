"""`checkpointable run --supervise`: the same command in a child process, under a supervisor."""

import sys
from collections.abc import Sequence

from checkpointable.cli._shared import print_text, report_errors
from checkpointable.cli.run._output import Output, event_line
from checkpointable.events import Event
from checkpointable.runner import EX_CONFIG, EX_GAVE_UP

FLAG = "--supervise"


def run_supervised(words: Sequence[str], store: str, *, as_json: bool) -> int:
    """Run the command line of these words, without `--supervise`, until the run has finished.

    This process never imports the kernel: only the child parses its words. If they are wrong, the
    child ends with code 64, and this process too.
    """
    try:
        from checkpointable.supervisor import supervise
    except ImportError as error:
        print_text(f"error: {error}", error=True)
        return EX_CONFIG

    command = [sys.executable, "-m", "checkpointable", *without_flag(words)]
    output = Output(as_json=as_json)

    def on_event(event: Event) -> None:
        output.event(event, event_line(event))

    with report_errors(as_json=as_json):
        outcome = supervise(command, store, on_event=on_event)
    if outcome.code == EX_GAVE_UP and not as_json:  # the child reports wrong usage itself
        print_text(f"error: {outcome}", error=True)
    return outcome.code


def without_flag(words: Sequence[str]) -> list[str]:
    """The words without the flag, which is not one where it stands behind `--`.

    >>> without_flag(["run", "wave", "--supervise", "--", "--supervise"])
    ['run', 'wave', '--', '--supervise']
    """
    own = list(words).index("--") if "--" in words else len(words)
    return [word for word in words[:own] if word != FLAG] + list(words[own:])
