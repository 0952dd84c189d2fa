"""Whatever ends a child, it goes on from the newest checkpoint, to the same bits, or says why."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointable import LocalStore, MemoryStore, StoreError, run
from checkpointable.archive import entries, name_of
from checkpointable.events import FILE, Event, GaveUp, Quarantined, Restarted, Stalled, from_json
from checkpointable.runner.link import VARIABLE
from checkpointable.supervisor import Limits, Outcome, exponential, supervise
from checkpointable.supervisor.child import ended
from checkpointable.supervisor.supervise import _Job
from tests.cli.common import damage
from tests.helpers.equality import same
from tests.helpers.kernels import Counter, after

UNTIL = 60
PATIENT = Limits(start=600, factor=1, minimum=600, grace=600)
SHORT = Limits(start=600, factor=1, minimum=3, grace=0.3)  # for what hangs


def program(trouble: str, store: Path, until: int = UNTIL, *more: str) -> list[str]:
    words = ["-m", "tests.supervisor.programs", trouble, str(store), str(until), *more]
    return [sys.executable, *words]


def supervised(command: list[str], store: Path, **options: Any) -> tuple[Outcome, list[Event]]:
    reported: list[Event] = []
    options = {"limits": PATIENT, "backoff": lambda failures: 0.0, "failures": 3, **options}
    outcome = supervise(command, store, on_event=reported.append, **options)
    lines = (store / FILE).read_bytes().splitlines() if reported else []
    ours = (Stalled, Restarted, Quarantined, GaveUp)  # the child's own are there, too
    assert [event for event in map(from_json, lines) if isinstance(event, ours)] == reported
    return outcome, reported


def assert_complete(store: Path, until: int = UNTIL) -> None:
    """Its newest checkpoint has the bits of a run that nothing happened to."""
    kernel = Counter()
    assert run(kernel, store, until).first_step == until
    assert same(kernel.total, after(until).total)


# --- started again -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [
        ("aborts", "signal SIGABRT"),
        ("is killed", "signal SIGKILL, by a person or for lack of memory"),
        ("is preempted", "preempted"),
        ("stops", "hang: no step for"),
        ("waits", "hang: no step for"),
        ("exits", "exit code 3"),
        ("loses device", "DeviceLost: the device was lost: an illegal address"),
        ("raises", "ZeroDivisionError: by the kernel"),
        ("is unhealthy", "Unhealthy: a total below 0"),
    ],
)
def test_after_any_trouble_it_goes_on_from_the_newest(
    trouble: str, cause: str, tmp_path: Path
) -> None:
    store, limits = tmp_path / "run", SHORT if cause.startswith("hang") else PATIENT
    outcome, reported = supervised(program(trouble, store), store, limits=limits)
    assert (outcome.code, outcome.why, outcome.step, outcome.attempts) == (0, "done", UNTIL, 2)
    (restarted,) = [event for event in reported if isinstance(event, Restarted)]
    assert restarted.cause.startswith(cause)
    assert any(isinstance(event, Stalled) for event in reported) == cause.startswith("hang")
    assert_complete(store)


def test_a_child_that_hangs_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "run"
    supervised(program("waits", store), store, limits=SHORT)
    assert "in wait_for_ever" in capsys.readouterr().err


def test_an_unhealthy_state_is_never_saved(tmp_path: Path) -> None:
    store = tmp_path / "run"
    supervised(program("is unhealthy", store, UNTIL, "always"), store)
    assert [entry.step for entry in entries(LocalStore(store))] == [10, 20]


def test_it_gives_up_after_failures_without_a_new_checkpoint(tmp_path: Path) -> None:
    store = tmp_path / "run"
    outcome, reported = supervised(program("raises", store, UNTIL, "always"), store)
    assert outcome.code == 1
    assert outcome.why.startswith("3 attempts without one new checkpoint; the last: ZeroDivision")
    assert [(a.number, a.first_step) for a in outcome.failed] == [(2, 20), (3, 20), (4, 20)]
    assert isinstance(reported[-1], GaveUp)
    report = str(outcome)
    assert report.count("cause: ZeroDivisionError: by the kernel") == 3
    assert report.count("in raise_error") == 3


def test_each_new_checkpoint_sets_the_failures_back(tmp_path: Path) -> None:
    store = tmp_path / "run"
    code = """if True:
        import sys
        from pathlib import Path
        from checkpointable import every, run
        from tests.helpers.kernels import Counter

        odd = Path(sys.argv[1] + "-odd")
        steps_left = 15 if odd.exists() else 5
        odd.unlink() if odd.exists() else odd.touch()

        class Short(Counter):
            def advance(self, steps):
                global steps_left
                super().advance(steps)
                steps_left -= steps
                if steps_left <= 0:
                    raise RuntimeError

        run(Short(), sys.argv[1], 40, save=every(steps=10))
    """
    outcome, _ = supervised([sys.executable, "-c", code, str(store)], store, failures=2)
    assert (outcome.code, outcome.attempts) == (0, 8)
    assert_complete(store, 40)


def test_backoff_gets_the_number_of_failures_in_a_row(tmp_path: Path) -> None:
    failures: list[int] = []

    def backoff(number: int) -> float:
        failures.append(number)
        return 0.0

    store = tmp_path / "run"
    supervised(program("exits", store, UNTIL, "always"), store, backoff=backoff, failures=4)
    assert failures == [1, 1, 2, 3]  # the first has made new checkpoints


@given(st.integers(1, 10_000), st.floats(0.01, 10), st.floats(10, 1e4), st.floats(0, 5))
def test_exponential_doubles_up_to_the_most(n: int, first: float, most: float, by: float) -> None:
    least = min(first * 2.0 ** min(n - 1, 64), most)
    assert least <= exponential(first, most, by)(n) <= min(least + by, most)


# --- not started again ---------------------------------------------------------------------------


@pytest.mark.parametrize("code", [64, 78])
def test_wrong_usage_and_configuration_are_final(code: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", f"raise SystemExit({code})"]
    outcome, reported = supervised(command, tmp_path)
    assert (outcome.code, outcome.attempts) == (code, 1)
    assert [type(event) for event in reported] == [GaveUp]


def test_an_error_of_the_configuration_is_final_whatever_the_exit_code(tmp_path: Path) -> None:
    store = tmp_path / "run"
    outcome, _ = supervised(program("is invalid", store), store)
    assert (outcome.code, outcome.why) == (78, "InvalidKernel: it cannot run so")


def test_success_is_what_the_run_says_too(tmp_path: Path) -> None:
    outcome, _ = supervised([sys.executable, "-c", "pass"], tmp_path, failures=1)
    assert outcome.code == 1
    assert "exit code 0, but no run finished" in outcome.why


def test_one_supervisor_at_a_time(tmp_path: Path) -> None:
    store = tmp_path / "run"
    code = f"""if True:
        from checkpointable.errors import StoreLocked
        from checkpointable.supervisor import supervise
        try:
            supervise(["true"], {str(store)!r})
        except StoreLocked:
            raise SystemExit(64)
    """
    outcome, _ = supervised([sys.executable, "-c", code], store)
    assert outcome.code == 64


def test_a_store_elsewhere_needs_a_directory() -> None:
    with pytest.raises(StoreError, match="needs a directory"):
        supervise(["true"], MemoryStore())


# --- checkpoints that end their readers ----------------------------------------------------------


def test_a_checkpoint_that_kills_two_readers_is_put_aside(tmp_path: Path) -> None:
    store = tmp_path / "run"
    outcome, reported = supervised(program("reads", store), store, failures=4)
    assert outcome.code == 0
    causes = [event.cause for event in reported if isinstance(event, Restarted)]
    reading = f"signal SIGABRT, while it read {name_of(20)}"
    assert causes == ["signal SIGABRT", reading, reading]
    quarantined = [event for event in reported if isinstance(event, Quarantined)]
    now = "step-000000000020.quarantined.safetensors"
    assert [(e.step, e.name, e.new_name) for e in quarantined] == [(20, name_of(20), now)]
    assert (store / now).exists()
    assert_complete(store)


def test_it_is_the_one_that_was_read_not_the_newest(tmp_path: Path) -> None:
    store = tmp_path / "run"
    for until in (10, 20, 25):
        run(Counter(), store, until)
    (tmp_path / "reads").touch()  # its trouble is with reading only
    damage(store / name_of(25), 4100)
    _, reported = supervised(program("reads", store), store, failures=4)
    assert [event.name for event in reported if isinstance(event, Quarantined)] == [name_of(20)]
    assert (store / name_of(25)).exists()


def test_the_only_checkpoint_stays(tmp_path: Path) -> None:
    store = tmp_path / "run"
    run(Counter(), store, 20)
    outcome, reported = supervised(program("reads", store), store)
    assert outcome.code == 1
    assert not any(isinstance(event, Quarantined) for event in reported)
    assert [entry.step for entry in entries(LocalStore(store))] == [20]


def test_a_reader_that_refuses_is_not_killed(tmp_path: Path) -> None:
    store = tmp_path / "run"
    _, reported = supervised(program("refuses", store, UNTIL, "always"), store)
    assert not any(isinstance(event, Quarantined) for event in reported)


# --- stopped -------------------------------------------------------------------------------------

SUPERVISE = """
import sys
from checkpointable.supervisor import Limits, supervise

