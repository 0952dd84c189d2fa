"""`checkpointable diff`."""

import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointable import save_file
from checkpointable.cli.view.compare import compare_array, tree_changes
from checkpointable.files import opened_file
from tests.cli.common import BLOCK, Cli, Result, damage, save, shot


def test_diff_names_the_file_that_is_damaged(cli: Cli) -> None:
    for name, value in (("one", 1.0), ("two", 2.0)):
        save_file(shot(1, np.full(3, value)), name)
    damage(Path("two"))
    shown = cli("diff", "one", "two")
    assert shown.code == 1
    assert "  where: two: array 'field', block 0 of 1\n" in shown.err


def test_diff_of_equal_ones_is_none(cli: Cli) -> None:
    for name in ("a", "b"):
        save_file(shot(1), name)
    assert cli("diff", "a", "b") == Result(0, "1 array: no difference\n", "")
    assert cli("diff", "a", "b", "--json").events[-1]["differ"] is False


FLOATS = st.lists(st.floats(width=32), min_size=1, max_size=60)


@given(FLOATS, st.data())
def test_diff_finds_what_numpy_finds(
    tmp_path: Path, values: list[float], data: st.DataObject
) -> None:
    old = np.array(values, np.float32)
    new = old.copy()
    for index in data.draw(st.lists(st.integers(0, len(values) - 1), max_size=5)):
        new[index] = data.draw(st.floats(width=32))
    for name, array in (("a", old), ("b", new)):
        (tmp_path / name).unlink(missing_ok=True)
        save_file(shot(1, array), tmp_path / name)
    with opened_file(tmp_path / "a") as a, opened_file(tmp_path / "b") as b:
        result = compare_array(a, b, "field")
    differs = old.view(np.uint32) != new.view(np.uint32)
    assert result.changed_elements == np.count_nonzero(differs)
    assert result.first == ((int(np.argmax(differs)),) if differs.any() else None)
    assert result.new_nans == np.count_nonzero(np.isnan(new) & ~np.isnan(old))
    numbers = ~(np.isnan(old) | np.isnan(new)) & (old != new)
    x, y = old[numbers].astype(np.float64), new[numbers].astype(np.float64)
    assert float(result.max or 0) == pytest.approx(np.abs(y - x).max(initial=0))
    rms = math.sqrt(np.square(y - x).sum() / len(old))
    assert float(result.rms or 0) == pytest.approx(rms)


def test_diff_reads_only_blocks_that_differ(cli: Cli) -> None:
    field = np.zeros(4 * BLOCK // 8)
    save_file(shot(1, field), "a")
    field[2 * BLOCK // 8 + 5] = 3
    save_file(shot(1, field), "b")
    damage(Path("a"))  # in the first block
    (array,) = (e for e in cli("diff", "a", "b", "--json").events if e["event"] == "array")
    assert (array["blocks"], array["changed_blocks"], array["changed_elements"]) == (4, 1, 1)
    assert (array["first"], array["max"]) == ([2 * BLOCK // 8 + 5], 3.0)
    assert array["rms"] == pytest.approx(3 / math.sqrt(len(field)))
    assert cli("diff", "a", "b").out == (
        "field: 1 of 524288 elements (0.00%) in 1 of 4 blocks (25.00%)\n"
        "  first at [262149]\n  max 3, rms 0.0041432\n"
    )


def test_diff_tells_an_element_across_blocks_once(cli: Cli) -> None:
    field = np.zeros(BLOCK // 4, [("a", "u4"), ("b", "u4"), ("c", "u4")])  # 12 bytes: 3 blocks
    save_file(shot(1, field), "a")
    across = BLOCK // 12
    field[across] = (1, 1, 1)
    save_file(shot(1, field), "b")
    (array,) = (e for e in cli("diff", "a", "b", "--json").events if e["event"] == "array")
    assert (array["changed_elements"], array["first"]) == (1, [across])
    assert (array["changed_blocks"], array["max"]) == (2, None)


def test_diff_of_two_steps_says_what_changed(cli: Cli) -> None:
    save(1, np.zeros((3, 2)), energy=1.5)
    save(2, np.array([[0, 0], [0, np.nan], [0, -0.0]]), energy=2.5, label="\x1b[2J")
    shown = cli("diff", "run", 1, 2)
    assert shown == Result(
        1,
        "step: 1 -> 2\nenergy: 1.5 -> 2.5\nlabel: 'x' -> '\\x1b[2J'\n"
        "field: 2 of 6 elements (33.33%) in 1 of 1 block (100.00%)\n"
        "  first at [1, 1]\n  max 0, rms 0\n  1 became NaN\n",
        "",
    )


def test_diff_says_which_arrays_are_of_another_kind(cli: Cli) -> None:
    save_file(shot(1, np.zeros(3)), "a")
    save_file(shot(1, np.zeros((3, 1), np.float32)), "b")
    shown = cli("diff", "a", "b")
    assert (shown.code, shown.out) == (
        1,
        "field: array[float64] (3,) -> array[float32] (3,1)\n",
    )


def test_diff_compares_a_signed_one_by_its_data(cli: Cli) -> None:
    save_file(shot(1), "a")
    save_file(shot(1), "b", key=b"k" * 16)
    save_file(shot(1, np.ones(4)), "c", key=b"k" * 16)
    assert cli("diff", "a", "b").code == 0
    assert cli("diff", "a", "c").out.startswith("field: 4 of 4 elements")


def test_diff_takes_memory_for_some_blocks(cli: Cli) -> None:
    for name in ("a", "b"):
        field = np.random.default_rng(ord(name)).normal(size=24 * BLOCK // 8)
        save_file(shot(1, field), name)
    del field
    tracemalloc.start()
    try:
        assert cli("diff", "a", "b").code == 1
        assert tracemalloc.get_traced_memory()[1] < 20 * BLOCK
    finally:
        tracemalloc.stop()


def test_a_nan_of_other_bits_is_no_new_one(cli: Cli) -> None:
    bits = np.array([0x7FF8000000000000, 0x7FF8000000000001, 0], np.uint64)
    save_file(shot(1, bits[[0, 2]].view(np.float64)), "a")
    save_file(shot(1, bits[[1, 0]].view(np.float64)), "b")
    (array,) = (e for e in cli("diff", "a", "b", "--json").events if e["event"] == "array")
    assert (array["changed_elements"], array["new_nans"]) == (2, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run run", "run is a directory: give it first, and two steps of it"),
        ("run one 2", "'one' is not a step"),
    ],
)
def test_diff_refuses_words_that_do_not_go_together(cli: Cli, words: str, message: str) -> None:
    save(1)
    shown = cli("diff", *words.split())
    assert shown.code == 64
    assert message in shown.err


def test_diff_of_a_step_that_is_not_there(cli: Cli) -> None:
    save(1)
    shown = cli("diff", "run", 1, 7)
    assert shown.code == 1
    assert shown.err.startswith("error: there is no checkpoint of step 7\n  where: run\n  hint: ")


json_trees = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
)


@given(json_trees, json_trees)
def test_trees_differ_where_they_are_not_equal(old: Any, new: Any) -> None:
    assert bool([*tree_changes(old, new)]) == (orjson.dumps(old) != orjson.dumps(new))
