"""`checkpointable run`: run a kernel to its last step, and say how it goes."""

import math
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import attrs
import typer

from checkpointable import runner
from checkpointable.checkpointer import Restored, Saved
from checkpointable.cli._kernel import find_factory, read_options
from checkpointable.cli._shared import (
    count_text,
    duration_text,
    errors_told,
    read_key,
    say,
    say_json,
    size_text,
    usage_error,
    why,
)
from checkpointable.cli._supervise import FLAG, run_supervised
from checkpointable.errors import CheckpointableError
from checkpointable.kernels import KERNELS
from checkpointable.policy import Every, every, last
from checkpointable.protocol import check_kernel, shutdown
from checkpointable.runner import EX_PREEMPTED, Progress

_SECONDS = {"s": 1, "m": 60, "h": 3600}


def run(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(help=f"{', '.join(sorted(KERNELS))}, or module:factory.", metavar="NAME"),
    ],
    options: Annotated[
        list[str] | None,
        typer.Argument(help="Of the kernel; -- --help lists them.", metavar="-- OPTIONS"),
    ] = None,
    until: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Last step. [default: the kernel's total_steps]"),
    ] = None,
    store: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where to save. [default: runs/NAME]")
    ] = None,
    save: Annotated[
        list[str] | None,
        typer.Option(
            "--every",
            metavar="TIME|STEPS",
            help="Save each 30s, 5m or 1h, or at multiples of so many steps; may be given once "
            "each way. [default: 60s]",
        ),
    ] = None,
    keep: Annotated[int, typer.Option(min=1, metavar="N", help="How many steps to keep.")] = 3,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        typer.Option(help="Where to compute, for a kernel that has the choice."),
    ] = None,
    delta: Annotated[bool, typer.Option("--delta", help="Save only what has changed.")] = False,
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Sign with this key; believe only what is signed so."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Events as JSON, one a line.")] = False,
    supervise: Annotated[
        bool,
        typer.Option(FLAG, help="In a child process, started again when it fails or hangs."),
    ] = False,
) -> int:
    """Run a kernel to its last step, resumed from what the store holds.

    SIGTERM or Ctrl-C saves the state and ends with exit code 75: run the same again to go on.
    The kernel's own options come after --, such as: checkpointable run wave -- --n 500
    """
    where = f"runs/{name.replace(':', '.')}" if store is None else store
    if supervise and "--help" not in (options or []):
        return run_supervised(context.obj, where, as_json=as_json)
    tell = partial(_tell_json, sys.stdout) if as_json else _tell_line
    with errors_told(as_json):
        policy, secret = _policy(save or []), read_key(key)
        with _others_told(tell, "importing the module"):
            factory = find_factory(name)
        arguments = read_options(factory, name, options or [], device)
        with _others_told(tell, "making the kernel"):
            kernel = factory(**arguments)
            check_kernel(kernel, steppable=True)
        last_step = _last_step(kernel, name, until)
        with _others_told(tell, "running the kernel"):
            try:
                return _run(kernel, name, where, last_step, policy, keep, delta, secret, tell)
            finally:
                shutdown(kernel)


def _policy(texts: list[str]) -> Every:
    given: dict[str, Any] = {}
    for text in texts:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])|(\d+)", text, re.ASCII)
        if match is None:
            raise _bad_every(f"{text!r} is neither a time, as 30s, 5m or 1h, nor a number of steps")
        key = "steps" if match[3] else "seconds"
        if key in given:
            raise _bad_every(f"{text!r} is the second number of {key}")
        given[key] = int(match[3]) if match[3] else float(match[1]) * _SECONDS[match[2]]
        if not given[key]:
            raise _bad_every(f"{text!r} must be above 0")
    return every(**given) if given else every(seconds=60)


def _bad_every(what: str) -> Exception:
    return usage_error(f"--every: {what}")


def _last_step(kernel: Any, name: str, until: int | None) -> int:
    found = getattr(kernel, "total_steps", None) if until is None else until
    if type(found) is not int:
        raise usage_error(f"give --until N: {name} has no int attribute total_steps to run to")
    return found


