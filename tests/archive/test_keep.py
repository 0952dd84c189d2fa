"""What to keep: pure functions of a store, of which nothing leaves one with nothing to resume."""

import itertools
import math
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointable import (
    Array,
    InvalidCheckpoint,
    LocalStore,
    MemoryStore,
    StoreError,
    archive,
    best,
    every_nth,
    last,
    load_file,
    run,
    spread,
    within,
)
from checkpointable.archive import entries, newest_valid, verify
from checkpointable.archive.keep import Keep, KeptStep, chosen, number_at
from checkpointable.archive.prune import prune
from checkpointable.cli import main
from checkpointable.tree.tree import to_tree
from tests.archive.test_archive import damage
from tests.helpers.kernels import Counter, after
from tests.runner.test_when import whens


@frozen
class Scored:
    loss: float


counts = st.integers(1, 6)
simple: st.SearchStrategy[Keep] = st.one_of(
    st.builds(last, counts),
    st.builds(every_nth, st.integers(1, 30)),
    st.builds(spread, counts),
    st.builds(lambda hours: within(hours=hours), st.floats(0.001, 10)),
    st.builds(lambda n, largest: best("loss", n, largest=largest), counts, st.booleans()),
)
keeps = st.recursive(
    simple, lambda inner: st.builds(lambda one, other: one | other, inner, inner), max_leaves=4
)


def of(loss: float) -> Callable[[], Any]:
    """The tree of a checkpoint with this loss, as it is stored."""
    return lambda: to_tree(Scored(loss), Scored)[0]


histories = st.lists(
    st.tuples(st.integers(0, 200), st.floats(0, 20_000), st.floats()),
    unique_by=lambda pairs: pairs[0],
    min_size=1,
).map(lambda pairs: [KeptStep(step, created, of(loss)) for step, created, loss in sorted(pairs)])


@given(keeps, histories, st.data())
def test_what_is_kept_is_kept_again_whatever_else_is_gone(
    keep: Keep, past: list[KeptStep], data: st.DataObject
) -> None:
    """So a run that is started again keeps the same, and pruning twice is pruning once."""
    kept = chosen(keep, past) | {past[-1].step}
    others = [one.step for one in past if one.step not in kept]
    left = set(data.draw(st.lists(st.sampled_from(others)))) if others else set()
    assert chosen(keep, [one for one in past if one.step in kept | left]) | {past[-1].step} == kept


@given(keeps, keeps, histories)
def test_or_keeps_what_either_does(one: Keep, other: Keep, past: list[KeptStep]) -> None:
    assert chosen(one | other, past) == chosen(one, past) | chosen(other, past)


@given(keeps)
def test_a_policy_can_be_sent_to_another_process(keep: Keep) -> None:
    assert pickle.loads(pickle.dumps(keep)) == keep


def test_a_policy_prints_as_the_call_that_makes_it() -> None:
    keep = last(3) | every_nth(10) | spread(4) | within(hours=2) | best("a.b", 2, largest=True)
    text = "last(3) | every_nth(10) | spread(4) | within(hours=2) | best('a.b', 2, largest=True)"
    assert repr(keep) == text
    assert repr(best("loss")) == "best('loss', 1)"


@given(counts, histories)
def test_last_and_best_and_spread_keep_no_more_than_asked(n: int, past: list[KeptStep]) -> None:
    for keep in (last(n), best("loss", n), spread(n)):
        assert len(chosen(keep, past)) <= n


