"""What the benchmarks share: interleaved rounds, medians, a table, and a JSON file of results."""

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from attrs import frozen
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
_LOAD = os.getloadavg()[0]  # what else the machine was doing when the measurement began
_PACKAGES = ("checkpointable", "numpy", "safetensors", "xxhash")


@frozen
class Goal:
    """That `name` takes at most `times` as long as `against`, both measured in the same run."""

    name: str
    against: str
    times: float


@frozen
class Timed:
    """What a variant returns that has taken the time of only a part of itself, in seconds."""

    seconds: float


def options(text: str | None, *, rounds: int, least: int) -> argparse.ArgumentParser:
    """Make the parser of what all benchmarks can be told; fewer rounds than `least` are refused."""

    def enough(said: str) -> int:
        if int(said) < least:
            raise argparse.ArgumentTypeError(f"at least {least} rounds")
        return int(said)

    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=enough, default=rounds, help=f"default {rounds}")
    parser.add_argument("--device", help="how the results call this machine")
    return parser


def measure(
    variants: Mapping[str, Callable[[], object]], rounds: int, *, after: Callable[[], object]
) -> dict[str, list[float]]:
    """Time every variant once a round, after one round that does not count; in seconds.

    Each round has an order of its own, so that none always suffers from what another leaves
    behind. `after` runs between the timings, untimed. A variant that returns `Timed` is believed.
    """
    order = random.Random(1)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name in order.sample(list(variants), len(variants)):
            begin = time.perf_counter()
            told = _told(variants[name]())
            taken = time.perf_counter() - begin
            after()
            if turn:
                seconds[name].append(taken if told is None else told)
    return seconds


def _told(result: object) -> float | None:
    return result.seconds if isinstance(result, Timed) else None


def ratio(seconds: Mapping[str, Sequence[float]], name: str, against: str) -> float:
    """How many times as long one takes as the other: the median over the rounds."""
    pairs = zip(seconds[name], seconds[against], strict=True)
    return statistics.median(a / b for a, b in pairs)


def report(
    title: str,
    seconds: Mapping[str, Sequence[float]],
    goals: Sequence[Goal],
    *,
    against: str,
    mib: int | None = None,
) -> dict[str, Any]:
    """Print one table and whether each goal is met; return the same as JSON."""
    columns = ("median", "fastest", *(("MiB/s",) if mib else ()), f"times {against}")
    table = Table("", *columns, title=title, title_justify="left")
    found: dict[str, Any] = {"title": title, "against": against, "variants": {}, "goals": []}
    for name, times in seconds.items():
        median, share = statistics.median(times), ratio(seconds, name, against)
        speed = (f"{mib / median:,.0f}",) if mib else ()
        shown = (f"{median * 1e3:.1f} ms", f"{min(times) * 1e3:.1f} ms")
        table.add_row(name, *shown, *speed, f"{share:.2f}")
        found["variants"][name] = {
            "median_ms": round(median * 1e3, 2),
            "ratio": round(share, 3),
            "rounds_ms": [round(t * 1e3, 2) for t in times],
        }
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(table)
    for goal in goals:
        got = ratio(seconds, goal.name, goal.against)
        verdict = "met" if got <= goal.times else "MISSED"
        console.print(
            f"{verdict}: {goal.name} ≤ {goal.times:.4g} × {goal.against}: {got:.2f} ×", style="bold"
        )
        found["goals"].append(
            {"goal": f"{goal.name} <= {goal.times:.4g} x {goal.against}", "ratio": round(got, 3)}
            | {"met": got <= goal.times}
        )
    return found


def write(
    name: str,
    device: str | None,
    place: Path,
    found: Mapping[str, Any],
    *,
    results: Path = RESULTS,
    packages: Iterable[str] = _PACKAGES,
) -> None:
    """Write the results beside this file, with when and on what they were measured."""
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "device": device or _device(place),
        "load_average_before": round(_LOAD, 2),
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in packages},
    }
    results.mkdir(exist_ok=True)
    text = json.dumps(about | dict(found), indent=2, ensure_ascii=False)
    (results / f"{name}.json").write_text(f"{text}\n")
    print(f"written: {results.name}/{name}.json")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _device(place: Path) -> str:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    around = [fields for fields in mounts if place.is_relative_to(fields[1])]
    kind = max(around, key=lambda fields: len(fields[1]))[2]
    return f"{os.cpu_count()}-core {platform.machine()}, {kind}"
