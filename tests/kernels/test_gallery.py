"""The contract, for each kernel of the gallery, and what else they guarantee."""

import functools
import importlib
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast, get_origin, get_type_hints

import attrs
import hypothesis
import numba
import numpy as np
import pytest

from checkpointable import (
    InvalidCheckpoint,
    InvalidKernel,
    KernelMetadata,
    Shard,
    checkpoint_size_estimate,
    health_check,
)
from checkpointable.kernels import KERNELS
from checkpointable.kernels.ising import Ising, IsingCheckpoint
from checkpointable.kernels.nbody import NBody, NBodyCheckpoint
from checkpointable.kernels.pagerank import PageRank, PageRankCheckpoint
from checkpointable.kernels.sketch import Sketch, SketchCheckpoint
from checkpointable.kernels.target import choose_target
from checkpointable.kernels.wave import Wave, WaveCheckpoint
from checkpointable.kernels.wave.mpi import WaveMpi, WaveMpiCheckpoint
from checkpointable.testing import KernelTests
from tests.kernels.kernel_checks import assert_same, restore, snapshot

UNTIL = 24
Make = Callable[..., Any]


def load(name: str) -> Any:
    module, _, factory = KERNELS[name].partition(":")
    return getattr(importlib.import_module(module), factory)


def made(name: str, folder: Path, *, other: bool = False) -> Any:
    """A small kernel; `other` makes one that must refuse its checkpoints.

    `folder` is where the files are that `write_files` wrote.
    """
    if name in ("wave", "wave-mpi"):
        n = 50 if other else 48
        return load(name)(n=n, period=500.0, duration=20 * 20.0, receivers=5, device="cpu")
    if name == "ising":
        return Ising(n=24, seed=2 if other else 1, warmup=10, device="cpu")
    if name == "nbody":
        return NBody(n=20, seed=2 if other else 1, device="cpu")
    if name == "pagerank":
        return PageRank(folder / ("other.txt" if other else "edges.txt"), device="cpu")
    return Sketch(folder / "numbers", batch=20 if other else 25, device="cpu")


def write_files(folder: Path) -> None:
    """A file of numbers for `Sketch`, and two of edges for `PageRank`."""
    rng = np.random.default_rng(1)
    rng.standard_normal(500).astype("<f8").tofile(folder / "numbers")
    edges = rng.integers(0, 300, (900, 2))  # more nodes than one thread adds, some dangling
    np.savetxt(folder / "edges.txt", edges, fmt="%d")
    np.savetxt(folder / "other.txt", [*edges[:-1], edges[-1] + 1], fmt="%d")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gallery")
    write_files(path)
    return path


@pytest.fixture(params=sorted(KERNELS))
def make(request: pytest.FixtureRequest, folder: Path) -> Make:
    return functools.partial(made, request.param, folder)


class TestWave(KernelTests[WaveCheckpoint]):
    def make(self) -> Wave:
        return cast(Wave, made("wave", Path()))


class TestWaveMpi(KernelTests[WaveMpiCheckpoint]):
    """On one rank, with few examples, since its code is that of `Wave`; more in `test_wave_mpi`."""

    settings = hypothesis.settings(KernelTests.settings, max_examples=8, stateful_step_count=8)

    def make(self) -> WaveMpi:
        return cast(WaveMpi, made("wave-mpi", Path()))


class TestIsing(KernelTests[IsingCheckpoint]):
    def make(self) -> Ising:
        return cast(Ising, made("ising", Path()))


class TestSketch(KernelTests[SketchCheckpoint]):
    @pytest.fixture(autouse=True)
    def _give_it_numbers(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> Sketch:
        return cast(Sketch, made("sketch", self.folder))


class TestNBody(KernelTests[NBodyCheckpoint]):
    def make(self) -> NBody:
        return cast(NBody, made("nbody", Path()))


class TestPageRank(KernelTests[PageRankCheckpoint]):
    @pytest.fixture(autouse=True)
    def _give_it_a_graph(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> PageRank:
        return cast(PageRank, made("pagerank", self.folder))


def test_a_fresh_kernel_is_healthy(make: Make) -> None:
    kernel = make()
    assert isinstance(kernel.metadata, KernelMetadata)
    assert health_check(kernel).healthy
    assert kernel.step == 0
    assert kernel.total_steps > 0


def test_the_run_changes_the_state_in_every_step(make: Make) -> None:
    kernel = make()
    for _ in range(3):
        before = snapshot(kernel)
        kernel.advance(1)
        with pytest.raises(AssertionError):
            assert_same(attrs.evolve(snapshot(kernel), step=before.step), before)


def test_the_number_of_threads_does_not_matter(make: Make) -> None:
    single, parallel = make(), make()
    single.advance(UNTIL)
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    parallel.advance(UNTIL)
    assert_same(snapshot(single), snapshot(parallel))


def test_the_size_estimate_is_the_size_of_the_arrays(make: Make) -> None:
    kernel = make()
    saved = snapshot(kernel)
    fields = [getattr(saved, field.name) for field in attrs.fields(type(saved))]
    arrays = [field.local if isinstance(field, Shard) else field for field in fields]
    size = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
    assert checkpoint_size_estimate(kernel) == size


def test_a_checkpoint_of_another_setup_is_refused_and_changes_nothing(make: Make) -> None:
    kernel, other = make(), make(other=True)
    kernel.advance(3)
    other.advance(5)
    before = snapshot(kernel)
    with pytest.raises(InvalidCheckpoint, match=r"where: setup\."):
        restore(kernel, snapshot(other))
    assert_same(snapshot(kernel), before)


def test_a_checkpoint_of_another_class_or_a_negative_step_is_refused(make: Make) -> None:
    kernel = make()
    with pytest.raises(InvalidCheckpoint, match="got object"):
        restore(kernel, object())
    with pytest.raises(InvalidCheckpoint, match="negative"):
        restore(kernel, attrs.evolve(snapshot(kernel), step=-1))


def test_no_such_device() -> None:
    wrong: Any = "tpu"
    with pytest.raises(InvalidKernel, match="'tpu' is not a device"):
        choose_target(wrong)


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_the_options_fit_a_command_line(name: str) -> None:
    factory = load(name)
    hints = get_type_hints(factory.__init__)
    for option in inspect.signature(factory).parameters.values():
        if option.name == "comm":  # which `run --mpi` gives
            continue
        hint = hints[option.name]
        assert hint in (int, float, str, bool, Path) or get_origin(hint) is Literal
        assert option.default is not option.empty or option.name == "path"


def test_importing_the_gallery_does_not_import_numba() -> None:
    modules = ", ".join(target.partition(":")[0] for target in KERNELS.values())
    code = f"import sys, checkpointable.kernels, {modules}; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
