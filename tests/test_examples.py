"""The examples of many processes: over MPI, and by Ray where that is installed."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from checkpointable import LocalStore, archive
from tests.helpers.mpiexec import ROOT, ring, run_on_ranks, saved


def test_the_mpi_example_goes_on_on_another_number_of_ranks(tmp_path: Path) -> None:
    store, output = tmp_path / "run", []
    for size, until in ((3, 30), (2, 50)):
        words = ("-m", "mpi4py", "examples/heat_mpi.py", str(store), str(until), "64")
        ended = run_on_ranks(size, *words)
        assert ended.returncode == 0, ended.stderr
        output.append(ended.stdout)
    assert output == ["from step 0 to 30, saved 1 times\n", "from step 30 to 50, saved 1 times\n"]
    assert saved(store).temperature[:].tobytes() == ring(50, 64).tobytes()


def test_the_actor_of_the_ray_example_resumes_where_it_died(tmp_path: Path) -> None:
    names = runpy.run_path(str(ROOT / "examples/ray_actor.py"))

    def come_to(until: int) -> tuple[int, Any]:
        actor = names["HeatActor"](str(tmp_path), 64)
        return actor.advance_to(until, 4), actor

    assert come_to(10)[0] == 0
    first_step, actor = come_to(15)
    assert first_step == 10
    assert actor.advance_to(15, 4) == 10  # called again by Ray, it has nothing to do
    assert archive.entries(LocalStore(tmp_path))[-1].step == 15


def test_ray_starts_the_actor_again_and_it_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    program = """
import os, sys
import ray
from examples import ray_actor

class Dying(ray_actor.HeatActor):
    def advance_to(self, until, save_every):
        if self.first_step == 0:
            super().advance_to(until // 2, save_every)
            os._exit(1)
        return super().advance_to(until, save_every)

ray_actor.HeatActor = Dying
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
ray_actor.main(sys.argv[1], 20, 4, 64)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},  # for Ray's workers
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ended.stdout.endswith("from step 10 to 20\n"), ended.stderr
