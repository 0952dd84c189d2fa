"""`checkpointable run`: run a kernel to its last step, and print what happens."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import typer

from checkpointable import events, runner
from checkpointable.checkpointer import Saved
from checkpointable.cli._shared import read_key, report_errors, usage_error
from checkpointable.cli.run._factory import find_factory, read_options
from checkpointable.cli.run._mpi import aborting_all_ranks, mpi_variant, world
from checkpointable.cli.run._output import (
    Newest,
    Output,
    bar,
    event_line,
    finished_line,
    saved_line,
)
from checkpointable.cli.run._policies import KeepOption, read_keep, read_time, read_when
from checkpointable.cli.run._supervised import FLAG, run_supervised
from checkpointable.distributed import MpiCoordinator
from checkpointable.errors import CheckpointableError
from checkpointable.kernels import KERNELS
from checkpointable.protocol import check_kernel, shutdown
from checkpointable.runner import EX_PREEMPTED, Progress
from checkpointable.tiers import Tiered


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
            help="Save every 30s, 5m or 1h, or at multiples of this number of steps; may be given "
            "once each way. [default: 60s]",
        ),
    ] = None,
    overhead: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="Save as often as costs at most, print_text, 1%."),
    ] = None,
    mtbf: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Save at the best interval for failures this far apart."),
    ] = None,
    keep: KeepOption = "3",
    copy_to: Annotated[
        str | None,
        typer.Option(metavar="DIR|ADDRESS", help="A slower store to copy checkpoints to."),
    ] = None,
    copy_keep: Annotated[
        str | None,
        typer.Option(metavar="N|POLICY", help="What to keep there, as --keep. [default: all]"),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        typer.Option(help="Where to compute, for a kernel that has the choice."),
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long after a signal the process is killed."),
    ] = None,
    latency: Annotated[
        str, typer.Option(metavar="TIME", help="How long a signal may wait for a safe point.")
    ] = "1s",
    delta: Annotated[bool, typer.Option("--delta", help="Save only what has changed.")] = False,
    supervise: Annotated[
        bool,
        typer.Option(FLAG, help="In a child process, started again when it fails or hangs."),
    ] = False,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Sign with this key; accept only checkpoints signed with it."
        ),
    ] = None,
    mpi: Annotated[
        bool,
        typer.Option(
            "--mpi", help="As one rank of many: mpiexec -n 4 checkpointable run NAME --mpi"
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Events as JSON, one a line.")] = False,
) -> int:
    """Run a kernel to its last step, resumed from what the store holds.

    SIGTERM, SIGUSR1 or Ctrl-C saves the state and ends with exit code 75: run the same again to
    continue.
    The kernel's own options come after --, such as: checkpointable run wave -- --n 500
    """
    name = mpi_variant(name) if mpi else name
    where = f"runs/{name.replace(':', '.')}" if store is None else store
    if supervise and mpi:
        what = "its child would not be a rank of the job"
        raise usage_error(
            f"--mpi cannot be supervised: {what}\n  hint: let the scheduler restart it"
        )
    if supervise and "--help" not in (options or []):
        return run_supervised(context.obj, where, as_json=as_json)
    comm = world() if mpi else None
    output = Output(as_json=as_json, errors_only=comm is not None and comm.Get_rank() > 0)
    with aborting_all_ranks() if mpi else nullcontext(), report_errors(as_json=as_json):
        policies: dict[str, Any] = {
            "save": read_when(save or [], overhead, mtbf),
            "keep": read_keep(keep),
            "latency": read_time("--latency", latency),
            "grace": None if grace is None else read_time("--grace", grace),
            "key": read_key(key),
            "delta": delta,
            **({"coordinator": MpiCoordinator(comm)} if mpi else {}),
        }
        tiered = _tiers(where, copy_to, copy_keep, policies["key"])
        kernel = made_kernel(name, options or [], device, output, comm)
        last_step = _last_step(kernel, name, until)
        with foreign_errors_reported(output, "running the kernel"):
            try:
                return _run(kernel, name, where, last_step, output, policies, tiered)
            finally:
                shutdown(kernel)


def made_kernel(
    name: str, options: list[str], device: str | None, output: Output, comm: Any = None
) -> Any:
    """Make the kernel of a name with these options, and check that it can be run.

    It gets `comm`, if that is given and its factory takes it.
    """
    with foreign_errors_reported(output, "importing the module"):
        factory = find_factory(name)
    others = {} if comm is None else {"comm": comm}
    arguments = read_options(factory, name, options, device, others)
    with foreign_errors_reported(output, "making the kernel"):
        kernel = factory(**arguments)
        check_kernel(kernel, steppable=True)
    return kernel


def _tiers(
    where: str, copy_to: str | None, copy_keep: str | None, key: bytes | None
) -> Tiered | None:
    if copy_to is not None:
        kept = None if copy_keep is None else read_keep(copy_keep, "--copy-keep")
        return Tiered(where, copy_to, keep=kept, key=key)
    if copy_keep is not None:
        raise usage_error("--copy-keep needs --copy-to")
    return None


def _last_step(kernel: Any, name: str, until: int | None) -> int:
    last_step = getattr(kernel, "total_steps", None) if until is None else until
    if type(last_step) is not int:
        raise usage_error(f"give --until N: {name} has no int attribute total_steps to run to")
    return last_step


def _run(
    kernel: Any,
    name: str,
    where: str,
    until: int,
    output: Output,
    options: dict[str, Any],
    tiered: Tiered | None,
) -> int:
    """Run with `checkpointable.run`, and print what happens."""
    saved: Saved | None = None
    newest: Newest = None

    def on_event(event: events.Event) -> None:
        nonlocal newest
        if isinstance(event, events.Restored):
            newest = event.step, None
        elif isinstance(event, events.Saved):
            newest = event.step, event.time
        output.event(event, event_line(event, name, where, until))

    def on_progress(progress: Progress) -> None:
        nonlocal saved
        if progress.saved is not saved and progress.saved is not None:
            saved = progress.saved
            if not bar_shown:
                output.text(saved_line(progress))
        show(progress, newest)

    bar_shown = not output.as_json and sys.stdout.isatty()
    try:
        with bar(bar_shown) as show:
            report = runner.run(
                kernel,
                tiered or where,
                until,
                on_event=on_event,
                on_progress=on_progress,
                **options,
            )
    except runner.Preempted:
        return EX_PREEMPTED
    output.text(finished_line(report))
    summary = getattr(kernel, "summary", None)
    if summary is not None:
        facts = summary()
        output.summary(attrs.asdict(facts) if attrs.has(type(facts)) else dict(facts))
    return 0


@contextmanager
def foreign_errors_reported(output: Output, where: str) -> Iterator[None]:
    """Exit with code 1 and a traceback where others' code raises; our own errors pass through.

    What that code prints goes to stderr if we print JSON.
    """
    try:
        with redirect_stdout(sys.stderr) if output.as_json else nullcontext():
            yield
    except (CheckpointableError, usage_error, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        output.error("KeyboardInterrupt", "interrupted; what was saved before stays", where, 130)
        raise
    except Exception as error:
        trace = error.__traceback__
        while trace and trace.tb_frame.f_globals["__name__"].startswith("checkpointable.cli"):
            trace = trace.tb_next
        traceback.print_exception(type(error), error, trace)
        output.error(type(error).__name__, str(error), where, 1)
        raise typer.Exit(1) from None
