"""The same kernels on the CPU and on CUDA: in Numba's simulator, and on a real device."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpointable import InvalidKernel
from checkpointable.kernels.ising import Ising
from checkpointable.kernels.nbody import NBody
from checkpointable.kernels.pagerank import PageRank
from checkpointable.kernels.sketch import Sketch
from checkpointable.kernels.wave import Wave
from tests.helpers.depth import DEEP
from tests.kernels.compare_devices import compare, ising, pageranks, sketches
from tests.kernels.kernel_checks import assert_same, snapshot


def has_device() -> bool:
    from numba import config, cuda

    return not config.ENABLE_CUDASIM and bool(cuda.is_available())  # type: ignore[attr-defined]


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    # In another process, since the simulator is chosen when Numba is imported.
    return subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:overflow encountered in scalar", *arguments],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_simulator_gives_the_bits_of_the_cpu() -> None:
    result = simulate("-m", "tests.kernels.compare_devices")
    assert result.returncode == 0, result.stderr


def test_the_kernels_keep_the_contract_on_the_simulated_device() -> None:
    """One kernel here, all of them in `nox -s ptx` and `deep`."""
    chosen, count = ((), 65) if DEEP or "REQUIRE_PTX" in os.environ else (("-k", "TestWave"), 13)
    tests = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/kernels/on_cuda.py")
    result = simulate(*tests, *chosen)
    assert result.returncode == 0, result.stdout
    assert f"{count} passed" in result.stdout


def test_the_simulator_is_used_only_when_asked_for() -> None:
    code = "from checkpointable.kernels.target import *; print(choose_target('auto').name)"
    assert simulate("-c", code).stdout == "cpu\n"


def test_a_missing_device_is_refused() -> None:
    if has_device():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(InvalidKernel, match="no CUDA device is available"):
        Ising(n=8, device="cuda")
    assert isinstance(Ising(n=8, device="auto").spins, np.ndarray)


@pytest.fixture
def device() -> None:
    if not has_device():
        pytest.skip("needs a real CUDA device")


@pytest.mark.gpu
@pytest.mark.usefixtures("device")
def test_ising_on_a_device() -> None:
    compare(ising)
    host, device = (Ising(n=200, warmup=3, device=where) for where in ("cpu", "cuda"))
    host.advance(20)
    device.advance(20)
    assert_same(snapshot(device), snapshot(host))


@pytest.mark.gpu
@pytest.mark.usefixtures("device")
def test_sketch_on_a_device(tmp_path: Path) -> None:
    for make in sketches(tmp_path):
        compare(make)
    rng = np.random.default_rng(1)
    values = rng.standard_normal(1_000_003) * 10.0 ** rng.integers(-300, 300, 1_000_003)
    values.astype("<f8").tofile(tmp_path / "numbers")
    host, device = (
        Sketch(tmp_path / "numbers", batch=300_000, device=where) for where in ("cpu", "cuda")
    )
    host.advance(4)
    device.advance(4)
    assert_same(snapshot(device), snapshot(host))


@pytest.mark.gpu
@pytest.mark.usefixtures("device")
def test_wave_on_a_device() -> None:
    # CUDA fuses multiplications and additions: equal up to rounding, and to itself bit for bit.
    host, device, again = (
        Wave(n=200, period=200.0, device=where) for where in ("cpu", "cuda", "cuda")
    )
    for wave in (host, device, again):
        wave.advance(wave.total_steps)
    peak = float(np.abs(host.wavefield).max())
    assert np.abs(host.wavefield - device.wavefield).max() < 1e-3 * peak
    assert host.first_arrivals() == pytest.approx(device.first_arrivals(), rel=1e-3, nan_ok=True)
    assert_same(snapshot(device), snapshot(again))


@pytest.mark.gpu
@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("n", [2, 127, 128, 129, 1000])
def test_nbody_on_a_device(n: int) -> None:
    # The same except for rounding, until chaos amplifies that.
    host, device, again = (NBody(n=n, device=where) for where in ("cpu", "cuda", "cuda"))
    assert device.energy == pytest.approx(host.energy, rel=1e-13)
    for cluster in (host, device, again):
        cluster.advance(32)
    positions = np.array(snapshot(host).positions)
    assert np.abs(np.array(snapshot(device).positions) - positions).max() < 1e-11
    assert_same(snapshot(device), snapshot(again))


@pytest.mark.gpu
@pytest.mark.usefixtures("device")
def test_nbody_conserves_energy_on_a_device() -> None:
    cluster = NBody(device="cuda")
    while cluster.step < cluster.total_steps:
        cluster.advance(64)
        assert abs(cluster.energy_error) < 2e-5
    assert np.abs(cluster.momentum).max() < 1e-13


@pytest.mark.gpu
@pytest.mark.usefixtures("device")
def test_pagerank_on_a_device(tmp_path: Path) -> None:
    edges = (200_000 * np.random.default_rng(1).random((1_000_000, 2)) ** (3, 2)).astype(np.int64)
    np.savetxt(tmp_path / "many.txt", edges, fmt="%d")
    makes: list[Any] = [
        *pageranks(tmp_path),
        lambda device: PageRank(tmp_path / "many.txt", device=device),
    ]
    for make in makes:
        host, device, again = (make(where) for where in ("cpu", "cuda", "cuda"))
        for ranking in (host, device, again):
            ranking.advance(50)
        ranks = np.array(snapshot(host).ranks)
        assert np.abs(np.array(snapshot(device).ranks) / ranks - 1).max() < 1e-13
        assert_same(snapshot(device), snapshot(again))
