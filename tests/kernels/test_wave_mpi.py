"""The wave split among ranks: the same bits as one process, whatever the number of ranks."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from checkpointable import InvalidKernel
from checkpointable.kernels.target import Device
from checkpointable.kernels.wave import Wave
from checkpointable.kernels.wave.mpi import WaveMpi
from tests.helpers.mpiexec import run_on_ranks
from tests.kernels.on_ranks import CASES, COMBINED, MOVES, PIECES


def run(size: int, folder: Path, device: Device, **environment: str) -> None:
    words = ("-m", "mpi4py", "-m", "tests.kernels.on_ranks", str(folder), device)
    ended = run_on_ranks(size, *words, environment=environment)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    run(4, folder, "cpu")
    return folder


def assert_is(path: Path, wave: Wave) -> None:
    with np.load(path) as saved:
        assert saved["step"] == wave.step
        for name in ("pressure", "pressure_before", "seismograms"):
            expected: Any = getattr(wave, name)
            assert saved[name].shape == expected.shape, name
            assert saved[name].tobytes() == expected.tobytes(), name


def recorded(name: str, device: Device) -> Wave:
    """A run of one process to the last step of the ranks, which is beyond the recording."""
    wave = Wave(device="cpu", **CASES[name])
    wave.advance(sum(PIECES[device]))
    assert wave.total_steps < wave.step
    assert np.count_nonzero(wave.seismograms) > 0
    return wave


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("name", CASES)
def test_any_number_of_ranks_gives_the_bits_of_one_process(
    name: str, size: int, results: Path
) -> None:
    wave = recorded(name, "cpu")
    for rank in range(size):
        assert_is(results / f"{name}-{size}-{rank}.npz", wave)


def test_ranks_with_simulated_devices_give_these_bits_too(tmp_path: Path) -> None:
    run(2, tmp_path, "cuda", NUMBA_ENABLE_CUDASIM="1")
    wave = recorded("least", "cuda")
    assert_is(tmp_path / "least-1-0.npz", wave)
    for rank in range(2):
        assert_is(tmp_path / f"least-2-{rank}.npz", wave)


def test_a_run_on_changing_numbers_of_ranks_equals_one_never_stopped(results: Path) -> None:
    wave = Wave(device="cpu", **CASES["prem"])
    wave.advance(sum(steps for _, steps in MOVES))
    assert wave.step < wave.total_steps
    assert_is(results / "moved-0.npz", wave)


def test_combining_keeps_every_bit(results: Path) -> None:
    for rank in range(4):
        assert np.load(results / f"combined-{rank}.npy").tobytes() == COMBINED.tobytes()


def test_ranks_that_would_have_fewer_rows_than_the_halo_are_refused() -> None:
    comm = SimpleNamespace(Get_rank=lambda: 0, Get_size=lambda: 7)
    with pytest.raises(InvalidKernel, match="n=13 rows are too few for 7 ranks"):
        WaveMpi(comm=comm, n=13, device="cpu")
