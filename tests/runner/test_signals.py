"""Preemption: a signal is heard at a safe point, and what fits into the time left is saved."""

import random
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointable import (
    EX_PREEMPTED,
    InvalidKernel,
    LocalStore,
    MemoryStore,
    Preempted,
    continuously,
    every,
    on_signal,
    run,
    safe_point,
)
from checkpointable.archive import entries, newest_valid, verify
from checkpointable.events import Event, Saved, Stopped, Stopping
from checkpointable.runner.costs import Costs, plan
from checkpointable.runner.when import When
from tests.helpers.kernels import Counter
from tests.helpers.simulated_run import World

GRACE = 30.0
FLIES: list[When] = [continuously(), every(seconds=20), every(seconds=7)]


def stopped(world: World) -> tuple[Stopping, Stopped]:
    (stopping,) = [e for e in world.events if isinstance(e, Stopping)]
    (ended,) = [e for e in world.events if isinstance(e, Stopped)]
    return stopping, ended


@settings(max_examples=200)
@given(
    moment=st.floats(60, 600),
    step_seconds=st.floats(1e-3, GRACE / 4),
    takes=st.floats(0.01, GRACE * 0.6),
    delta_takes=st.floats(0.01, 5),
    when=st.sampled_from(FLIES),
    latency=st.floats(0.1, 100),
    delta=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_it_ends_within_the_grace_time_with_its_state_saved(
    moment: float,
    step_seconds: float,
    takes: float,
    delta_takes: float,
    when: When,
    latency: float,
    delta: bool,
    seed: int,
) -> None:
    """At any moment, for slices of any length that leave time for what is in flight."""
    chance = Random(seed)
    world = World(
        step_seconds,
        stall=0.05,
        full_takes=lambda: takes * chance.uniform(0.85, 1),
        delta_takes=lambda: delta_takes * chance.uniform(0.85, 1),
    )
    world.run(10**9, when, delta=delta, signal_at=moment, grace=GRACE, latency=latency)
    assert world.clock.now - moment <= GRACE
    _, ended = stopped(world)
    newest = world.durable[-1]
    assert newest.done()
    assert (ended.step, ended.name) == (newest.saved.step, newest.saved.name)


def at_signal(takes: float, **options: float | bool) -> tuple[str, int, int]:
    """The plan, the step that is saved in the end, and that of the safe point."""
    world = World(1.0, 0.0, full_takes=lambda: takes)
    when = every(steps=int(options.pop("steps")))
    delta = bool(options.pop("delta", False))
    world.run(10**6, when, delta=delta, signal_at=205.5, grace=options.get("grace"))
    stopping, ended = stopped(world)
    return stopping.plan, ended.step, stopping.step


def test_a_full_save_is_made_if_it_fits() -> None:
    assert at_signal(8.0, grace=30.0, steps=50) == ("full", 206, 206)


def test_after_that_in_flight_if_both_fit() -> None:
    assert at_signal(10.0, grace=30.0, steps=50) == ("full", 206, 206)


def test_what_is_in_flight_is_flushed_if_no_more_fits() -> None:
    assert at_signal(15.0, grace=30.0, steps=50) == ("flush", 200, 206)


def test_a_delta_is_made_where_a_full_one_would_not_fit() -> None:
    assert at_signal(15.0, grace=10.0, steps=50, delta=True) == ("delta", 206, 206)


def test_a_full_one_that_is_due_gives_way_to_a_delta_that_fits() -> None:
    world = World(1.0, 0.0, full_takes=lambda: 15.0)
    world.run(
        10**6, every(steps=50), delta=True, full=every(steps=190), signal_at=380.5, grace=10.0
    )
    assert stopped(world)[0].plan == "delta"


def test_without_grace_it_takes_its_time() -> None:
    assert at_signal(45.0, steps=50)[0] == "full"


def test_nothing_is_begun_that_does_not_fit() -> None:
    assert at_signal(15.0, grace=10.0, steps=150) == ("none", 150, 206)


def test_the_wait_for_the_safe_point_is_part_of_the_grace_time() -> None:
    world = World(6.0, 0.0, full_takes=lambda: 6.0)
    world.run(10**6, every(steps=10), signal_at=205.5, grace=10.0)
    assert stopped(world)[0].plan == "none"  # of the 10 s, 5.5 are left, and a save may take 7.5


def test_slices_leave_most_of_the_grace_time() -> None:
    world = World(0.01)
    world.run(10**9, every(steps=10**8), signal_at=500.0, grace=8.0, latency=100.0)
    assert 500 <= stopped(world)[0].step * 0.01 <= 502


def test_the_first_save_is_tried_for_there_is_nothing_to_lose() -> None:
    assert at_signal(1000.0, grace=1.0, steps=10**5) == ("full", 206, 206)


@given(
    st.none() | st.floats(0, 100),
    st.dictionaries(st.sampled_from(["full", "delta"]), st.none() | st.floats(0, 100)),
    st.none() | st.floats(0, 100),
)
def test_a_plan_fits_or_is_the_flush(
    left: float | None, durations: dict[str, float | None], flush: float | None
) -> None:
    chosen = plan(left, durations, flush)
    if chosen in durations and left is not None:
        seconds = durations[chosen]
        assert flush is None if seconds is None else (flush or 0) + seconds <= left
    else:
        assert chosen in durations or chosen == ("none" if flush is None else "flush")


@given(st.floats(0.05, 0.9), st.floats(1, 20))
def test_the_slowdown_of_the_steps_is_measured(slowdown: float, takes: float) -> None:
    world = World(0.01, 0.1, slowdown, lambda: takes)
    world.run(20_000, every(steps=9_000))
    first = next(e for e in world.events if isinstance(e, Saved))
    assert first.slowdown == pytest.approx(slowdown, rel=0.1)


def test_what_is_not_known_is_none() -> None:
    costs = Costs()
    costs.slice_done(10, 1.0, overlapped=True)  # how fast without, nobody knows
    costs.save_done("full", seconds=1.0, stalled=0.1)
    assert costs.slowdown is None
    assert costs.predicted("delta") is None


def test_costs_can_only_be_costs() -> None:
    costs = Costs()
    costs.slice_done(10, 1.0, overlapped=False)
    costs.slice_done(50, 1.0, overlapped=True)  # the machine has become faster
    costs.save_done("full", seconds=1.0, stalled=0.1)
    assert (costs.slowdown, costs.cost) == (0.0, 0.1)


# --- in a real run -------------------------------------------------------------------------------


class Signalled(Counter):
    """Sends itself a signal at step 20, and asks at each step whether to return."""

    number = signal.SIGTERM
    asks = True

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            super().advance(1)
            if self.step == 20:
                signal.raise_signal(self.number)
            if self.asks and safe_point():
                return


def test_a_kernel_may_return_at_a_safe_point() -> None:
    store = MemoryStore()
    with pytest.raises(Preempted) as ended:
        run(Signalled(), store, 10**6, save=every(steps=1000), latency=1000.0)
    assert ended.value.report.step == entries(store)[-1].step == 20


def test_without_a_reason_it_may_not() -> None:
    class Early(Counter):
        def advance(self, steps: int) -> None:
            if not safe_point():
                super().advance(steps - 1)

    with pytest.raises(InvalidKernel, match=r"fewer only where safe_point\(\) has returned True"):
        run(Early(), MemoryStore(), 100)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_each_of_them_stops_it(number: signal.Signals) -> None:
    kernel, reported, before = Signalled(), list[Event](), signal.getsignal(number)
    kernel.number = number
    with pytest.raises(Preempted):
        run(kernel, MemoryStore(), 10**6, on_event=reported.append)
    (stopping,) = [e for e in reported if isinstance(e, Stopping)]
    assert stopping.signal == number
    assert signal.getsignal(number) is before


def test_which_do_is_for_the_caller_to_say() -> None:
    kernel = Signalled()
    kernel.number = signal.SIGUSR2
    with pytest.raises(Preempted):
        run(kernel, MemoryStore(), 10**6, signals=[signal.SIGUSR2])


def test_one_that_the_policy_takes_saves_and_goes_on() -> None:
    store, kernel = MemoryStore(), Signalled()
    kernel.number = signal.SIGUSR1
    report = run(kernel, store, 200, save=on_signal(signal.SIGUSR1))
    assert [saved.step for saved in report.saves] == [20, 200]


def test_a_run_that_ends_with_the_signal_has_ended() -> None:
    assert run(Signalled(), MemoryStore(), 20).step == 20


@pytest.mark.parametrize(("latency", "grace"), [(0.0, None), (1.0, 0.0), (1.0, -1.0)])
def test_no_time_at_all_is_refused(latency: float, grace: float | None) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        run(Counter(), MemoryStore(), 5, latency=latency, grace=grace)


WORKING = """
import sys, time
from checkpointable import continuously, run
from tests.helpers.kernels import Counter

class Working(Counter):
    def advance(self, steps):
        super().advance(steps)
        time.sleep(float(sys.argv[2]) * steps)
        if self.step > 5:
            print(flush=True)

run(Working(2_000_000), sys.argv[1], 10**12, save=continuously(), grace=60.0)
"""


def test_a_real_process_ends_before_it_is_killed(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    chance = Random(seed)
    for number, step_seconds in ((signal.SIGTERM, 0.001), (signal.SIGUSR1, 0.5)):
        store = tmp_path / number.name
        command = [sys.executable, "-c", WORKING, str(store), str(step_seconds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(1, 5)):  # at one moment or another
                process.stdout.readline()
            process.send_signal(number)
            process.stdout.read()
            assert process.wait(timeout=60) == EX_PREEMPTED, f"seed {seed}"
        place = LocalStore(store)
        result, skipped = newest_valid(place, partial(verify, place))
        assert result is not None
        assert not skipped
