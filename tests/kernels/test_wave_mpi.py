"""The wave split among ranks: the same bits as one process, whatever the number of ranks."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from checkpointable import InvalidKernel
from checkpointable.kernels.wave import Wave
from checkpointable.kernels.wave_mpi import WaveMpi
from tests.kernels.on_ranks import CASES, MOVES, PIECES, SIZES

MPIEXEC = Path(sys.executable).with_name("mpiexec")


def ranks(size: int, *arguments: str, **environment: str) -> None:
    """Run a program on so many ranks, each on one core."""
    ended = subprocess.run(
        [MPIEXEC, "-n", str(size), sys.executable, "-W", "error", "-m", "mpi4py", *arguments],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"NUMBA_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    ranks(4, "-m", "tests.kernels.on_ranks", str(folder))
    return folder


def assert_is(path: Path, wave: Wave) -> None:
    with np.load(path) as found:
        assert found["step"] == wave.step
        for name in ("pressure", "pressure_before", "seismograms"):
            expected: Any = getattr(wave, name)
            assert found[name].shape == expected.shape, name
            assert found[name].tobytes() == expected.tobytes(), name


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, Wave]:
    wave = Wave(device="cpu", **CASES[request.param])
    wave.advance(sum(PIECES))
    assert wave.total_steps < wave.step
    assert np.count_nonzero(wave.seismograms) > 0
    return request.param, wave


@pytest.mark.parametrize("size", SIZES)
def test_any_number_of_ranks_gives_the_bits_of_one_process(
    size: int, case: tuple[str, Wave], results: Path
) -> None:
    name, wave = case
    for rank in range(size):
        assert_is(results / f"{name}-{size}-{rank}.npz", wave)


def test_a_run_that_goes_to_other_numbers_of_ranks_is_one_that_never_stopped(results: Path) -> None:
    wave = Wave(device="cpu", **CASES["prem"])
    wave.advance(sum(steps for _, steps in MOVES))
    assert wave.step < wave.total_steps
    assert_is(results / "moved-0.npz", wave)


def test_ranks_that_would_have_fewer_rows_than_the_halo_are_refused() -> None:
    comm = SimpleNamespace(Get_rank=lambda: 0, Get_size=lambda: 7)
    with pytest.raises(InvalidKernel, match="n=13 rows are too few for 7 ranks"):
        WaveMpi(comm=comm, n=13, device="cpu")
