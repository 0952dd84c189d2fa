"""When to save: what each policy promises, in simulated runs with a simulated clock."""

import itertools
import pickle
import signal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import checkpointable
from checkpointable import (
    Due,
    Moment,
    When,
    at,
    continuously,
    every,
    on_signal,
    overhead,
    young_daly,
)
from checkpointable.events import Saved, Skipped
from checkpointable.runner.when import optimum_interval
from tests.helpers.simulated_run import World

shares = st.floats(0.001, 0.5)
simple: st.SearchStrategy[When] = st.one_of(
    st.builds(lambda n: every(steps=n), st.integers(1, 50)),
    st.builds(lambda s: every(seconds=s), st.floats(0.001, 10)),
    st.builds(at, st.lists(st.integers(0, 100))),
    st.builds(lambda share: overhead(max=share), shares),
    st.builds(lambda mtbf, share: young_daly(mtbf=mtbf, max=share), st.floats(1, 1e6), shares),
    st.just(continuously()),
    st.just(on_signal(signal.SIGUSR2)),
)
whens = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.builds(lambda one, other: one | other, inner, inner),
        st.builds(lambda one, other: one & other, inner, inner),
    ),
    max_leaves=4,
)
moments = st.builds(
    lambda saved, more, since, rest, cost, signals: Moment(
        saved + more, saved, since, since + rest, rest / 100, cost, signals
    ),
    st.integers(0, 100),
    st.integers(0, 100),
    st.floats(0, 100),
    st.floats(0, 1000),
    st.none() | st.floats(0, 10),
    st.sampled_from([frozenset[int](), frozenset({signal.SIGUSR2})]),
)


@given(whens, whens, moments)
def test_or_is_due_if_either_is_and_and_if_both_are(one: When, other: When, now: Moment) -> None:
    assert (one | other).due(now) == max(one.due(now), other.due(now))
    assert (one & other).due(now) == min(one.due(now), other.due(now))


@given(whens, st.integers(0, 100))
def test_it_asks_for_a_step_that_is_to_come(when: When, step: int) -> None:
    wanted = when.next_step(step)
    assert wanted is None or wanted > step


@given(whens)
def test_a_policy_can_be_sent_to_another_process(when: When) -> None:
    assert pickle.loads(pickle.dumps(when)) == when


@given(whens)
def test_a_policy_prints_as_the_call_that_makes_it(when: When) -> None:
    again = eval(repr(when), {"signal": signal, **vars(checkpointable)})
    assert repr(again) == repr(when)


def test_a_policy_of_yours_combines_with_others() -> None:
    class Even(When):
        def due(self, moment: Moment) -> Due:
            return Due.SOON if moment.step % 2 == 0 else Due.NO

    even = Even()
    assert even != Even()
    assert (even & every(steps=3)).due(Moment(6, 5, 0.0)) is Due.SOON
    assert (even & every(steps=3)).next_step(4) == 6
    assert (even | every(steps=3)).due(Moment(5, 4, 0.0)) is Due.NO


@given(st.lists(st.integers(0, 100), max_size=5), st.integers(1, 20))
def test_a_run_saves_at_each_step_that_is_named(steps: list[int], multiple: int) -> None:
    world = World()
    world.run(100, at(steps) | every(steps=multiple))
    saved = [s.saved.step for s in world.durable]
    named = {step for step in steps if step > 0} | set(range(multiple, 101, multiple))
    assert saved == sorted(named | {100})


def test_continuously_begins_a_save_when_the_last_is_durable() -> None:
    world = World(step_seconds=0.01, full_takes=lambda: 2.0)
    world.run(10_000, continuously(), latency=0.4)
    begun = [s.durable_at - 2.0 for s in world.durable]
    apart = [after - before for before, after in itertools.pairwise(begun)]
    assert max(apart) <= 2.0 + 0.1 + 0.1 + 1e-6  # the save, the stall, and a slice


