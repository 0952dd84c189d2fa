"""Runs on two tiers: from Python, on the command line, killed, stopped, and after losses."""

import asyncio
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest

from checkpointable import (
    Checkpointer,
    LocalStore,
    MemoryStore,
    Preempted,
    Tiered,
    every,
    last,
    run,
)
from checkpointable.archive import entries, name_of, verify
from checkpointable.cli import main
from checkpointable.events import (
    FILE,
    Copied,
    Damaged,
    Finished,
    Restored,
    Saved,
    Started,
    Stopped,
    TierBack,
    TierLost,
    from_json,
)
from checkpointable.sinks import prometheus
from checkpointable.testing import FaultyStore
from tests.helpers.equality import same
from tests.helpers.kernels import Counter, after
from tests.runner.test_signals import Signalled
from tests.tiers.test_tiers import Switched, damage


def steps(store: Any) -> list[int]:
    return [entry.step for entry in entries(store)]


def test_a_run_ends_when_the_slow_tier_has_its_last_checkpoint(tmp_path: Path) -> None:
    reported: list[Any] = []
    tiered = Tiered(tmp_path / "fast", tmp_path / "slow", keep=last(2))
    run(Counter(), tiered, 50, save=every(steps=10), keep=last(1), on_event=reported.append)
    assert (steps(tiered.fast), steps(tiered.slow)) == ([50], [40, 50])
    assert isinstance(reported[0], Started)
    assert isinstance(reported[-1], Finished)
    for step in (10, 20, 30, 40, 50):
        at = [type(e) for e in reported if getattr(e, "name", "") == name_of(step)]
        assert at in ([Saved, Copied], [Copied, Saved], [Saved])  # as the threads come
    assert Copied in [type(e) for e in reported if getattr(e, "name", "") == name_of(50)]
    logged = (tmp_path / "fast" / FILE).read_bytes().splitlines()
    assert [from_json(line) for line in logged] == reported


def test_after_the_loss_of_the_fast_tier_it_ends_in_the_same_bits(tmp_path: Path) -> None:
    run(Counter(), Tiered(tmp_path / "fast", tmp_path / "slow"), 50, save=every(steps=10))
    shutil.rmtree(tmp_path / "fast")
    kernel = Counter()
    report = run(kernel, Tiered(tmp_path / "fast", tmp_path / "slow"), 80)
    assert (report.first_step, report.step) == (50, 80)
    assert same(kernel.total, after(80).total)


def test_a_run_tells_what_it_restored_from_the_slow_tier() -> None:
    fast, slow, reported = MemoryStore(), MemoryStore(), list[Any]()
    run(Counter(), Tiered(fast, slow), 20, save=every(steps=10))
    damage(fast, name_of(20))
    report = run(Counter(), Tiered(fast, slow), 20, on_event=reported.append)
    assert (report.first_step, report.saves) == (20, ())
    assert [type(e) for e in reported] == [Damaged, Restored, Finished]


class Losing(Counter):
    """Calls `lose` at step 30, and `find` at step 60."""

    def __init__(self, lose: Any, find: Any) -> None:
        super().__init__()
        self.at = {30: lose, 60: find}

    def advance(self, steps: int) -> None:
        super().advance(steps)
        for step in [step for step in self.at if step <= self.step]:
            self.at.pop(step)()


@pytest.mark.parametrize("how", ["down", "full"])
@pytest.mark.parametrize("which", ["fast", "slow"])
@pytest.mark.parametrize("delta", [False, True])
def test_a_run_survives_the_loss_of_either(how: str, which: str, delta: bool) -> None:
    stores, reported = {"fast": Switched(), "slow": Switched()}, list[Any]()
    lost = stores[which]
    tiered = Tiered(stores["fast"], stores["slow"])

    def lose() -> None:
        tiered.flush()  # or the slow tier might have nothing yet, and the run could not go on
        setattr(lost, how, True)

    kernel = Losing(lose, lambda: setattr(lost, how, False))
    run(kernel, tiered, 100, save=every(steps=10), delta=delta, on_event=reported.append)
    assert same(kernel.total, after(100).total)
    assert [type(e) for e in reported if isinstance(e, TierLost | TierBack)] == [TierLost, TierBack]
    for store in stores.values():
        assert steps(store)[-1] == 100
        for entry in entries(store):
            verify(store, entry.name)


def test_a_kernel_that_fails_leaves_its_last_checkpoint_in_both() -> None:
    class Failing(Counter):
        def advance(self, steps: int) -> None:
            super().advance(steps)
            if self.step >= 30:
                raise RuntimeError("illegal memory access")

    fast, slow = MemoryStore(), MemoryStore()
    with pytest.raises(RuntimeError):
        run(Failing(), Tiered(fast, slow), 100, save=every(steps=10))
    assert steps(fast)[-1] == steps(slow)[-1] == 20


