"""The contract, for each kernel of the gallery on CUDA: tiny, and in Numba's simulator.

`test_devices.py` runs it in a process of its own, since the simulator is chosen when Numba is
imported: NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/kernels/on_cuda.py
"""

from pathlib import Path

import hypothesis
import numpy as np
import pytest

from checkpointable.kernels.ising import Ising, IsingCheckpoint
from checkpointable.kernels.nbody import NBody, NBodyCheckpoint
from checkpointable.kernels.pagerank import PageRank, PageRankCheckpoint
from checkpointable.kernels.sketch import Sketch, SketchCheckpoint
from checkpointable.kernels.wave import Wave, WaveCheckpoint
from checkpointable.testing import KernelTests
from checkpointable.testing.kernels import SETTINGS, C

FEW = hypothesis.settings(SETTINGS, max_examples=3, stateful_step_count=6)


class Tiny(KernelTests[C]):
    """Few and short runs, for the simulator takes a tenth of a millisecond for every thread."""

    steps = 4
    settings = FEW

    @pytest.fixture(autouse=True)
    def _give_it_a_folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path


class TestWave(Tiny[WaveCheckpoint]):
    def make(self) -> Wave:
        return Wave(n=12, period=2500.0, duration=500.0, receivers=2, device="cuda")


class TestIsing(Tiny[IsingCheckpoint]):
    def make(self) -> Ising:
        return Ising(n=4, warmup=2, device="cuda")


class TestSketch(Tiny[SketchCheckpoint]):
    def make(self) -> Sketch:
        path = self.folder / "numbers"
        np.random.default_rng(1).standard_normal(12).astype("<f8").tofile(path)
        return Sketch(path, batch=3, device="cuda")


class TestNBody(Tiny[NBodyCheckpoint]):
    def make(self) -> NBody:
        return NBody(n=5, device="cuda")


class TestPageRank(Tiny[PageRankCheckpoint]):
    def make(self) -> PageRank:
        path = self.folder / "edges"
        edges = [(i, j) for i in range(15) for j in (i * i % 15, 15)]  # 15 dangles
        path.write_text("".join(f"{i} {j}\n" for i, j in edges))
        return PageRank(path, device="cuda")
