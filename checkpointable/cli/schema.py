"""`checkpointable schema`: what a checkpoint class stores, and how it loads older files."""

from typing import Annotated, Any

import typer
from attrs import asdict

from checkpointable.archive import codec
from checkpointable.cli._shared import (
    checkpoints_at,
    open_checkpoint,
    print_json,
    print_text,
    report_errors,
    usage_error,
)
from checkpointable.cli.run._factory import find_factory
from checkpointable.errors import CheckpointableError, in_one_line
from checkpointable.protocol import checkpoint_class
from checkpointable.schema import Schema, schema_of
from checkpointable.tree import step_from


def schema(
    name: Annotated[
        str,
        typer.Argument(help="A checkpoint class, or that of a kernel.", metavar="MODULE:CLASS"),
    ],
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Checkpoint files, and directories of them.", metavar="FILE|STORE..."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Load these files, and show how that goes.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show what a checkpoint class stores; with --check, load files as it would.

    Exit code 1 if one of the files cannot be loaded.
    """
    if bool(files) is not check:
        raise usage_error("--check needs files: module:Class --check FILE...")
    target = find_factory(name)
    with report_errors(as_json=as_json):
        cls = checkpoint_class(target) if hasattr(target, "checkpoint") else target  # type: ignore[arg-type]
        described = schema_of(cls)
        targets = [target for place in files or () for target in checkpoints_at(place)]
    if not check:
        show = _print_json if as_json else _print_text
        show(described, cls)
    verdicts = [_check(target, cls, described, as_json=as_json) for target in targets]
    if not all(verdicts):
        raise typer.Exit(1)


def _print_text(described: Schema, cls: Any) -> None:
    title = f"{described.name}, version {described.version}, fingerprint {described.fingerprint}"
    print_text(title)
    for name, fields in described.classes.items():
        if name != described.name:
            print_text(f"\n{name}")
        width = max(map(len, fields), default=0)
        for field, tp in fields.items():
            print_text(f"  {field:{width}}  {tp}" if tp != "member" else f"  {field}")
    if described.version > 1:
        print_text("\nfrom older versions")
    for version in range(1, described.version):
        step = step_from(cls, version) or "nothing: files of this version are refused"
        print_text(f"  {version} to {version + 1}  {step}")


def _print_json(described: Schema, cls: Any) -> None:
    steps = {version: step_from(cls, version) for version in range(1, described.version)}
    older = {str(version): str(step) if step else None for version, step in steps.items()}
    print_json(asdict(described) | {"from_older_versions": older})


def _check(target: Any, cls: Any, now: Schema, *, as_json: bool) -> bool:
    """Load one file, print how that went, and return whether it succeeded."""
    path, _, _ = target
    try:
        with open_checkpoint(*target) as checkpoint:
            codec.decode(checkpoint, cls)
            meta = checkpoint.header.meta
            stored, step = meta.schema["version"], meta.step
    except CheckpointableError as error:
        if as_json:
            facts = {"what": error.what, "where": error.where, "hint": error.hint}
            print_json({"path": path, "ok": False, "error": type(error).__name__, **facts})
        else:
            hint = f"\n  hint: {error.hint}" if error.hint else ""
            print_text(f"refused   {path}: {in_one_line(error, path)}{hint}")
        return False
    if as_json:
        print_json({"path": path, "ok": True, "step": step, "version": stored})
    elif stored == now.version:
        print_text(f"same      {path}  step {step}")
    else:
        print_text(f"migrates  {path}  step {step}, version {stored} to {now.version}")
    return True