def test_a_save_that_is_put_off_is_told_once() -> None:
    world = World(full_takes=lambda: 5.0)
    world.run(2_000, every(seconds=3))
    reported = [type(e).__name__ for e in world.events if isinstance(e, Saved | Skipped)]
    assert "Skipped" in reported
    assert all(pair != ("Skipped", "Skipped") for pair in itertools.pairwise(reported))


def test_a_signal_has_it_saved_and_the_run_goes_on() -> None:
    world = World()
    when = on_signal(signal.SIGTERM)  # which would stop it, if no policy took it
    report = world.run(2_000, when, signal_at=5.0)
    assert report.step == 2_000
    (asked, _) = [s.saved.step for s in world.durable]
    assert 500 <= asked <= 500 + 25 + 1  # a slice later


@pytest.mark.parametrize(
    ("stall", "slowdown", "takes"), [(0.02, 0.0, 0.5), (0.5, 0.2, 3.0), (10.0, 0.1, 60.0)]
)
def test_overhead_holds_its_share(stall: float, slowdown: float, takes: float) -> None:
    chance = Random(7)
    world = World(0.02, stall, slowdown, lambda: takes * chance.uniform(0.7, 1.3))
    steps = 1_500_000
    world.run(steps, overhead(max=0.01))
    share = 1 - steps * 0.02 / world.clock.now
    assert 0.005 <= share <= 0.015


@settings(max_examples=25)
@given(st.floats(0.01, 20), st.floats(0, 0.6), st.floats(0.1, 60), st.floats(0.005, 0.1))
def test_overhead_is_not_exceeded_whatever_saving_costs(
    stall: float, slowdown: float, takes: float, share: float
) -> None:
    world = World(1.0, stall, slowdown, lambda: takes)
    world.run(30_000, overhead(max=share), latency=20.0)
    lost = world.clock.now - 30_000
    first_and_last = 2 * (stall + takes)
    assert lost <= share * world.clock.now * 1.1 + first_and_last


@given(st.floats(1e-3, 1e3), st.floats(1, 1e6))
def test_the_optimum_is_between_no_time_and_the_time_between_failures(
    cost: float, mtbf: float
) -> None:
    assert 0 < optimum_interval(cost, mtbf) <= mtbf * 1.0001


def lost(when: When, restore: float, seeds: int) -> float:
    """Seconds that a run of 20 h loses to saves of 5 s and to a failure each hour, on average."""
    total = 0.0
    for seed in range(seeds):
        world = World(1.0, 3.0, 0.2, lambda: 10.0, restore=restore)
        world.run_through_failures(72_000, when, 3600.0, seed)
        total += world.clock.now - 72_000
    return total / seeds


@pytest.mark.parametrize("restore", [10.0, 300.0])
def test_young_daly_loses_hardly_more_than_the_best_fixed_interval(restore: float) -> None:
    fixed = {
        seconds: lost(every(seconds=seconds), restore, 6)
        for seconds in (45, 90, 130, 180, 250, 350, 600)
    }
    result = lost(young_daly(mtbf=3600.0), restore, 6)
    assert result <= 1.1 * min(fixed.values()), fixed


def test_young_daly_keeps_to_its_cap() -> None:
    world = World(1.0, 5.0, 0.0, lambda: 1.0)
    world.run(20_000, young_daly(mtbf=60.0, max=0.02), latency=20.0)
    assert (world.clock.now - 20_000) / world.clock.now <= 0.022


@pytest.mark.parametrize(
    "make",
    [
        lambda: overhead(max=0),
        lambda: overhead(max=1),
        lambda: young_daly(mtbf=0),
        lambda: young_daly(mtbf=1, max=2),
        lambda: at([-1]),
        lambda: on_signal(),
        lambda: on_signal(-5),
        lambda: every(),
        lambda: every(steps=0),
        lambda: every(seconds=0),
    ],
)
def test_what_makes_no_policy_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=r"."):
        make()


def test_a_step_that_is_due_waits_for_the_save_before_and_a_time_does_not() -> None:
    assert every(steps=5).due(Moment(5, 0, 0.0)) is Due.NOW
    assert every(seconds=5).due(Moment(5, 0, 6.0)) is Due.SOON