@given(st.integers(20, 3000), st.integers(1, 50), st.integers(4, 10))
def test_spread_has_one_of_about_each_age(saves: int, apart: int, n: int) -> None:
    """Pruned after each save, as a run does: each is about half as old as the one before, at least.

    Down to an age that is halved as often as there are pairs to spend.
    """
    steps: list[int] = []
    for i in range(saves):
        steps = spread(n)([*steps, i * apart])
    ages = [steps[-1] - step for step in steps]
    assert ages[0] == (saves - 1) * apart
    finest = ages[0] / 2 ** ((n - 2) // 2)
    for older, newer in itertools.pairwise(ages):
        assert newer >= older / 3 or older <= 3 * max(finest, apart)


def test_within_goes_by_the_newest_not_by_the_clock() -> None:
    past = [KeptStep(step, created=1000.0 * step) for step in range(10)]
    assert within(hours=0.5)(past) == [8, 9]


@pytest.mark.parametrize(
    ("losses", "largest", "kept"),
    [
        ([3.0, 1.0, 2.0, 4.0], False, [1, 2]),
        ([3.0, 1.0, 2.0, 4.0], True, [0, 3]),
        ([1.0, 1.0, 1.0], False, [1, 2]),
        ([math.nan, 5.0, math.nan, 6.0], True, [1, 3]),
        ([math.inf, -math.inf, 0.0], False, [1, 2]),
    ],
)
def test_best_goes_by_the_number(losses: list[float], largest: bool, kept: list[int]) -> None:
    past = [KeptStep(step, tree=of(loss)) for step, loss in enumerate(losses)]
    assert best("loss", 2, largest=largest)(past) == kept


@pytest.mark.parametrize(
    ("tree", "path", "number"),
    [
        ({"loss": 2}, "loss", 2.0),
        ({"a": [{"b": 1.5}]}, "a.0.b", 1.5),
        ({"a": {"$tuple": [1, 2]}}, "a.1", 2.0),
        ({"loss": True}, "loss", None),
        ({"loss": "2"}, "loss", None),
        ({"loss": None}, "loss", None),
        ({"loss": {"$array": "loss"}}, "loss", None),
        ({"loss": {"$decimal": "0.5"}}, "loss", 0.5),
        ({"loss": {"$bytes": "MQ=="}}, "loss", None),
        ({"a": [1]}, "a.1", None),
        ({"a": [1]}, "a.-1", None),
        ({}, "loss", None),
        (None, "loss", None),
    ],
)
def test_a_number_in_a_tree(tree: Any, path: str, number: float | None) -> None:
    assert number_at(tree, path) == number


def test_a_path_that_nothing_has_is_no_reason_to_delete() -> None:
    store = MemoryStore()
    for step in (1, 2, 3):
        save(store, step)
    with pytest.raises(InvalidCheckpoint, match="no checkpoint has a number at 'lost'"):
        prune(store, best("lost"))
    assert [e.step for e in entries(store)] == [1, 2, 3]


@pytest.mark.parametrize(
    "make",
    [
        lambda: last(0),
        lambda: spread(0),
        lambda: every_nth(0),
        lambda: best("loss", 0),
        lambda: best(""),
        lambda: within(hours=0),
    ],
)
def test_what_makes_no_policy_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        make()


# --- in a store ----------------------------------------------------------------------------------


@frozen
class TrainCheckpoint:
    step: int
    loss: float
    weights: Array[np.float64]


def save(store: Any, step: int, base: str | None = None) -> str:
    loss = float(step * 7 % 11)
    return archive.save(store, TrainCheckpoint(step, loss, np.ones(4)), step, base=base).name


def test_best_is_read_from_the_headers() -> None:
    store = MemoryStore()
    for step in range(1, 8):  # losses 7, 3, 10, 6, 2, 9, 5
        save(store, step)
    prune(store, best("loss", 2))
    assert [e.step for e in entries(store)] == [2, 5, 7]  # and the newest


class Dying(MemoryStore):
    """It dies at a deletion: of so many as are left."""

    left = 10**9

    def delete(self, name: str, /) -> None:
        if not self.left:
            raise StoreError("the process was killed")
        self.left -= 1
        super().delete(name)


@given(
    keeps,
    st.lists(
        st.tuples(
            st.sampled_from(["save", "delta", "damage", "prune", "die", "pair", "older"]),
            st.integers(0, 20),
        ),
        max_size=15,
    ),
)
def test_nothing_that_happens_leaves_nothing_to_resume_from(
    keep: Keep, happens: list[tuple[str, int]]
) -> None:
    store, step, newest = Dying(), 1, ""
    newest = save(store, step)
    for what, number in happens:
        sound = None
        if what in ("save", "delta", "pair"):
            step += number
            for _ in range(1 + (what == "pair")):
                newest = sound = save(store, step, newest if what == "delta" else None)
        elif what == "damage":
            damage(store, entries(store)[-1].name)
            result, _ = newest_valid(store, lambda name: verify(store, name))
            if result is None:  # that was all there was, which no policy can help
                return
        elif what == "older":  # a restart fell back to an earlier step, and goes on from there
            step = max(step - number, 0)
        elif what == "die":
            store.left = number % 4
        before, _ = newest_valid(store, lambda name: verify(store, name))
        with suppress(StoreError):
            prune(store, keep, valid=sound)
        store.left = 10**9
        result, _ = newest_valid(store, lambda name: verify(store, name))
        assert result is not None
        assert before is not None
        assert result[1] == before[1]


class Killed(Exception):
    pass


class Mortal(Counter):
    """Dies after so many steps."""

    def __init__(self, life: int) -> None:
        super().__init__()
        self.life = life

    def advance(self, steps: int) -> None:
        super().advance(steps)
        self.life -= steps
        if self.life < 0:
            raise Killed


@given(whens, keeps.filter(lambda keep: "best(" not in repr(keep)), st.data())
@settings(max_examples=50)
def test_no_policy_of_a_run_loses_what_was_saved(when: Any, keep: Keep, data: Any) -> None:
    store, reached, kernel = MemoryStore(), 0, Mortal(0)
    for life in [*data.draw(st.lists(st.integers(0, 60), max_size=4)), 10**9]:
        kernel = Mortal(life)
        try:
            run(kernel, store, 120, save=when, keep=keep)
        except Killed:
            saved = entries(store)[-1].step if entries(store) else 0
            assert saved >= reached
            reached = saved
    assert entries(store)[-1].step == 120
    assert kernel.total.tolist() == after(120).total.tolist()


# --- on the command line -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("2", [6, 7]),
        ("last:2", [6, 7]),
        ("nth:4", [1, 4, 7]),
        ("spread:3", [1, 4, 7]),
        ("best:loss:2", [2, 5, 7]),
        ("best:loss:1:max", [3, 7]),
        ("within:1d", [1, 2, 3, 4, 5, 6, 7]),
        ("last:1,best:loss:1", [5, 7]),
    ],
)
def test_prune_takes_policies(text: str, kept: list[int], tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for step in range(1, 8):
        save(store, step)
    assert main(["prune", str(tmp_path), "--keep", text]) == 0
    assert [e.step for e in entries(store)] == kept
    assert load_file(tmp_path / entries(store)[-1].name, TrainCheckpoint).step == 7


@pytest.mark.parametrize("text", ["0", "", "last", "last:0", "best:loss", "within:3", "some:3"])
def test_what_is_no_policy_is_wrong_usage(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prune", str(tmp_path), "--keep", text]) == 64
    assert "--keep" in capsys.readouterr().err
