"""How tests start the ranks of a job, and what those of `examples/heat_mpi.py` compute."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen

from checkpointable import LocalStore, Shard, archive

ROOT = Path(__file__).parents[2]


@frozen
class HeatCheckpoint:
    """As the example has it, which is not imported: MPI would begin in the tests' own process."""

    step: int
    temperature: Shard[np.float64]


def on_ranks(size: int, *words: str) -> list[str]:
    """The command that runs a Python program on so many ranks."""
    mpiexec = Path(sys.executable).with_name("mpiexec")
    return [str(mpiexec), "-n", str(size), sys.executable, "-W", "error", *words]


def run_on_ranks(
    size: int, *words: str, cwd: Path = ROOT, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a Python program on so many ranks, each on one core."""
    return subprocess.run(
        on_ranks(size, *words), cwd=cwd, timeout=120,
        env=environment_of_ranks() | dict(environment or {}),
        capture_output=True, text=True,
    )  # fmt: skip


def environment_of_ranks() -> dict[str, str]:
    return os.environ | {"NUMBA_NUM_THREADS": "1"}


def saved(path: Path) -> HeatCheckpoint:
    """The newest checkpoint of the heat on the ring."""
    result = archive.latest(LocalStore(path), HeatCheckpoint)
    assert result is not None
    return result.checkpoint


def ring(steps: int, n: int) -> Any:
    """The heat on the ring as one process computes it."""
    heat = np.linspace(0.0, 1.0, n) ** 2
    for _ in range(steps):
        heat = heat + 0.25 * (np.roll(heat, 1) - 2.0 * heat + np.roll(heat, -1))
    return heat
