"""What `checkpointable run` prints: the run's events as lines or as JSON, or a progress bar."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from checkpointable import events
from checkpointable.cli._shared import (
    clean,
    count_text,
    duration_text,
    print_json,
    print_text,
    size_text,
)
from checkpointable.events import Event
from checkpointable.runner import Progress, Report


class Output:
    """Where a command that runs a kernel prints to.

    With `as_json` it prints on the stdout that was there when this was made, so that what a kernel
    prints can go elsewhere. `errors_only` is for all ranks of a job but the first.
    """

    def __init__(self, *, as_json: bool, errors_only: bool = False) -> None:
        self.as_json = as_json
        self._errors_only = errors_only
        self._stdout = sys.stdout

    def event(self, event: Event, line: str | None) -> None:
        """Print an event of a run: its object in `events.jsonl`, or as text this line."""
        if self._errors_only:
            return
        if self.as_json:
            print(events.to_json(event).decode(), end="", file=self._stdout, flush=True)
        elif line is not None:
            print_text(line, error=isinstance(event, _WARNINGS))

    def text(self, text: str) -> None:
        """Print lines of text, which JSON has no use for."""
        if not (self.as_json or self._errors_only):
            print_text(text)

    def summary(self, summary: dict[str, Any]) -> None:
        """Print what a kernel says of its result."""
        if self.as_json and not self._errors_only:
            print_json({"event": "summary", "summary": summary}, self._stdout)
        self.text("\n".join(f"  {key}: {value}" for key, value in summary.items()))

    def error(self, error: str, what: str, where: str, code: int) -> None:
        """Print an error that is not the package's own."""
        if self.as_json:
            facts = {"error": error, "what": what, "where": where, "hint": "", "exit_code": code}
            print_json({"event": "error", **facts}, self._stdout)
        else:
            print_text(f"error: {error}: {what}\n  where: {where}", error=True)


_WARNINGS = (
    events.FellBack, events.Damaged, events.TierLost, events.Stalled, events.Restarted,
    events.Quarantined,
)  # fmt: skip


def event_line(event: Event, kernel: str = "", store: str = "", until: int = 0) -> str | None:
    """What to print for an event; None for those that need no line."""
    match event:
        case events.Started():
            return f"{kernel}: starts at step {event.step}, {_goal(event, store)}"
        case events.Restored():
            step = f"{event.step} ({event.name})"
            return f"{kernel}: resumed from step {step}, {_goal(event, store)}"
        case events.FellBack():
            return f"warning: passed over {event.name}: {event.why}"
        case events.Copied():
            size, took = size_text(event.bytes), duration_text(event.seconds)
            return f"copied step {event.step}: {size} in {took}, to {event.address}"
        case events.Damaged():
            return f"warning: {event.name} is damaged in {event.address}: {event.why}"
        case events.TierLost():
            return f"warning: continues without {event.address}: {event.why}"
        case events.TierBack():
            return f"{event.address} works again"
        case events.Stopped():
            saved = f"saved as {event.name}: run it again to continue"
            return f"stopped at step {event.step} of {until}, {saved}"
        case events.Stalled():
            silence = f"no step for {duration_text(event.seconds)} after step {event.step}"
            return f"warning: {silence}: it is ended"
        case events.Restarted():
            cause, delay = clean(" ".join(event.cause.split())), duration_text(event.delay)
            attempt = f"attempt {event.attempt} begins in {delay}"
            return f"warning: ended at step {event.step} ({cause}): {attempt}"
        case events.Quarantined():
            name = f"{event.name} crashed two readers, and is now named {event.new_name}"
            return f"warning: {name}; the one before it is used"
    return None


def _goal(event: events.Started | events.Restored, store: str) -> str:
    goal = f"runs to step {event.until}, " if event.step < event.until else ""
    return f"{goal}saved in {store}"


def saved_line(progress: Progress) -> str:
    """What to print for the newest save."""
    saved = progress.saved
    assert saved is not None
    return (
        f"saved step {saved.step}: {size_text(saved.bytes)} in {duration_text(saved.seconds)}, "
        f"{rate_text(progress.rate)}, stall {progress.stall_share:.1%}"
    )


def finished_line(report: Report) -> str:
    """What to print when a run has come to its last step."""
    if report.step == report.first_step and not report.saves:
        return f"nothing to do: it is at step {report.step} already"
    steps = count_text(report.step - report.first_step, "step")
    saves = count_text(len(report.saves), "save")
    return f"done: step {report.step} ({steps} in {duration_text(report.seconds)}, {saves})"


def rate_text(rate: float) -> str:
    """Format a rate, in steps per second or, for slow ones, in seconds per step.

    >>> rate_text(1234.5), rate_text(2.5), rate_text(0.1)
    ('1234 steps/s', '2.50 steps/s', '10.0 s/step')
    """
    if 0 < rate < 1:
        return f"{1 / rate:.1f} s/step"
    return f"{rate:.0f} steps/s" if rate >= 10 or not rate else f"{rate:.2f} steps/s"


Newest: TypeAlias = tuple[int, float | None] | None
"""The step of the newest checkpoint, and when it became durable if that was in this run."""


def _bar_text(progress: Progress, newest: Newest) -> str:
    moving = progress.rate * (1 - progress.stall_share)
    left = math.ceil((progress.until - progress.step) / moving) if moving > 0 else 0
    parts = [
        f"{progress.step}/{progress.until}",
        rate_text(progress.rate),
        f"{duration_text(left)} left" if left > 0 else "",
        "not saved yet" if newest is None else f"saved {newest[0]}{_age_text(newest[1])}",
        f"stall {progress.stall_share:.0%}",
    ]
    return ", ".join(part for part in parts if part)


def _age_text(since: float | None) -> str:
    return "" if since is None else f" {duration_text(max(time.time() - since, 0.0))} ago"


@contextmanager
def bar(wanted: bool) -> Iterator[Callable[[Progress, Newest], None]]:
    """Show a progress bar on the terminal, if wanted, within the context."""
    if not wanted:
        yield lambda progress, newest: None
        return
    from rich import progress as rich_progress

    shown = rich_progress.Progress(
        rich_progress.BarColumn(bar_width=None),
        rich_progress.TextColumn("{task.description}", markup=False),
        expand=True,
        redirect_stderr=sys.stderr.isatty(),
    )
    with shown:
        task = None

        def show(progress: Progress, newest: Newest) -> None:
            nonlocal task
            text = _bar_text(progress, newest)
            if task is None:
                task = shown.add_task(text, total=progress.until)
            shown.update(task, completed=progress.step, description=text)

        yield show
