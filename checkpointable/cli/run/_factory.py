"""From the words after `checkpointable run` to a kernel: its factory, and the factory's options."""

import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from checkpointable.cli._shared import usage_error
from checkpointable.errors import InvalidKernel
from checkpointable.kernels import KERNELS
from checkpointable.schema import members_of, plain

_SIMPLE = (bool, int, float, str, Path)


def find_factory(name: str) -> Callable[..., Any]:
    """Find what makes the kernel of this name; its module may be in the current directory."""
    module_name, colon, path = KERNELS.get(name, name).partition(":")
    if not (module_name and colon and path):
        known = ", ".join(sorted(KERNELS))
        raise _wrong(f"no kernel is named {name!r}: there are {known}, or give module:factory")
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.insert(0, str(Path.cwd()))
    try:
        target: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise _wrong(f"there is no module {error.name!r}, here or installed") from None
    for part in path.split("."):
        target = getattr(target, part, None)
    if not callable(target):
        raise _wrong(f"module {module_name!r} has no class or function {path!r}")
    return typing.cast("Callable[..., Any]", target)


def _wrong(what: str) -> Exception:
    return usage_error(what)


def read_options(
    factory: Callable[..., Any],
    name: str,
    words: list[str],
    device: str | None,
    others: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Turn the words after `--` into the factory's keyword arguments, by its signature.

    Those of `others` that it takes are no options then, but given as they are.
    """
    parameters = _parameters(factory, name)
    known = {key: value for key, value in (others or {}).items() if parameters.pop(key, None)}
    where = parameters.pop("device") if _takes_device(parameters) else None
    if device is not None and where is None:
        raise _wrong(f"{name} has no choice of --device")
    if device is None and where is not None and where.default is inspect.Parameter.empty:
        raise _wrong(f"give --device auto, cpu or cuda: {name} needs one")

    def collect(**given: Any) -> dict[str, Any]:
        return given

    about, helps = _documentation(factory)
    options = [_option(p, helps.get(p.name, ""), name) for p in parameters.values()]
    collect.__signature__ = inspect.Signature([o for o in options if o])  # type: ignore[attr-defined]
    collect.__doc__ = about
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(collect)
    command = typer.main.get_command(app)
    given = command.main(words, prog_name=f"checkpointable run {name} --", standalone_mode=False)
    if not isinstance(given, dict):  # it has printed its help
        raise typer.Exit(given if isinstance(given, int) else 0)
    return {**given, **known} if device is None else {**given, **known, "device": device}


def _parameters(factory: Callable[..., Any], name: str) -> dict[str, inspect.Parameter]:
    """The factory's parameters that can be given by name."""
    try:
        signature = inspect.signature(factory, eval_str=True)
    except (NameError, AttributeError, TypeError, SyntaxError, ValueError) as error:
        what = f"its signature cannot be read: {error}"
        hint = "use annotations that are defined at module level"
        raise InvalidKernel(what, where=name, hint=hint) from error
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p for p in signature.parameters.values() if p.kind in named}


def _takes_device(parameters: dict[str, inspect.Parameter]) -> bool:
    """Say whether there is a `device` that takes a text: another one is a plain option."""
    if "device" not in parameters:
        return False
    tp = plain(parameters["device"].annotation)
    return tp in (str, inspect.Parameter.empty) or typing.get_origin(tp) is Literal


def _option(parameter: inspect.Parameter, text: str, name: str) -> inspect.Parameter | None:
    """Make a parameter an option; None if words cannot express it, and it has a default."""
    tp = plain(parameter.annotation)
    if tp is inspect.Parameter.empty:
        known = type(parameter.default) in _SIMPLE
        tp = type(parameter.default) if known else str
    if parameter.default is None and types.NoneType not in _members(tp):
        tp = tp | None
    if not _can_say(tp):
        if parameter.default is not inspect.Parameter.empty:
            return None
        what = f"its parameter {parameter.name!r} cannot be given on the command line"
        hint = "write a function that takes numbers and text, and returns the kernel"
        raise InvalidKernel(what, where=name, hint=hint)
    option = typer.Option(help=text or None)
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[tp, option])


def _members(tp: Any) -> tuple[Any, ...]:
    origin = typing.get_origin(tp)
    return members_of(tp) if origin in (typing.Union, types.UnionType) else (tp,)


def _can_say(tp: Any) -> bool:
    members = [m for m in _members(tp) if m is not types.NoneType]
    if len(members) != 1:
        return False
    (tp,) = members
    if typing.get_origin(tp) is Literal:
        return all(type(value) is str for value in typing.get_args(tp))
    return tp in _SIMPLE or (isinstance(tp, type) and issubclass(tp, Enum))


def _documentation(factory: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The docstring's first paragraph, and its texts on options: `name`, then indented lines."""
    text = inspect.getdoc(factory) or ""
    helps = {}
    for match in re.finditer(r"^(`\w+`(?:, `\w+`)*)\n((?: +\S.*(?:\n|\Z))+)", text, re.MULTILINE):
        for option in re.findall(r"\w+", match[1]):
            helps[option] = " ".join(match[2].split())
    return text.partition("\n\n")[0], helps
