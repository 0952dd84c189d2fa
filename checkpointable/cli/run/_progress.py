"""How `checkpointable run` says how it goes: lines, JSON, or a bar."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, TypeAlias

from checkpointable.cli._shared import count_text, duration_text, say, say_json, size_text
from checkpointable.runner import Progress

Tell = Callable[..., None]
"""What is called with the name of an event and its facts."""


def tell_json(file: TextIO, event: str, **facts: Any) -> None:
    """Print an event as JSON."""
    say_json({"event": event, **facts}, file)


def tell_line(event: str, **facts: Any) -> None:
    """Print an event as a line."""
    say(_LINES[event](facts), error=event in _ERRORS)


def tell_error_only(tell: Tell) -> Tell:
    """Tell no event but an error: for all ranks of a job but the first."""

    def tell_error(event: str, **facts: Any) -> None:
        if event == "error":
            tell(event, **facts)

    return tell_error


def _finished(facts: dict[str, Any]) -> str:
    if facts["step"] == facts["first_step"] and not facts["saves"]:
        return f"nothing to do: it is at step {facts['step']} already"
    saves = count_text(facts["saves"], "save")
    steps = count_text(facts["step"] - facts["first_step"], "step")
    return f"done: step {facts['step']} ({steps} in {duration_text(facts['seconds'])}, {saves})"


def _where(facts: dict[str, Any]) -> str:
    goal = f"runs to step {facts['until']}, " if facts["step"] < facts["until"] else ""
    return f"{goal}saved in {facts['store']}"


_ERRORS = ("skipped", "error", "damaged", "tier_lost")
_LINES: dict[str, Callable[[dict[str, Any]], str]] = {
    "started": lambda f: f"{f['kernel']}: starts at step {f['step']}, {_where(f)}",
    "skipped": lambda f: f"warning: passed over {f['name']}: {f['why']}",
    "resumed": lambda f: f"{f['kernel']}: resumed from step {f['step']} ({f['name']}), {_where(f)}",
    "saved": lambda f: (
        f"saved step {f['step']}: {size_text(f['bytes'])} in {duration_text(f['seconds'])}, "
        f"{rate_text(f['rate'])}, stall {f['stall_share']:.1%}"
    ),
    "copied": lambda f: (
        f"copied step {f['step']}: {size_text(f['bytes'])} in {duration_text(f['seconds'])}, "
        f"to {f['address']}"
    ),
    "damaged": lambda f: f"warning: {f['name']} is damaged in {f['address']}: {f['why']}",
    "tier_lost": lambda f: f"warning: goes on without {f['address']}: {f['why']}",
    "tier_back": lambda f: f"{f['address']} works again",
    "stopped": lambda f: (
        f"stopped at step {f['step']} of {f['until']}, saved as {f['name']}: run it again to go on"
    ),
    "finished": _finished,
    "summary": lambda f: "\n".join(f"  {key}: {value}" for key, value in f["summary"].items()),
    "error": lambda f: f"error: {f['error']}: {f['what']}\n  where: {f['where']}",
}


def rate_text(rate: float) -> str:
    """Say a rate, in steps a second or, for slow ones, in seconds a step.

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
    """Show a progress bar on the terminal, if wanted, while the context lasts."""
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