directory, grace, *command = sys.argv[1:]
limits = Limits(start=600, factor=1000, minimum=600, grace=float(grace))
sys.exit(supervise(command, directory, limits=limits).code)
"""


def start(command: list[str], store: Path, grace: float) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", SUPERVISE, str(store), str(grace), *command])


def wait_for(path: Path, process: "subprocess.Popen[bytes]") -> str:
    while not (path.exists() and path.stat().st_size):
        assert process.poll() is None
    return path.read_text()


def child_of(process: "subprocess.Popen[bytes]", folder: Path) -> psutil.Process:
    """The child, once it has come to step 25."""
    return psutil.Process(int(wait_for(folder / "runs", process)))


def assert_saved_at_its_end(store: Path) -> None:
    record = orjson.loads((store / "ended.json").read_bytes())
    assert record["code"] == 75
    assert [entry.step for entry in entries(LocalStore(store))] == [record["step"]]
    assert_complete(store, record["step"])


@pytest.mark.parametrize("between", [[], ["sh", "-c", '"$@"; exit 0', "sh"]], ids=["", "shell"])
def test_sigterm_saves_and_ends_with_75(between: list[str], tmp_path: Path) -> None:
    store = tmp_path / "run"
    with start([*between, *program("runs on", store, 10**9)], store, 600) as process:
        child_of(process, tmp_path)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 75
    assert_saved_at_its_end(store)


def test_a_child_that_does_not_stop_is_killed_after_the_grace(tmp_path: Path) -> None:
    store = tmp_path / "run"
    with start(program("waits", store), store, 0.1) as process:
        child = child_of(process, tmp_path)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 75
    assert ended(child)


def test_a_second_interrupt_ends_it_at_once(tmp_path: Path) -> None:
    store = tmp_path / "run"
    with start(program("waits", store), store, 10**6) as process:
        child = child_of(process, tmp_path)
        process.send_signal(signal.SIGINT)
        while not (tmp_path / "asked").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait() == 75
    assert ended(child)


def test_a_child_whose_supervisor_dies_saves_and_stops(tmp_path: Path) -> None:
    store = tmp_path / "run"
    with start(program("runs on", store, 10**9), store, 600) as process:
        child = child_of(process, tmp_path)
        process.kill()
    while not ended(child):
        pass
    assert_saved_at_its_end(store)


def test_an_orphan_that_hangs_is_ended_by_the_next_supervisor(tmp_path: Path) -> None:
    store = tmp_path / "run"
    with start(program("waits", store), store, 10**6) as process:
        child = child_of(process, tmp_path)
        process.kill()
    assert not ended(child)
    outcome, _ = supervised(program("waits", store), store, limits=SHORT)
    assert (outcome.code, outcome.attempts) == (0, 1)
    assert ended(child)


def test_what_the_child_has_started_ends_with_it(tmp_path: Path) -> None:
    store = tmp_path / "run"
    outcome, _ = supervised(program("has worker", store), store, limits=SHORT)
    assert outcome.code == 0
    pid = int((tmp_path / "worker").read_text())
    assert not psutil.pid_exists(pid) or ended(psutil.Process(pid))


# --- what it knows -------------------------------------------------------------------------------


def test_the_limit_is_learned_from_the_slices(tmp_path: Path) -> None:
    limits = Limits(start=60, factor=10, minimum=3)
    job = _Job([], MemoryStore(), tmp_path, limits, 1, lambda failures: 0.0, print)
    reported = [("step", "1", 30), ("step", "2", 0.1), ("step", "3", 2), ("step", "4", 0.1)]
    reported += [("saving", "4", 1), ("step", "5", 40), ("ended", "1", 1)]
    result = [job._limit()]
    for word, about, seconds in reported:
        job._handle(word, about, seconds)
        result.append(job._limit())
    assert result == [60, 3, 3, 20, 20, 60, 20, 3]


def test_what_the_run_starts_is_not_supervised(tmp_path: Path) -> None:
    code = f"""if True:
        import os, sys
        from checkpointable import run
        from tests.helpers.kernels import Counter
        run(Counter(), sys.argv[1], 5)
        if {VARIABLE!r} in os.environ:
            raise SystemExit(64)
    """
    assert supervised([sys.executable, "-c", code, str(tmp_path)], tmp_path)[0].code == 0


def test_the_supervisor_imports_neither_numba_nor_the_kernel(tmp_path: Path) -> None:
    command = ["-m", "checkpointable", "run", "ising", "--store", str(tmp_path), "--device", "cpu"]
    options = ["--until", "3", "--", "--n", "8"]
    code = f"""if True:
        import sys
        from checkpointable.supervisor import supervise
        assert supervise({[sys.executable, *command, *options]!r}, {str(tmp_path)!r}).code == 0
        loaded = {{name.partition(".")[0] for name in sys.modules}}
        assert not {{"numba", "cuda", "cupy", "llvmlite"}} & loaded
        assert "checkpointable.kernels.ising" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['psutil'] = None; import checkpointable.supervisor"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1] == (
        "ImportError: supervision needs psutil: pip install 'checkpointable[supervise]'"
    )
