"""`checkpointable bisect`, and its expressions."""

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from checkpointable import archive
from checkpointable.cli._shared import usage_error
from checkpointable.cli.bisect import _first
from checkpointable.cli.view.expression import FUNCTIONS, parse_expression
from checkpointable.errors import NoCheckpoint
from tests.cli.common import Cli, damage, save

TREE = {
    "step": 3,
    "energy": 2.5,
    "low": {"$float": "-inf"},
    "setup": {"sizes": [4, 5], "names": {"$dict": [["a b", 7]]}},
    "text": "hello",
    "field": {"$array": "field"},
    "states": {"$array": "states"},
}


STATES = np.array([(1, 0.5), (2, -1.5)], [("s", "u1"), ("t", "f4")])


ARRAYS = {"field": np.array([[1.0, -2.0], [np.nan, 4.0]]), "states": STATES}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("isnan(field)", True),
        ("isinf(field)", False),
        ("isinf(low)", True),
        ("energy > 3", False),
        ("max(abs(field)) == 4", True),
        ("min(field) == -2 and mean(field) == 1 and sum(field) == 3", True),
        ("std(states.t) == 1", True),
        ("2 < energy < 3", True),
        ("0 < field < 2", True),
        ("4 < field < 2", False),
        ("not field > 100", True),
        ("field", True),
        ("all(field > -3)", False),
        ("any(field > 3)", True),
        ("len(field) == 2 and len(setup.sizes) == 2", True),
        ("setup.sizes[1] == 5 and setup.sizes[-1] == 5", True),
        ("setup.names['a b'] == 7", True),
        ("field[1, 1] == 4 and field[0][1] == -2 and sum(field[:, 1]) == 2", True),
        ("states.s[1] * 200 == 400", True),
        ("states[1].t == -1.5", True),
        ("step / 0 > 1e308", True),
        ("9**9**9**9 > 1", True),
        ("step % 2 == 1 or nothing > 1", True),
    ],
)
def test_an_expression_holds(text: str, expected: bool) -> None:
    assert parse_expression(text).holds(TREE, ARRAYS.__getitem__) is expected


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')", "field.__class__.__mro__", "(1).real", "'a'", "[1]", "{1: 2}",
        "lambda: 1", "f'{step}'", "abs(field, 1)", "abs(x=1)", "abs(*field)", "abs", "open('x')",
        "field.sum()",
        "[x for x in field]", "step if energy else 1", "step := 1", "step in field", "step is 1",
        "step @ field", "step << 9", "~step", "field[step]", "field[abs(1)]", "text", "text > 1",
        "nothing", "setup.nothing", "setup", "field.nothing", "states", "states.nothing > 1",
        "field[9]", "setup.sizes[2]", "(abs)(1)(2)", "1 if", "",
        "-" * 3000 + "1", "(" * 500 + ")" * 500,
        "1j", "None", "step\0", "field > field[0, :1, 0]", "9" * 400 + " * 1.5 > 1", "await step",
    ],
)  # fmt: skip
def test_what_is_no_expression_of_ours_is_wrong_usage(text: str) -> None:
    if text == "abs":  # a name like another, which is not there
        text = "abs > 1"
    with pytest.raises(usage_error):
        parse_expression(text).holds(TREE, ARRAYS.__getitem__)


words = st.sampled_from(
    ["step", "energy", "field", "states", "setup", "text", ".", "s", "[0]", "['x']", "(", ")",
     "1", "1e9", "+", "-", "*", "**", "/", "//", "%", "<", "==", "and", "or", "not", ",", ":",
     "__class__", *FUNCTIONS]
)  # fmt: skip


@example("states[0]")
@given(st.lists(words, max_size=12).map(" ".join) | st.text(max_size=30))
def test_no_text_does_anything_but_hold_or_not(text: str) -> None:
    with suppress(usage_error):
        assert parse_expression(text).holds(TREE, ARRAYS.__getitem__) in (True, False)


OPERATORS = ["+", "-", "*", "<", "<=", ">", ">=", "==", "!="]


numbers = (st.integers(-9, 9).map(str) | st.sampled_from(["a", "b"])).map(lambda n: (n, n))


