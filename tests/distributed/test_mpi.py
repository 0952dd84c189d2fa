"""Jobs of many ranks, each a process, under mpiexec: killed, stopped, failing, damaged.

A run that went on in another job, of another size, has the bits of one that has never stopped.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from attrs import frozen

from checkpointable import LocalStore, archive, open_store
from checkpointable.archive import entries, is_rank_file
from checkpointable.events import FILE, Event, Restarted
from checkpointable.supervisor.child import ended
from checkpointable.supervisor.supervise import Limits, supervise
from tests.distributed.waves import newest_in
from tests.supervisor.test_supervise import start

MPIEXEC = str(Path(sys.executable).with_name("mpiexec"))
SECONDS = 120.0  # for one job, on a busy machine: it takes two
KEY = b"a key of at least 16 bytes"

pytestmark = pytest.mark.skipif(not Path(MPIEXEC).exists(), reason="mpich is not installed")


@frozen
class Job:
    """How a job ended: its exit code, what each rank has left, and what it wrote to stderr."""

    code: int
    said: list[dict[str, Any]]
    stderr: str

    def __getitem__(self, what: str) -> Any:
        """What all ranks have said alike."""
        reported = [one.get(what) for one in self.said]
        assert reported == [reported[0]] * len(reported), what
        return reported[0]


def command(ranks: int, program: str, folder: Path, *words: object) -> list[str]:
    python = [sys.executable, "-W", "error", "-m", "mpi4py", "-m", "tests.distributed.programs"]
    return [MPIEXEC, "-n", str(ranks), *python, program, str(folder), *map(str, words)]


def job(ranks: int, program: str, folder: Path, *words: object) -> Job:
    """Start one, and wait for its end."""
    with started(ranks, program, folder, *words) as process:
        code = process.wait(SECONDS)
    return job_of(ranks, folder, code)


def started(ranks: int, program: str, folder: Path, *words: object) -> "Started":
    for left in [*folder.glob("rank-*"), *folder.glob("pid-*")]:
        left.unlink()
    return Started(command(ranks, program, folder, *words), folder)


class Started(subprocess.Popen[bytes]):
    """A job that does not outlive its test."""

    def __init__(self, words: list[str], folder: Path) -> None:
        with (folder / "stderr").open("wb") as stderr:
            super().__init__(words, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait()


def job_of(ranks: int, folder: Path, code: int) -> Job:
    result = [folder / f"rank-{rank}.json" for rank in range(ranks)]
    said = [orjson.loads(path.read_bytes()) for path in result if path.exists()]
    return Job(code, said, (folder / "stderr").read_text())


def pids(folder: Path, ranks: int, process: "subprocess.Popen[bytes]") -> list[int]:
    """Those of the ranks, when all have come to where they tell."""
    result = [folder / f"pid-{rank}" for rank in range(ranks)]
    await_all(lambda: all(path.exists() for path in result), process)
    return [int(path.read_text()) for path in result]


def await_all(come: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    """Look until it has come, while the job goes on."""
    end = time.monotonic() + SECONDS
    while not come():
        assert time.monotonic() < end
        with suppress(subprocess.TimeoutExpired):
            assert process.wait(0.01) == -signal.SIGKILL, "it has ended by itself"


def orphans(place: str) -> set[str]:
    """The files of ranks that no checkpoint has."""
    store = open_store(place)
    manifests = [archive.read_header(store, entry.name) for entry in entries(store)]
    had = {parent.name for manifest in manifests for parent in manifest.parents}
    return {e.name for e in store.list() if is_rank_file(e.name)} - had


def steps(place: str) -> list[int]:
    return [entry.step for entry in entries(open_store(place))]


@pytest.fixture(params=["directory"])
def place(tmp_path: Path) -> str:
    """Where the ranks save; to them it is an address."""
    return str(tmp_path / "store")


# --- on fewer ranks, and on more -----------------------------------------------------------------


@pytest.mark.parametrize("key", [None, KEY], ids=["unsigned", "signed"])
def test_a_run_goes_on_with_any_number_of_ranks_cut_in_any_way(
    key: bytes | None, place: str, tmp_path: Path
) -> None:
    began = 0
    sizes = [(3, "rows"), (2, "columns"), (4, "grid"), (1, "rows")]
    for ranks, cut in sizes if key is None else [(2, "rows"), (3, "columns")]:
        ran = job(ranks, "continues", tmp_path, place, cut, *(["key"] if key else []))
        assert ran.code == 0
        assert ran["restored"] == (began or None)
        assert (ran["begun"], ran["ended"], ran["right"]) == (began, began + 17, [True, True])
        full, delta, _ = ran["files"]  # how many it refers to, and the bytes of its ranks' own
        assert (full[0], delta[0]) == (ranks, 2 * ranks)
        assert delta[1] < full[1]
        assert ran["believes"] == (key is None)  # what was not signed with its key
        began += 17
    assert newest_in(place, key) == (began, True)


# --- killed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "newest", "left"),
    [
        ("in its write", 20, {"rank-0000", "rank-0002"}),
        ("before the commit", 20, {"rank-0000", "rank-0001", "rank-0002"}),
        ("after the commit", 30, set[str]()),
    ],
)
def test_a_job_that_loses_a_rank_in_a_save_goes_on_from_the_newest_commit(
    moment: str, newest: int, left: set[str], place: str, tmp_path: Path
) -> None:
    ran = job(3, "runs", tmp_path, place, "rows", 60, "steps", moment)
    assert (ran.code, ran.said) == (signal.SIGKILL, [])
    assert (newest_in(place), steps(place)) == ((newest, True), [10, 20, 30][: newest // 10])
    assert {name.split(".")[1] for name in orphans(place)} == left
    ran = job(2, "runs", tmp_path, place, "columns", 60, "steps")
    assert (ran.code, ran["restored"], ran["step"], ran["right"]) == (0, newest, 60, True)
    assert (newest_in(place), steps(place), orphans(place)) == ((60, True), [50, 60], set())


def test_a_rank_whose_kernel_fails_beside_a_save_waits_for_that_one_and_no_other(
    place: str, tmp_path: Path
) -> None:
    ran = job(3, "runs", tmp_path, place, "rows", 60, "steps", "raises", 25)
    assert (ran.code, ran.said) == (1, [])
    assert "ZeroDivisionError: by the kernel" in ran.stderr
    assert newest_in(place) == (20, True)


def test_no_rank_outlives_the_job(tmp_path: Path) -> None:
    words = [tmp_path / "store", "rows", 60, "steps", "awaits", 5]
    with started(3, "runs", tmp_path, *words) as process:
        ranks = [psutil.Process(pid) for pid in pids(tmp_path, 3, process)]
        process.kill()
        await_all(lambda: all(map(ended, ranks)), process)


# --- failures ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """All of them in one job, since it takes seconds to start one."""
    folder = tmp_path_factory.mktemp("failures")
    ran = job(3, "fails", folder, folder / "store")
    assert ran.code == 0, ran.stderr
    return ran


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("the store is full", "StoreFull: rank 2: no space is left"),
        ("the store is full within", "StoreFull: rank 1: no space is left"),
        ("the store is full at the manifest", "StoreFull: rank 0: no space is left"),
        ("the stores are apart", "StoreError: rank 0: the file of rank 1 is missing"),
        ("the store is for one", "StoreError: rank 1: not a store that many ranks can write to"),
        ("checkpoint raises", "CheckpointableError: rank 1: ZeroDivisionError: by the kernel"),
        (
            "checkpoint is of another class",
            "InvalidCheckpoint: rank 1: expected WavesCheckpoint, got ZeroDivisionError",
        ),
        ("metadata raises", "CheckpointableError: rank 2: ZeroDivisionError: by the kernel"),
        ("can_checkpoint raises", "CheckpointableError: rank 1: ZeroDivisionError: by the kernel"),
        ("can_checkpoint says no", "NotNow: the kernel could not be checkpointed for 0 seconds"),
        ("the device is lost", "DeviceLost: rank 1: the device was lost: an illegal address"),
        ("an array differs", "InvalidCheckpoint: rank 0: it differs on rank 1"),
        ("a value differs", "InvalidCheckpoint: rank 0: it differs on rank 2"),
        ("the step differs", "InvalidCheckpoint: rank 1: it is at step 7, but rank 0 at step 6"),
        (
            "shards overlap",
            "InvalidCheckpoint: rank 0: the shards [0:8, 0:16] and [7:15, 0:16] overlap",
        ),
        ("shards of other shapes", "InvalidCheckpoint: rank 0: it differs on rank 1"),
        (
            "an element is nobody's",
            "InvalidCheckpoint: rank 0: the shards leave a gap: 16 of 384 elements are in no shard",
        ),
        ("an error of another class", "CheckpointableError: rank 1: OfMine: number 7"),
        ("an error of a local class", "StoreFull: rank 2: Local: it has no name elsewhere"),
    ],
)
def test_the_failure_of_one_rank_is_the_error_of_all_and_nothing_is_stored(
    what: str, error: str, failures: Job
) -> None:
    sound, failed, new, after = failures[what]
    parts = 3 if what == "the store is full at the manifest" else 0  # it may be there all the same
    assert (sound, failed, new) == ("done", error, parts)
    assert after == "done"  # the next save


def test_a_restore_that_one_rank_refuses_fails_on_all(failures: Job) -> None:
    assert failures["restore raises"] == (
        "CheckpointableError: rank 1: ZeroDivisionError: by the kernel"
    )
    assert failures["no such step"] == "NoCheckpoint: there is no checkpoint of step 1000000"
    assert (failures["restored after"], failures["right"]) == ("done", True)


def test_a_run_with_an_unhealthy_rank_ends_on_all_and_the_next_goes_on(tmp_path: Path) -> None:
    ran = job(3, "unhealthy", tmp_path, tmp_path / "store")
    assert ran.code == 0
    assert ran["error"] == "Unhealthy: rank 2: it has a NaN"
    assert (ran["first_step"], ran["right"]) == (20, True)


def test_damage_for_one_rank_sends_all_back_to_the_same_step(tmp_path: Path) -> None:
    ran = job(3, "damaged", tmp_path, tmp_path / "store")
    assert ran.code == 0
    assert ran["nothing"] == [30, True, []]
    newest = [30, "rank 0: the data is damaged"]  # which rank 2 does not need
    refused = "CheckpointableError: rank 2: ZeroDivisionError: by the kernel"
    assert ran["data"] == [24, True, [newest]]
    assert ran["data, and refused"] == refused
    assert ran["data, and saved again"] == [25, True, [newest]]  # which does not continue that one
    assert passed_over(ran["manifest"]) == (18, [30, 24])
    assert ran["manifest"][2][1][1].endswith("the seal does not match: the header is damaged")
    assert passed_over(ran["file"]) == (12, [30, 24, 18])
    assert ran["file"][2][2][1].endswith("cannot be read: nothing is there")
    assert ran["oldest"] == "NoCheckpoint: the store holds 5 checkpoints, but none is valid:"


def passed_over(reported: Any) -> tuple[int, list[int]]:
    """The step that was restored, with the right bits, and those that were not."""
    step, right, skipped = reported
    assert right
    return step, [other for other, _ in skipped]


# --- runs ----------------------------------------------------------------------------------------


def test_a_signal_to_one_rank_stops_all_at_one_step_and_others_go_on(
    place: str, tmp_path: Path
) -> None:
    with started(3, "runs", tmp_path, place, "rows", 10**9, "seconds", "tells", 5) as process:
        ranks = pids(tmp_path, 3, process)
        seen = set[int]()

        def saved_often() -> bool:
            seen.update(steps(place))
            return len(seen) > 3  # by time, and by what saves cost

        await_all(saved_often, process)
        os.kill(ranks[1], signal.SIGTERM)
        first = job_of(3, tmp_path, process.wait(SECONDS))
    assert (first.code, first["right"]) == (75, True)
    assert first["told"]  # by rank 0, before another may end the job
    assert first["saves"][-1] == first["step"]
    assert newest_in(place) == (first["step"], True)
    assert len(steps(place)) <= 2
    assert orphans(place) == set()
    until = first["step"] + 30
    second = job(2, "runs", tmp_path, place, "columns", until, "steps")
    assert (second.code, second["restored"]) == (0, first["step"])
    assert (second["step"], second["right"], newest_in(place)) == (until, True, (until, True))
    reported, others = second.said[0]["events"], second.said[1]["events"]
    assert (reported[0], reported[-1], others) == ("Restored", "Finished", [])
    lines = Path(place, FILE).read_bytes().splitlines()
    assert len(lines) == len(reported) + len(first.said[0]["events"])


def test_a_safe_point_within_a_step_stops_all_ranks_by_the_signal_of_one(
    place: str, tmp_path: Path
) -> None:
    with started(3, "runs", tmp_path, place, "rows", 60, "steps", "awaits", 13) as process:
        ranks = pids(tmp_path, 3, process)
        os.kill(ranks[2], signal.SIGUSR2)  # asks for a save
        await_all(lambda: 13 in steps(place), process)
        process.terminate()  # as whoever has started mpiexec does: it passes it on
        ran = job_of(3, tmp_path, process.wait(SECONDS))
    assert ran.code == 75
    assert ran["right"]
    assert ran["saves"][-1] == ran["step"]
    assert newest_in(place) == (ran["step"], True)


def test_a_store_that_another_job_uses_is_refused_on_all_ranks(tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    with LocalStore(place).lock():
        ran = job(2, "runs", tmp_path, place, "rows", 60, "steps")
    assert ran.code != 0
    assert ran["error"].startswith("StoreLocked: rank 0: another writer holds the store: pid ")
    assert str(os.getpid()) in ran["error"]
    assert (ran["step"], steps(place)) == (0, [])  # before anything else


# --- supervised ----------------------------------------------------------------------------------

PATIENT = Limits(start=600, factor=1, minimum=600, grace=600)


def supervised(folder: Path, ranks: int, *words: object) -> tuple[Any, list[Event]]:
    reported: list[Event] = []
    started_by = command(ranks, "runs", folder, folder / "store", *words)
    outcome = supervise(
        started_by,
        folder / "store",
        limits=PATIENT,
        backoff=lambda failures: 0.0,
        on_event=reported.append,
    )
    return outcome, reported


def test_a_supervisor_starts_the_job_again_and_no_rank_of_the_first_is_left(
    tmp_path: Path,
) -> None:
    outcome, reported = supervised(tmp_path, 2, "rows", 60, "steps", "dies", 15)
    assert (outcome.code, outcome.why, outcome.step, outcome.attempts) == (0, "done", 60, 2)
    assert [event.step for event in reported if isinstance(event, Restarted)] == [10]
    assert newest_in(tmp_path / "store") == (60, True)
    said = [orjson.loads((tmp_path / f"rank-{rank}.json").read_bytes()) for rank in (0, 1)]
    assert [(one["linked"], one["named"]) for one in said] == [(True, False), (False, False)]
    assert not [pid for pid in ranks_that_were(tmp_path) if psutil.pid_exists(pid) and runs(pid)]


def ranks_that_were(folder: Path) -> Iterator[int]:
    for path in folder.glob("was-*"):
        yield int(path.name.split("-")[2])


def runs(pid: int) -> bool:
    try:
        return not ended(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def test_a_supervisor_that_is_stopped_stops_all_ranks_with_their_state_saved(
    tmp_path: Path,
) -> None:
    outcome, _ = supervised(tmp_path, 2, "rows", 10**9, "steps", "stops supervisor", 25)
    assert (outcome.code, outcome.why) == (75, "stopped by a signal")
    assert newest_in(tmp_path / "store") == (outcome.step, True)


def test_a_job_whose_supervisor_dies_stops_with_its_state_saved(tmp_path: Path) -> None:
    place, words = tmp_path / "store", ("rows", 10**9, "steps", "tells", 5)
    with start(command(3, "runs", tmp_path, tmp_path / "store", *words), place, 600) as process:
        ranks = [psutil.Process(pid) for pid in pids(tmp_path, 3, process)]
        process.kill()
        await_all(lambda: all(map(ended, ranks)), process)
    step = orjson.loads((tmp_path / "rank-0.json").read_bytes())["step"]
    assert newest_in(place) == (step, True)


def test_a_supervisor_does_not_try_again_what_all_ranks_refuse(tmp_path: Path) -> None:
    outcome, _ = supervised(tmp_path, 3, "rows", 60, "steps", "differs", 15)
    assert (outcome.code, outcome.attempts) == (78, 1)
    assert outcome.why == "InvalidCheckpoint: rank 0: it differs on rank 1"
    others = [orjson.loads((tmp_path / f"rank-{rank}.json").read_bytes()) for rank in (1, 2)]
    assert all(one["told"] for one in others)  # by rank 0, before another may end the job
