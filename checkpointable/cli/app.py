"""The application: one function for each command, and `main`, which runs a command line."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from checkpointable.runner import EX_CONFIG, EX_USAGE

if TYPE_CHECKING:
    import typer


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with these arguments (default: the process's), return its exit code."""
    try:
        import rich as _rich  # noqa: F401
        import typer
    except ImportError as error:
        print(
            f"error: the command line needs {error.name}, which is not installed\n"
            "  hint: install it with: pip install 'checkpointable[cli]'",
            file=sys.stderr,
        )
        return EX_CONFIG
    from checkpointable.cli._shared import print_usage_error, usage_error

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # for characters that its encoding lacks
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    command = typer.main.get_command(app())
    try:
        code = command.main(
            arguments, prog_name="checkpointable", standalone_mode=False, obj=arguments
        )
    except usage_error as error:
        print_usage_error(error)
        return EX_USAGE
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except OSError as error:  # of our output: the stores raise errors of their own
        print(f"error: {error}", file=sys.stderr)
        return 1
    return code if isinstance(code, int) else 0


def app() -> typer.Typer:
    """Build the application; this needs the extra `cli`."""
    import typer

    from checkpointable.cli import bisect, diff, fork, ls, prune, replay, schema, show, verify
    from checkpointable.cli.report import report
    from checkpointable.cli.run import run

    made = typer.Typer(
        name="checkpointable",
        help="Run kernels that save their state, and look at what they saved.",
        add_completion=False,
        rich_markup_mode=None,
    )

    def show_version(wanted: bool) -> None:
        if wanted:
            print(f"checkpointable {version('checkpointable')}")
            raise typer.Exit

    @made.callback()
    def options(
        wanted: bool = typer.Option(
            False, "--version", callback=show_version, is_eager=True, help="Show the version."
        ),
    ) -> None: ...

    made.command()(run.run)
    made.command()(ls.ls)
    made.command()(show.show)
    made.command()(verify.verify)
    made.command()(prune.prune)
    made.command()(schema.schema)
    made.command()(diff.diff)
    made.command()(replay.replay)
    made.command()(bisect.bisect)
    made.command()(fork.fork)
    made.command()(report.report)
    return made