def joined(parts: tuple[tuple[str, str], str, tuple[str, str]]) -> tuple[str, str]:
    (x, in_python), op, (y, other) = parts
    python = f"({in_python} {op} {other})"
    return f"({x} {op} {y})", f"bool{python}" if op in ("and", "or") else python


arithmetic = st.recursive(
    numbers,
    lambda inner: (
        st.tuples(inner, st.sampled_from([*OPERATORS, "and", "or"]), inner).map(joined)
        | inner.map(lambda texts: (f"(not {texts[0]})", f"(not {texts[1]})"))
        | inner.map(lambda texts: (f"abs({texts[0]})", f"abs({texts[1]})"))
    ),
    max_leaves=8,
)


@example(("abs(not a) - abs(not b)",) * 2, 0, 0)
@example(("-(+abs(not a))",) * 2, 0, 0)
@given(arithmetic, st.integers(-9, 9), st.integers(-9, 9))
def test_numbers_hold_as_in_python(texts: tuple[str, str], a: int, b: int) -> None:
    result = parse_expression(texts[0]).holds({"a": a, "b": b}, ARRAYS.__getitem__)
    assert result == bool(eval(texts[1], {}, {"a": a, "b": b}))


@given(st.integers(1, 40), st.data())
def test_bisect_finds_the_first(count: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, count))
    bad = data.draw(st.sets(st.integers(0, count - 1)))
    store = archive_of(count)
    sound = [i for i in range(count) if i not in bad]
    asked: list[int] = []

    def holds(entry: archive.Entry) -> bool:
        if entry.step in bad:
            raise NoCheckpoint("gone")
        asked.append(entry.step)
        return entry.step >= first

    if not sound:
        with pytest.raises(NoCheckpoint):
            _first(store, "run", holds, as_json=True)
        return
    result, before = _first(store, "run", holds, as_json=True)
    after = [i for i in sound if i >= first]
    assert (result.step if result else None) == (after[0] if after else None)
    if result is not None:
        assert (before.step if before else None) == max(
            [i for i in sound if i < first], default=None
        )
    assert len(asked) <= 2 + math.log2(count)


def archive_of(count: int) -> Any:
    from checkpointable.stores.protocol import Entry

    class Listed:
        def list(self) -> list[Entry]:
            return [Entry(archive.name_of(i), 0, 0.0) for i in range(count)]

    return Listed()


def test_bisect_says_how_to_run_again(cli: Cli) -> None:
    for step in range(1, 9):
        save(step, np.array([1.0, np.nan if step >= 6 else 2.0]), where="my run")
    reported = cli("bisect", "my run", "isnan(field)")
    assert reported.code == 0
    assert reported.out.splitlines()[-3:] == [
        f"first in step 6 ({archive.name_of(6)}), and not in step 5 before it",
        "to run again from there, with the options it had:",
        "  checkpointable fork 'my run' 5 'my run-from-5' && "
        "checkpointable run NAME --store 'my run-from-5' --until 6",
    ]
    result = cli("bisect", "my run", "isnan(field)", "--json").events[-1]
    assert (result["step"], result["before"]) == (6, archive.name_of(5))
    assert result["command"].startswith("checkpointable fork 'my run' 5 'my run-from-5' && ")


def test_bisect_of_what_never_holds(cli: Cli) -> None:
    for step in (1, 2):
        save(step)
    reported = cli("bisect", "run", "isnan(field)")
    assert reported.code == 1
    assert reported.out == "step 2: does not hold\nin none of the checkpoints: isnan(field)\n"


def test_bisect_passes_over_a_damaged_one(cli: Cli) -> None:
    names = [save(step, energy=step) for step in range(1, 6)]
    damage(Path("run") / names[3], 200)
    reported = cli("bisect", "run", "energy >= 3")
    assert f"first in step 3 ({names[2]}), and not in step 2" in reported.out
    assert f"warning: passed over {names[3]}: " in cli("bisect", "run", "energy >= 5").err


def test_bisect_of_an_absent_field_says_what_is_there(cli: Cli) -> None:
    save(1)
    reported = cli("bisect", "run", "temperature > 3")
    assert reported.code == 64
    assert "temperature does not exist; there is step, energy, label, field" in reported.err
