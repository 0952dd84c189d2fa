"""The same kernels on the CPU and on CUDA: in Numba's simulator, and on a real device."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from checkpointable import InvalidKernel
from checkpointable.kernels.ising import Ising
from checkpointable.kernels.sketch import Sketch
from checkpointable.kernels.wave import Wave
from tests.kernels.compare_devices import compare, ising, sketches
from tests.kernels.kernel_checks import assert_same, snapshot


def has_device() -> bool:
    from numba import config, cuda

    return not config.ENABLE_CUDASIM and bool(cuda.is_available())  # type: ignore[attr-defined]


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    # The simulator is chosen when Numba is imported, hence in another process.
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


def test_the_simulator_is_used_only_when_asked_for() -> None:
    code = "from checkpointable.kernels._target import *; print(choose_target('auto').name)"
    assert simulate("-c", code).stdout == "cpu\n"


def test_a_device_that_is_not_there() -> None:
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
