"""kill -9 at random moments of a real run, rerun each time: the end is the unbroken run's.

One kernel here, all of them in `nox -s kills`.
"""

import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from checkpointable import LocalStore
from checkpointable.archive import entries, verify
from checkpointable.format.read_arrays import read_array
from checkpointable.format.reader import opened
from tests.helpers.depth import DEEP
from tests.helpers.equality import same

KILLS = {"wave": 10, "ising": 10, "sketch": 10, "nbody": 2, "pagerank": 2}


def command(kernel: str, store: Path, folder: Path) -> list[str]:
    options = {
        "wave": [],  # PREM, as it comes
        "ising": ["--sweeps", "900", "--warmup", "100"],
        "sketch": ["--path", str(folder / "stream.f64"), "--batch", "20000"],
        "nbody": ["--n", "500"],
        "pagerank": [
            "--path",
            str(folder / "edges"),
            "--damping",
            "0.9999",
            "--iterations",
            "1000",
        ],
    }[kernel]
    run = ["run", kernel, "--json", "--every", "0.2s", "--device", "cpu", "--store", str(store)]
    return [sys.executable, "-m", "checkpointable", *run, "--", *options]


def run(command: list[str], kill_after: float | None = None) -> tuple[list[Any], int]:
    """Run a command to its end, or kill it so many seconds after its first event."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        events = [orjson.loads(process.stdout.readline())]
        timer = threading.Timer(kill_after or 0, process.kill)
        if kill_after is not None:
            timer.start()
        events += [orjson.loads(line) for line in process.stdout if line.endswith(b"}\n")]
        timer.cancel()
    return events, process.wait()


def final_arrays(store: Path) -> dict[str, Any]:
    name = entries(LocalStore(store))[-1].name
    with LocalStore(store).open(name) as reader:
        checkpoint = opened(reader)
        header = checkpoint.header
        return {n: read_array(checkpoint, n) for n in header.arrays} | {"tree": header.meta.tree}


@pytest.mark.parametrize("kernel", KILLS if DEEP else ["pagerank"])
def test_killed_at_random_moments_equals_never_killed(kernel: str, tmp_path: Path) -> None:
    if kernel == "sketch":
        np.random.default_rng(7).lognormal(size=4_000_000).tofile(tmp_path / "stream.f64")
    if kernel == "pagerank":
        edges = np.random.default_rng(7).integers(0, 40_000, (100_000, 2))
        np.savetxt(tmp_path / "edges", edges, fmt="%d")
    events, returncode = run(command(kernel, tmp_path / "whole", tmp_path))
    assert returncode == 0
    seconds = next(event["seconds"] for event in events if event["event"] == "Finished")

    seed = random.randrange(2**32)
    chance = random.Random(seed)
    kills, first_steps = 0, []
    while kills < KILLS[kernel]:
        moment = chance.uniform(0, seconds / KILLS[kernel])
        events, returncode = run(command(kernel, tmp_path / "broken", tmp_path), kill_after=moment)
        first_steps.append(events[0]["step"])
        kills += returncode == -9
        if returncode == 0:  # this machine is faster now: begin again
            shutil.rmtree(tmp_path / "broken")
            first_steps.clear()
    _, returncode = run(command(kernel, tmp_path / "broken", tmp_path))
    assert returncode == 0

    assert first_steps == sorted(first_steps), f"seed {seed}: progress was lost"
    for entry in entries(LocalStore(tmp_path / "broken")):
        verify(LocalStore(tmp_path / "broken"), entry.name)
    expected, result = final_arrays(tmp_path / "whole"), final_arrays(tmp_path / "broken")
    assert expected.keys() == result.keys()
    for name, array in expected.items():
        assert same(array, result[name]), f"seed {seed}: {name} differs"
