"""The contract, for each kernel of the gallery on CUDA: tiny, and in Numba's simulator.

`test_devices.py` runs it in its own process, since the simulator is chosen when Numba is
imported: NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/kernels/on_cuda.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import attrs
import hypothesis
import numpy as np
import pytest
from numba import cuda

from checkpointable import InvalidCheckpoint
from checkpointable.kernels.ising import Ising, IsingCheckpoint
from checkpointable.kernels.nbody import NBody, NBodyCheckpoint
from checkpointable.kernels.pagerank import PageRank, PageRankCheckpoint
from checkpointable.kernels.sketch import Sketch, SketchCheckpoint
from checkpointable.kernels.wave import Wave, WaveCheckpoint
from checkpointable.testing import KernelTests
from tests.kernels.kernel_checks import assert_same, restore, snapshot

C = TypeVar("C")
FEW = hypothesis.settings(KernelTests.settings, max_examples=2, stateful_step_count=5)


def arrays(checkpoint: Any) -> dict[str, Any]:
    values = attrs.asdict(checkpoint, recurse=False)
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def on_device(checkpoint: Any) -> Any:
    """Return the same checkpoint with its arrays in a device's memory."""
    moved = {name: cuda.to_device(array) for name, array in arrays(checkpoint).items()}
    return attrs.evolve(checkpoint, **moved)


def invalid_arrays(checkpoint: Any) -> Iterator[dict[str, Any]]:
    """Yield arrays with invalid values, for the kernels that check these."""
    for name in {"spins", "histogram", "ranks"} & arrays(checkpoint).keys():
        yield {name: 3 * np.array(getattr(checkpoint, name))}


class Tiny(KernelTests[C]):
    """Few and short runs: the simulator takes a tenth of a millisecond for each thread."""

    steps = 4
    settings = FEW

    @pytest.fixture(autouse=True)
    def _give_it_a_folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def test_restores_what_is_still_on_a_device(self) -> None:
        kernel, fresh = self.make(), self.make()
        kernel.advance(2)
        saved: Any = snapshot(kernel)
        restore(fresh, on_device(saved))
        assert_same(snapshot(fresh), saved)
        for bad in (attrs.evolve(saved, **change) for change in invalid_arrays(saved)):
            with pytest.raises(InvalidCheckpoint):
                restore(fresh, on_device(bad))
            assert_same(snapshot(fresh), saved)


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
