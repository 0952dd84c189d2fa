"""Every state that a crash of each workload can leave keeps every promise."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash import promises, workloads
from tests.crash.explorer import LIMIT, Explored, explore
from tests.crash.recorder import Call, need_strace, record

LIMITS = int(os.environ.get("CRASH_STATES_LIMIT", LIMIT))
ROUNDS = int(os.environ.get("CRASH_STATES_ROUNDS", 1))
"""So often each workload is recorded anew, and other subsets are drawn."""

LEAST = {"saves_and_prunes": 20_000, "runs_a_kernel": 20_000, "two_processes_save": 20_000}
"""Different states that there must be, where unfinished files have names: 60,000 in all."""

FEWER = {
    "ranks_save": 16, "saves_deltas": 1024, "compacts_deltas": 1024, "runs_a_kernel": 1500,
    "two_processes_save": 2048, "saves_and_prunes": 3000,
}  # fmt: skip
"""So many subsets are drawn at each crash of these in the default suite: of `nox -s crash` all."""


def recorded(workload: str, way: str, tmp_path: Path) -> tuple[list[Call], Path]:
    need_strace()
    root = tmp_path / "root"
    root.mkdir()
    for path, data in workloads.before(workload).items():
        (root / path).mkdir() if data is None else (root / path).write_bytes(data)
    command = [sys.executable, "-m", "tests.crash.workloads", workload, str(root), way]
    return record(command, root, tmp_path / "strace.log"), root


def explored(workload: str, way: str, tmp_path: Path, memory: Path, **options: int) -> Explored:
    calls, root = recorded(workload, way, tmp_path)
    before = workloads.before(workload)
    return explore(
        calls, root, before, promises.check, memory, write_check=promises.write_check, **options
    )


@pytest.mark.parametrize("seed", range(ROUNDS))
@pytest.mark.parametrize("way", ["", "no_tmpfile"], ids=["O_TMPFILE", "named"])
@pytest.mark.parametrize("workload", workloads.WORKLOADS)
def test_every_crash_state_keeps_every_promise(
    workload: str,
    way: str,
    seed: int,
    tmp_path: Path,
    memory: Path,
    record_property: Callable[[str, object], None],
) -> None:
    limit = min(LIMITS, FEWER.get(workload, LIMITS)) if ROUNDS == 1 else LIMITS
    result = explored(workload, way, tmp_path, memory, limit=limit, seed=seed, enough=5)
    record_property("crash states", result.states)
    assert not result.wrong
    assert way == "" or result.states >= LEAST.get(workload, 1)


@pytest.mark.parametrize(
    ("way", "workload", "promise"),
    [
        ("without_file_fsync", "saves_and_prunes", "I4"),
        ("without_directory_fsync", "saves_and_prunes", "I4"),
        ("without_file_fsync", "ranks_save", "I4"),
        ("prune_before_save", "saves_and_prunes", "I4"),
        ("prune_before_directory_fsync", "saves_and_prunes", "I1"),
        ("overwriting_rename", "two_processes_save", "I2"),
        ("prune_without_parents", "saves_deltas", "I4"),
        ("prune_without_looking", "prunes_when_the_newest_are_damaged", "I4"),
    ],
)
def test_the_explorer_catches(
    way: str, workload: str, promise: str, tmp_path: Path, memory: Path
) -> None:
    result = explored(workload, way, tmp_path, memory, enough=1)
    assert result.wrong
    assert result.wrong[0].startswith(promise)
