"""The examples of many processes: over MPI, and by Ray where that is installed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

EXAMPLES = Path(__file__).parents[1] / "examples"
MPIEXEC = Path(sys.executable).with_name("mpiexec")


def ring(steps: int, n: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """What `heat_mpi` computes, by one process."""
    heat = np.linspace(0.0, 1.0, n) ** 2
    for _ in range(steps):
        heat = heat + 0.25 * (np.roll(heat, 1) - 2.0 * heat + np.roll(heat, -1))
    return heat
