"""The main job: it resumes, saves when due, stops on signals, and survives kill -9."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointable import (
    EX_PREEMPTED,
    HealthStatus,
    InvalidKernel,
    LocalStore,
    MemoryStore,
    NoCheckpoint,
    NotNow,
    Preempted,
    Progress,
    StoreLocked,
    Unhealthy,
    every,
    last,
    run,
)
from checkpointable.archive import entries, name_of
from checkpointable.events import Saved as SavedEvent
from checkpointable.events import Skipped
from tests.archive.test_archive import damage
from tests.helpers.depth import NARROW
from tests.helpers.equality import same
from tests.helpers.kernels import Counter, after
from tests.helpers.simulated_run import World


def test_it_runs_to_the_end_and_saves_there() -> None:
    kernel, store = Counter(), MemoryStore()
    report = run(kernel, store, until=1000)
    assert (report.first_step, report.step, report.restored) == (0, 1000, None)
    assert same(kernel.total, after(1000).total)
    assert [e.step for e in entries(store)] == [1000]


@NARROW
@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(2, 12))
def test_any_series_of_runs_equals_one(parts: list[int], steps: int) -> None:
    store, until, kernel = MemoryStore(), 0, Counter()
    for part in parts:
        until += part
        kernel = Counter()
        report = run(kernel, store, until, save=every(steps=steps))
        assert report.first_step == until - part
    assert same(kernel.total, after(until).total)


def test_it_saves_at_each_multiple_of_steps_and_keeps_the_last() -> None:
    store = MemoryStore()
    report = run(Counter(), store, until=70, save=every(steps=20), keep=last(2))
    assert [saved.step for saved in report.saves] == [20, 40, 60, 70]
    assert [e.step for e in entries(store)] == [60, 70]


def test_a_finished_run_does_and_saves_nothing_more() -> None:
    store = MemoryStore()
    run(Counter(), store, until=10)
    report = run(Counter(), store, until=10)
    assert (report.first_step, report.step, report.saves) == (10, 10, ())


def test_it_falls_back_and_overwrites_nothing() -> None:
    store = MemoryStore()
    run(Counter(), store, until=20, save=every(steps=10))
    damage(store, name_of(20))
    kernel = Counter()
    report = run(kernel, store, until=20)
    assert report.first_step == 10
    assert [e.step for e in entries(store) if e.attempt] == [20]
    assert same(kernel.total, after(20).total)


def test_damaged_checkpoints_alone_are_no_fresh_start() -> None:
    store = MemoryStore()
    run(Counter(), store, until=10)
    damage(store, name_of(10))
    with pytest.raises(NoCheckpoint):
        run(Counter(), store, until=10)


def test_progress_is_told() -> None:
    reported: list[Progress] = []
    run(Counter(), MemoryStore(), until=50, save=every(steps=10), on_progress=reported.append)
    assert [p.step for p in reported] == sorted(p.step for p in reported)
    assert reported[-1].step == reported[-1].until == 50
    assert reported[-1].saved is not None
    assert reported[-1].saved.step == 50


def test_an_error_of_the_kernel_passes_and_what_was_saved_stays() -> None:
    class Failing(Counter):
        def advance(self, steps: int) -> None:
            super().advance(steps)
            if self.step >= 30:
                raise RuntimeError("illegal memory access")

    store, reported = MemoryStore(), list[Any]()
    with pytest.raises(RuntimeError, match="illegal"):
        run(Failing(), store, until=100, save=every(steps=10), on_event=reported.append)
    assert [e.step for e in entries(store)] == [10, 20]
    assert [event.step for event in reported if isinstance(event, SavedEvent)] == [10, 20]


@pytest.mark.parametrize("until", [100, 30])  # in between, and at the end
def test_an_unhealthy_state_is_not_saved(until: int) -> None:
    class Sick(Counter):
        def health_check(self) -> HealthStatus:
            return HealthStatus(self.step < 30, "NaN in total")

    store = MemoryStore()
    with pytest.raises(Unhealthy, match="NaN in total"):
        run(Sick(), store, until, save=every(steps=10))
    assert [e.step for e in entries(store)] == [10, 20]


class Busy(World):
    """Cannot be checkpointed from step 30 to 59."""

    def save(self, full: bool, delta: bool) -> Any:
        if 30 <= self.step < 60:
            raise NotNow("busy")
        return super().save(full, delta)


def test_a_save_that_is_not_possible_is_told_and_tried_again() -> None:
    world = Busy()
    world.run(100, every(steps=10))
    assert [saving.saved.step for saving in world.durable] == [10, 20, 60, 70, 80, 90, 100]
    reported = [event for event in world.events if isinstance(event, Skipped)]
    assert [(event.step, event.why) for event in reported] == [(30, "busy")]


def test_a_run_that_cannot_be_saved_at_its_end_fails() -> None:
    with pytest.raises(NotNow):
        Busy().run(50, every(steps=10))


def test_a_kernel_that_miscounts_is_stopped() -> None:
    class Miscounting(Counter):
        def advance(self, steps: int) -> None:
            pass

    with pytest.raises(InvalidKernel, match=r"advance\(1\) took step from 0 to 0"):
        run(Miscounting(), MemoryStore(), until=5)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    kernel = Counter()
    with LocalStore(tmp_path).lock(), pytest.raises(StoreLocked):
        run(kernel, tmp_path, until=5)
    assert kernel.step == 0  # refused at once, not at the first save


def test_it_runs_where_a_loop_is_running_already() -> None:
    async def notebook() -> int:
        return run(Counter(), MemoryStore(), until=5).step

    assert asyncio.run(notebook()) == 5


def test_preempted_says_how_far_it_came() -> None:
    class Signalled(Counter):
        def advance(self, steps: int) -> None:
            super().advance(steps)
            if self.step >= 20:
                signal.raise_signal(signal.SIGTERM)

    store, handler = MemoryStore(), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted) as stopped:
        run(Signalled(), store, until=10**6)
    assert stopped.value.code == EX_PREEMPTED
    assert stopped.value.report.step == entries(store)[-1].step < 10**6
    assert signal.getsignal(signal.SIGTERM) is handler


ENDLESS = """
import sys
from checkpointable import every, run
from tests.helpers.kernels import Counter

run(Counter(), sys.argv[1], until=10**12, save=every(steps=500),
    on_progress=lambda progress: print(progress.step, flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_exits_75(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-c", ENDLESS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 100:
            pass
        process.send_signal(number)
        reported = [int(line) for line in process.stdout]
        assert process.wait() == EX_PREEMPTED == 75
    newest = entries(LocalStore(tmp_path))[-1]
    assert newest.step == reported[-1]
    kernel = Counter()
    run(kernel, tmp_path, until=newest.step)
    assert same(kernel.total, after(newest.step).total)