@pytest.mark.parametrize("grace", [None, 0.5])
def test_a_preempted_run_waits_as_long_as_its_grace_time(grace: float | None) -> None:
    gate, reported = threading.Event(), list[Any]()
    slow = FaultyStore(MemoryStore(), "delay", "create", wait=gate.wait)
    if grace is None:
        gate.set()
    with pytest.raises(Preempted):
        run(Signalled(), Tiered(MemoryStore(), slow), 10**6, grace=grace, on_event=reported.append)
    copied = [type(e) for e in reported if isinstance(e, Copied | Stopped)]
    assert copied == ([Copied, Stopped] if grace is None else [Stopped])
    gate.set()


def test_a_checkpointer_that_is_closed_has_it_in_both() -> None:
    slow = MemoryStore()

    async def work() -> None:
        async with Checkpointer(after(3), Tiered(MemoryStore(), slow)) as checkpointer:
            await checkpointer.save()

    asyncio.run(work())
    assert steps(slow) == [3]


def test_prometheus_has_the_newest_that_is_in_the_slow_tier() -> None:
    client = pytest.importorskip("prometheus_client")
    registry, slow = client.CollectorRegistry(), Switched()
    tiered = Tiered(MemoryStore(), slow)

    def lose() -> None:
        assert tiered.flush()
        slow.full = True

    export = prometheus(registry)
    run(Losing(lose, lambda: None), tiered, 50, save=every(steps=10), on_event=export)
    size = sum(entry.size for entry in entries(slow))
    assert registry.get_sample_value("checkpointable_copied_step") == steps(slow)[-1]
    assert registry.get_sample_value("checkpointable_copied_bytes_total") == size
    assert registry.get_sample_value("checkpointable_tier_lost", {"address": repr(slow)}) == 1
    assert registry.get_sample_value("checkpointable_step") == 50


def test_no_thread_is_left_over() -> None:
    run(Counter(), Tiered(MemoryStore(), MemoryStore()), 50, save=every(steps=10))
    full = Switched()
    full.full = True
    run(Counter(), Tiered(MemoryStore(), full), 50, save=every(steps=10))
    assert "checkpointable-copy" not in [thread.name for thread in threading.enumerate()]


# --- the command line ----------------------------------------------------------------------------


def test_the_command_line_copies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fast, slow = str(tmp_path / "fast"), str(tmp_path / "slow")
    command = ["run", "tests.runner.test_delta_runs:Sweep", "--store", fast, "--every", "10"]
    command += ["--copy-to", slow, "--copy-keep", "2"]
    assert main([*command, "--until", "20"]) == 0
    assert "copied step 20: " in capsys.readouterr().out
    assert steps(LocalStore(slow)) == [10, 20]
    shutil.rmtree(fast)
    Path(fast).touch()  # no directory can be there
    assert main([*command, "--json"]) == 0
    reported = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["event"] for one in reported if "Tier" in one["event"]] == ["TierLost"]
    assert [one["step"] for one in reported if one["event"] == "Restored"] == [20]
    assert steps(LocalStore(slow)) == [30, 40]


def test_copy_keep_alone_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "wave", "--copy-keep", "2"]) == 64
    assert "--copy-to" in capsys.readouterr().err


# --- kill -9 -------------------------------------------------------------------------------------

ENDLESS = """
import sys
from checkpointable import Tiered, every, last, run
from tests.helpers.kernels import Counter

run(Counter(50_000), Tiered(sys.argv[1], sys.argv[2], keep=last(2)), until=10**12,
    save=every(steps=5), delta=True,
    on_event=lambda event: print(type(event).__name__, getattr(event, "step", 0), flush=True))
"""


def test_killed_and_bereft_of_its_fast_tier_it_goes_on(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    chance, reached = random.Random(seed), 0
    fast, slow = tmp_path / "fast", tmp_path / "slow"
    for turn in range(8):
        command = [sys.executable, "-c", ENDLESS, str(fast), str(slow)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            first = int(process.stdout.readline().split()[1])
            assert first >= reached, f"seed {seed}"
            wanted = chance.randrange(1, 30)
            copied = 0
            for line in process.stdout:
                kind, step = line.split()
                copied = int(step) if kind == "Copied" else copied
                wanted -= 1
                if wanted <= 0 and copied:
                    break
            process.send_signal(signal.SIGKILL)
        for entry in entries(LocalStore(slow)):
            verify(LocalStore(slow), entry.name)
        reached = copied
        if turn % 2:
            shutil.rmtree(fast)
    kernel, until = Counter(50_000), reached + 100
    report = run(kernel, Tiered(fast, slow, keep=last(2)), until, delta=True)
    assert report.first_step >= reached, f"seed {seed}"
    assert same(kernel.total, after(until, 50_000).total)
    assert steps(LocalStore(fast))[-1] == steps(LocalStore(slow))[-1] == until