def _run(
    kernel: Any,
    name: str,
    where: str,
    until: int,
    policy: Every,
    keep: int,
    delta: bool,
    key: bytes | None,
    tell: "Tell",
) -> int:
    """Run with `checkpointable.run`, turning what it reports into events."""
    saved: Saved | None = None
    held: Restored | None = None

    def on_restore(restored: Restored | None) -> None:
        nonlocal held
        held = restored
        facts = {"kernel": name, "store": where, "step": kernel.step, "until": until}
        for entry, error in restored.skipped if restored else ():
            tell("skipped", name=entry.name, step=entry.step, why=why(error, entry.name))
        if restored is None:
            tell("started", **facts)
        else:
            tell("resumed", **facts, name=restored.name)

    def on_progress(progress: Progress) -> None:
        nonlocal saved
        if progress.saved is not saved and progress.saved is not None:
            saved = progress.saved
            if not bar_shown:
                done = {"step": saved.step, "name": saved.name, "bytes": saved.bytes}
                spent = {"seconds": saved.seconds, "stall_share": progress.stall_share}
                tell("saved", **done, **spent, rate=progress.rate)
        newest = saved or held
        show(progress, newest.step if newest else None)

    bar_shown = tell is _tell_line and sys.stdout.isatty()
    try:
        with _bar(bar_shown) as show:
            report = runner.run(
                kernel, where, until, save=policy, keep=last(keep), delta=delta, key=key,
                on_restore=on_restore, on_progress=on_progress,
            )  # fmt: skip
    except runner.Preempted as stop:
        newest = stop.report.saves[-1] if stop.report.saves else stop.report.restored
        tell("stopped", step=stop.report.step, name=newest.name if newest else "", until=until)
        return EX_PREEMPTED
    facts = {"step": report.step, "first_step": report.first_step, "until": until}
    tell("finished", **facts, seconds=report.seconds, saves=len(report.saves))
    summary = getattr(kernel, "summary", None)
    if summary is not None:
        found = summary()
        tell("summary", summary=attrs.asdict(found) if attrs.has(type(found)) else dict(found))
    return 0


@contextmanager
def _others_told(tell: "Tell", where: str) -> Iterator[None]:
    """End with exit code 1 and the traceback where others' code raises; ours pass through.

    What that code prints goes to stderr if we print JSON.
    """
    try:
        with nullcontext() if tell is _tell_line else redirect_stdout(sys.stderr):
            yield
    except (CheckpointableError, usage_error, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        what = "interrupted; what was saved before stays"
        tell("error", error="KeyboardInterrupt", what=what, where=where, hint="", exit_code=130)
        raise
    except Exception as error:
        trace = error.__traceback__
        while trace and trace.tb_frame.f_globals["__name__"].startswith("checkpointable.cli"):
            trace = trace.tb_next
        traceback.print_exception(type(error), error, trace)
        kind, what = type(error).__name__, str(error)
        tell("error", error=kind, what=what, where=where, hint="", exit_code=1)
        raise typer.Exit(1) from None


# --- how it is told ------------------------------------------------------------------------------

Tell = Callable[..., None]


def _tell_json(file: TextIO, event: str, **facts: Any) -> None:
    say_json({"event": event, **facts}, file)


def _tell_line(event: str, **facts: Any) -> None:
    say(_LINES[event](facts), error=event in ("skipped", "error"))


def _finished(facts: dict[str, Any]) -> str:
    if facts["step"] == facts["first_step"] and not facts["saves"]:
        return f"nothing to do: it is at step {facts['step']} already"
    saves = count_text(facts["saves"], "save")
    steps = count_text(facts["step"] - facts["first_step"], "step")
    return f"done: step {facts['step']} ({steps} in {duration_text(facts['seconds'])}, {saves})"


def _where(facts: dict[str, Any]) -> str:
    goal = f"runs to step {facts['until']}, " if facts["step"] < facts["until"] else ""
    return f"{goal}saved in {facts['store']}"


_LINES: dict[str, Callable[[dict[str, Any]], str]] = {
    "started": lambda f: f"{f['kernel']}: starts at step {f['step']}, {_where(f)}",
    "skipped": lambda f: f"warning: passed over {f['name']}: {f['why']}",
    "resumed": lambda f: f"{f['kernel']}: resumed from step {f['step']} ({f['name']}), {_where(f)}",
    "saved": lambda f: (
        f"saved step {f['step']}: {size_text(f['bytes'])} in {duration_text(f['seconds'])}, "
        f"{rate_text(f['rate'])}, stall {f['stall_share']:.1%}"
    ),
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


def _bar_text(progress: Progress, saved_step: int | None) -> str:
    moving = progress.rate * (1 - progress.stall_share)
    left = math.ceil((progress.until - progress.step) / moving) if moving > 0 else 0
    parts = [
        f"{progress.step}/{progress.until}",
        rate_text(progress.rate),
        f"{duration_text(left)} left" if left > 0 else "",
        "not saved yet" if saved_step is None else f"saved {saved_step}",
        f"stall {progress.stall_share:.0%}",
    ]
    return ", ".join(part for part in parts if part)


@contextmanager
def _bar(wanted: bool) -> Iterator[Callable[[Progress, int | None], None]]:
    """Show a progress bar on the terminal, if wanted, while the context lasts."""
    if not wanted:
        yield lambda progress, saved_step: None
        return
    from rich import progress as rich_progress

    bar = rich_progress.Progress(
        rich_progress.BarColumn(bar_width=None),
        rich_progress.TextColumn("{task.description}", markup=False),
        expand=True,
        redirect_stderr=sys.stderr.isatty(),
    )
    with bar:
        task = None

        def show(progress: Progress, saved_step: int | None) -> None:
            nonlocal task
            text = _bar_text(progress, saved_step)
            if task is None:
                task = bar.add_task(text, total=progress.until)
            bar.update(task, completed=progress.step, description=text)

        yield show
