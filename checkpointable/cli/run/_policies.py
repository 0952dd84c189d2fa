"""Policies as the command line has them: when to save, and what to keep, as text."""

import math
import re
from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import Annotated, Any, TypeAlias

import typer

from checkpointable.archive import Keep, best, every_nth, last, spread, within
from checkpointable.cli._shared import usage_error
from checkpointable.runner import When, every, overhead, young_daly

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME = re.compile(r"(\d+(?:\.\d+)?)([smhd])", re.ASCII)

KeepOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--keep",
        metavar="N|POLICY",
        help="How many steps to keep; or what any of these keeps: last:N, nth:STEPS, spread:N, "
        "within:TIME, best:KEY:N, best:KEY:N:max, with commas between.",
    ),
]


def read_time(option: str, text: str) -> float:
    """Read a time in seconds.

    >>> read_time("--grace", "1.5m")
    90.0
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise usage_error(f"{option}: {text!r} is not a time, as 30s, 5m or 1h")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if not seconds > 0:
        raise usage_error(f"{option}: {text!r} must be above 0")
    return seconds


def read_when(texts: list[str], share: str | None, mtbf: str | None) -> When:
    """Read when to save: whenever one of the options says so.

    >>> read_when(["5m"], "1%", None)
    every(seconds=300.0) | overhead(max=0.01)
    """
    given = [_every(texts)] if texts else []
    most = None if share is None else _share(share)
    if mtbf is not None:
        capped: dict[str, float] = {} if most is None else {"max": most}
        given.append(young_daly(mtbf=read_time("--mtbf", mtbf), **capped))
    elif most is not None:
        given.append(overhead(max=most))
    return reduce(or_, given) if given else every(seconds=60)


def _every(texts: list[str]) -> When:
    given: dict[str, Any] = {}
    for text in texts:
        steps = re.fullmatch(r"\d+", text, re.ASCII)
        if steps is None and not _TIME.fullmatch(text):
            what = "is neither a time, as 30s, 5m or 1h, nor a number of steps"
            raise usage_error(f"--every: {text!r} {what}")
        key = "steps" if steps else "seconds"
        if key in given:
            raise usage_error(f"--every: {text!r} is the second number of {key}")
        given[key] = int(text) if steps else read_time("--every", text)
        if not given[key]:
            raise usage_error(f"--every: {text!r} must be above 0")
    return every(**given)


def _share(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text, re.ASCII)
    share = float(match[1]) / (100 if match[2] else 1) if match else math.nan
    if not 0 < share < 1:
        raise usage_error(f"--overhead: {text!r} is not a share of the run, as 1% or 0.01")
    return share


def read_keep(text: str, option: str = "--keep") -> Keep:
    """Read what to keep: a number of steps, or policies with commas between.

    >>> read_keep("last:3,best:stats.loss:2")
    last(3) | best('stats.loss', 2)
    """
    return reduce(or_, [_one(part, option) for part in text.split(",")])


def _one(text: str, option: str) -> Keep:
    name, _, given = text.rpartition(":") if text.isdigit() else text.partition(":")
    try:
        if name == "best":
            key, number, *largest = given.split(":")
            if largest in ([], ["max"]):
                return best(key, int(number), largest=bool(largest))
        elif name == "within":
            return within(hours=read_time(option, given) / 3600)
        elif name in _COUNTED:
            return _COUNTED[name](int(given))
    except ValueError:
        pass
    what = "is not a number from 1, nor last:N, nth:STEPS, spread:N, within:TIME or best:KEY:N"
    raise typer.BadParameter(f"{text!r} {what}", param_hint=f"'{option}'")


_COUNTED: dict[str, Callable[[int], Keep]] = {
    "": last, "last": last, "nth": every_nth, "spread": spread
}  # fmt: skip
