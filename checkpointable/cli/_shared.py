"""What the commands share: printing, and turning errors into messages and exit codes."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeAlias

import orjson
import typer

from checkpointable.archive import entries, opened
from checkpointable.errors import CheckpointableError, NoCheckpoint, in_one_line
from checkpointable.files import opened_file
from checkpointable.format import Header, Opened, check_key
from checkpointable.runner import EX_CONFIG, exit_code
from checkpointable.stores import Store, open_store

usage_error: type[Exception] = typer.BadParameter.__bases__[0]
"""Click's UsageError, which typer bundles but does not export."""


KeyFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="Accept only checkpoints signed with this key."),
]


def read_key(path: Path | None) -> bytes | None:
    """Read a key, which is all bytes of a file; a usage error if it is not valid."""
    try:
        key = None if path is None else path.read_bytes()
        check_key(key)
    except (OSError, ValueError) as error:
        hint = "make one with: head -c 32 /dev/urandom > FILE"
        raise usage_error(f"--key: {error}\n  hint: {hint}") from None
    return key


def print_text(text: str, *, error: bool = False) -> None:
    """Print lines of text, flushed, with control characters escaped."""
    lines = text.split("\n")
    print("\n".join(map(clean, lines)), file=sys.stderr if error else sys.stdout, flush=True)


def print_passed_over(name: str, error: CheckpointableError) -> None:
    """Warn of a checkpoint that was passed over."""
    print_text(f"warning: passed over {name}: {in_one_line(error, name)}", error=True)


def print_json(value: Any, file: TextIO | None = None) -> None:
    """Print one JSON object on one line, flushed."""
    file = file or sys.stdout
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    print(orjson.dumps(value, default=str, option=options).decode(), file=file, flush=True)


def clean(text: str) -> str:
    r"""Escape characters that are not printable: a file may hold any text.

    >>> clean("one\x1b[2J")
    'one\\x1b[2J'
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def size_text(size: int) -> str:
    """Format a number of bytes.

    >>> size_text(312), size_text(12_700_000)
    ('312 B', '12.1 MiB')
    """
    number, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{size} B" if unit == "B" else f"{number:.1f} {unit}"


def whole_size(header: Header) -> int:
    """The size of a checkpoint's file; of a sharded one including the arrays in its shards."""
    return header.file_size + (header.full_size if header.meta.sharded else 0)


def duration_text(seconds: float) -> str:
    """Format a time span in its two largest units.

    >>> duration_text(0.25), duration_text(45.2), duration_text(3725), duration_text(90_000)
    ('0.25 s', '45 s', '1 h 02 min', '1 d 01 h')
    """
    if seconds < 10:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + " s"
    whole = round(seconds)
    for unit, length, below, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if whole >= length:
            return f"{whole // length} {unit} {whole % length // part:02} {below}"
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02} s"


def count_text(number: int, what: str) -> str:
    """Format a count.

    >>> count_text(1, "array"), count_text(2, "array")
    ('1 array', '2 arrays')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


class NotPossible(CheckpointableError):
    """Something that a command needs is missing; starting it again cannot help."""


def print_error(error: CheckpointableError, *, as_json: bool, code: int) -> None:
    """Print an error to stderr, or with `--json` as an event to stdout."""
    if as_json:
        facts = {"what": error.what, "where": error.where, "hint": error.hint}
        print_json({"event": "error", "error": type(error).__name__, **facts, "exit_code": code})
    else:
        print_text(f"error: {error}", error=True)


def print_usage_error(error: Any) -> None:
    """Print an error in the arguments to stderr, and where to read about them."""
    print_text(f"error: {error.format_message()}", error=True)
    if error.ctx is None:
        return
    path = error.ctx.command_path
    if path == "checkpointable run" and type(error).__name__ == "NoSuchOption":
        print_text("  hint: the kernel's own options come after --", error=True)
    print_text(f"  hint: see {path} --help", error=True)


@contextmanager
def report_errors(*, as_json: bool) -> Iterator[None]:
    """Print an error of the package, and end the command with its exit code."""
    try:
        yield
    except CheckpointableError as error:
        code = EX_CONFIG if isinstance(error, NotPossible) else exit_code(error)
        print_error(error, as_json=as_json, code=code)
        raise typer.Exit(code) from None


def checkpoints_at(place: str) -> list[tuple[str, Store | None, str]]:
    """The checkpoints at a place: the path of each, and in a store also the store and the name."""
    if "://" not in place and Path(place).exists() and not Path(place).is_dir():
        return [(place, None, "")]
    store = store_at(place)
    return [(path_in(place, entry.name), store, entry.name) for entry in entries(store)]


def path_in(place: str, name: str) -> str:
    """The path of a checkpoint at a place.

    >>> path_in("runs/heat/", "step-1"), path_in("s3://bucket/heat?region=eu", "step-1")
    ('runs/heat/step-1', 's3://bucket/heat/step-1?region=eu')
    """
    if "://" not in place:
        return str(Path(place) / name)
    path, mark, options = place.partition("?")
    return f"{path.rstrip('/')}/{name}{mark}{options}"


def open_checkpoint(
    path: str, store: Store | None, name: str, key: bytes | None = None
) -> AbstractContextManager[Opened]:
    """Open a checkpoint that `checkpoints_at` returned."""
    return opened_file(path, key=key) if store is None else opened(store, name, key=key)


def store_at(place: str) -> Store:
    """Open the store at a place; raises `NoCheckpoint` if it does not exist."""
    if "://" not in place and not Path(place).is_dir():
        what = "not a directory" if Path(place).exists() else "no such directory"
        raise NoCheckpoint(what, where=place, hint="give the directory that the run saves into")
    return open_store(place)
