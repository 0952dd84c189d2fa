"""`checkpointable run --mpi`: the ranks of a job as one run."""

import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from checkpointable import EX_PREEMPTED
from checkpointable.cli import main
from tests.helpers.mpiexec import environment_of_ranks, on_ranks, ring, run_on_ranks, saved

RUN = ("-m", "checkpointable", "run")
HEAT = (*RUN, "examples.heat_mpi:Heat", "--mpi", "--json", "--every", "200", "--store")


def test_a_signal_stops_all_ranks_and_others_go_on(tmp_path: Path) -> None:
    store = str(tmp_path)
    started = subprocess.Popen(
        on_ranks(2, *HEAT, store, "--until", "1000000000", "--", "--n", "64"),
        env=environment_of_ranks(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with started as process:
        assert process.stdout is not None
        for line in process.stdout:
            if orjson.loads(line)["event"] == "Saved":
                process.send_signal(signal.SIGUSR1)
                break
        events = [orjson.loads(line) for line in process.stdout]  # those of one rank
        assert [
            event["event"] for event in events if event["event"] in ("Stopped", "Finished")
        ] == ["Stopped"]
        assert process.wait(60) == EX_PREEMPTED
    stopped = events[-1]["step"]

    ended = run_on_ranks(3, *HEAT, store, "--until", str(stopped + 7), "--", "--n", "64")
    assert ended.returncode == 0, ended.stderr
    result = [orjson.loads(line)["event"] for line in ended.stdout.splitlines()]
    assert result == ["Restored", "Saved", "Finished"]
    assert saved(tmp_path).temperature[:].tobytes() == ring(stopped + 7, 64).tobytes()


def test_the_ranks_do_not_wait_for_one_that_fails(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text(
        "def make(comm):\n"
        "    if comm.rank == 1:\n"
        "        raise ValueError('not here')\n"
        "    comm.barrier()\n"
    )
    ended = run_on_ranks(2, *RUN, "half:make", "--mpi", "--until", "1", cwd=tmp_path)
    assert ended.returncode == 1
    assert "ValueError: not here" in ended.stderr


def test_the_wave_has_a_form_for_many_ranks(tmp_path: Path) -> None:
    options = ("--n", "13", "--period", "2500", "--duration", "300")
    words = (*RUN, "wave", "--mpi", "--device", "cpu", "--store", str(tmp_path), "--", *options)
    ended = run_on_ranks(2, *words)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("wave-mpi: starts at step 0, ")
    assert {path.name.split(".")[1] for path in tmp_path.glob("step*")} == {
        "rank-0000", "rank-0001", "sharded",
    }  # fmt: skip


def test_a_run_on_ranks_cannot_be_supervised(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "wave", "--mpi", "--supervise"]) == 64
    assert "hint: let the scheduler restart it" in capsys.readouterr().err


def test_without_mpi4py_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert main(["run", "wave", "--mpi"]) == 64
    assert "pip install 'checkpointable[mpi]'" in capsys.readouterr().err
