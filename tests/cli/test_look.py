"""Looking at what was saved: ls, diff, replay, bisect, fork, and pictures in the terminal."""

import fcntl
import math
import os
import sys
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from checkpointable import Array, LocalStore, archive, load_file, save_file
from checkpointable.cli import main
from checkpointable.cli._shared import usage_error
from checkpointable.cli.bisect import _first
from checkpointable.cli.view.compare import compare_array, tree_changes
from checkpointable.cli.view.expression import FUNCTIONS, parse_expression
from checkpointable.cli.view.pictures import Picture, pictures, sketched
from checkpointable.cli.view.plot import plot
from checkpointable.errors import CheckpointExists, NoCheckpoint
from checkpointable.files import opened_file
from checkpointable.format import layout
from checkpointable.stores.local import copies

BLOCK = layout.BLOCK


@attrs.frozen
class Shot:
    step: int
    energy: float
    label: str
    field: Array[Any]


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.out.splitlines()]


class Cli:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: str | Path | int) -> Result:
        self.capsys.readouterr()
        code = main([*map(str, words)])
        out, err = self.capsys.readouterr()
        return Result(code, out, err)


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    return Cli(capsys)


def shot(step: int, field: Any = None, energy: float = 0.0, label: str = "x") -> Shot:
    return Shot(step, energy, label, np.zeros(4) if field is None else field)


def save(step: int, *args: Any, base: str | None = None, where: str = "run", **more: Any) -> str:
    return archive.save(LocalStore(where), shot(step, *args, **more), step, base=base).name


def damage(path: Path, offset: int = 4100) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


# --- ls ------------------------------------------------------------------------------------------


@pytest.fixture
def chain(cli: Cli) -> list[str]:
    """A full checkpoint of four blocks, and two deltas of one each, of 4 MiB in all."""
    field = np.zeros(4 * BLOCK, np.uint8)
    names = [save(10, field)]
    for step in (20, 30):
        field[step * BLOCK // 10 - BLOCK] = step
        names.append(save(step, field, base=names[-1]))
    return names


def test_ls_says_which_are_deltas(cli: Cli, chain: list[str]) -> None:
    lines = cli("ls", "run").out.splitlines()
    assert lines[0].split() == ["step", "kind", "size", "created", "(UTC)", "age", "name"]
    assert [line.split()[1] for line in lines[1:-1]] == ["full", "delta", "delta"]


def test_ls_long_says_what_is_their_own_and_the_seal(cli: Cli, chain: list[str]) -> None:
    events = cli("ls", "run", "--long", "--json").events
    assert [event["dirty"] for event in events] == [1.0, 0.25, 0.25]
    with archive.opened(LocalStore("run"), chain[1]) as opened:
        assert events[1]["seal"] == opened.seal.hex()
        assert f"25.0%  {opened.seal.hex()[:12]}  {chain[1]}" in cli("ls", "run", "--long").out


def test_ls_long_does_not_read_the_data(cli: Cli, chain: list[str]) -> None:
    damage(Path("run") / chain[2])
    assert cli("ls", "run", "--long").code == 0


def test_ls_check_finds_what_is_damaged(cli: Cli, chain: list[str]) -> None:
    assert cli("ls", "run", "--check").code == 0
    damage(Path("run") / chain[2])
    told = cli("ls", "run", "--check")
    assert told.code == 1
    lines = told.out.splitlines()
    assert lines[2].endswith(f"{chain[1]}  ok")
    assert f"{chain[2]}  damaged: the data is damaged (array 'field', block 2 of 4)" in lines[3]


# --- diff ----------------------------------------------------------------------------------------


def test_diff_names_the_file_that_is_damaged(cli: Cli) -> None:
    for name, value in (("one", 1.0), ("two", 2.0)):
        save_file(shot(1, np.full(3, value)), name)
    damage(Path("two"))
    told = cli("diff", "one", "two")
    assert told.code == 1
    assert "  where: two: array 'field', block 0 of 1\n" in told.err


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
        found = compare_array(a, b, "field")
    differs = old.view(np.uint32) != new.view(np.uint32)
    assert found.changed_elements == np.count_nonzero(differs)
    assert found.first == ((int(np.argmax(differs)),) if differs.any() else None)
    assert found.new_nans == np.count_nonzero(np.isnan(new) & ~np.isnan(old))
    numbers = ~(np.isnan(old) | np.isnan(new)) & (old != new)
    x, y = old[numbers].astype(np.float64), new[numbers].astype(np.float64)
    assert float(found.max or 0) == pytest.approx(np.abs(y - x).max(initial=0))
    rms = math.sqrt(np.square(y - x).sum() / len(old))
    assert float(found.rms or 0) == pytest.approx(rms)


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
    told = cli("diff", "run", 1, 2)
    assert told == Result(
        1,
        "step: 1 -> 2\nenergy: 1.5 -> 2.5\nlabel: 'x' -> '\\x1b[2J'\n"
        "field: 2 of 6 elements (33.33%) in 1 of 1 block (100.00%)\n"
        "  first at [1, 1]\n  max 0, rms 0\n  1 became NaN\n",
        "",
    )


def test_diff_says_which_arrays_are_of_another_kind(cli: Cli) -> None:
    save_file(shot(1, np.zeros(3)), "a")
    save_file(shot(1, np.zeros((3, 1), np.float32)), "b")
    told = cli("diff", "a", "b")
    assert (told.code, told.out) == (1, "field: array[float64] (3,) -> array[float32] (3,1)\n")


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
        ("run one 2", "'one' is no step"),
    ],
)
def test_diff_refuses_words_that_do_not_go_together(cli: Cli, words: str, message: str) -> None:
    save(1)
    told = cli("diff", *words.split())
    assert told.code == 64
    assert message in told.err


def test_diff_of_a_step_that_is_not_there(cli: Cli) -> None:
    save(1)
    told = cli("diff", "run", 1, 7)
    assert told.code == 1
    assert told.err.startswith("error: there is no checkpoint of step 7\n  where: run\n  hint: ")


json_trees = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
)


@given(json_trees, json_trees)
def test_trees_differ_where_they_are_not_equal(old: Any, new: Any) -> None:
    assert bool([*tree_changes(old, new)]) == (orjson.dumps(old) != orjson.dumps(new))


# --- bisect --------------------------------------------------------------------------------------

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
    said = f"({in_python} {op} {other})"
    return f"({x} {op} {y})", f"bool{said}" if op in ("and", "or") else said


arithmetic = st.recursive(
    numbers,
    lambda inner: (
        st.tuples(inner, st.sampled_from([*OPERATORS, "and", "or"]), inner).map(joined)
        | inner.map(lambda said: (f"(not {said[0]})", f"(not {said[1]})"))
        | inner.map(lambda said: (f"abs({said[0]})", f"abs({said[1]})"))
    ),
    max_leaves=8,
)


@example(("abs(not a) - abs(not b)",) * 2, 0, 0)
@example(("-(+abs(not a))",) * 2, 0, 0)
@given(arithmetic, st.integers(-9, 9), st.integers(-9, 9))
def test_numbers_hold_as_in_python(said: tuple[str, str], a: int, b: int) -> None:
    found = parse_expression(said[0]).holds({"a": a, "b": b}, ARRAYS.__getitem__)
    assert found == bool(eval(said[1], {}, {"a": a, "b": b}))


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
    found, before = _first(store, "run", holds, as_json=True)
    after = [i for i in sound if i >= first]
    assert (found.step if found else None) == (after[0] if after else None)
    if found is not None:
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
    told = cli("bisect", "my run", "isnan(field)")
    assert told.code == 0
    assert told.out.splitlines()[-3:] == [
        f"first in step 6 ({archive.name_of(6)}), and not in step 5 before it",
        "to run again from there, with the options it had:",
        "  checkpointable fork 'my run' 5 'my run-from-5' && "
        "checkpointable run NAME --store 'my run-from-5' --until 6",
    ]
    found = cli("bisect", "my run", "isnan(field)", "--json").events[-1]
    assert (found["step"], found["before"]) == (6, archive.name_of(5))
    assert found["command"].startswith("checkpointable fork 'my run' 5 'my run-from-5' && ")


def test_bisect_of_what_never_holds(cli: Cli) -> None:
    for step in (1, 2):
        save(step)
    told = cli("bisect", "run", "isnan(field)")
    assert told.code == 1
    assert told.out == "step 2: does not hold\nin none of the checkpoints: isnan(field)\n"


def test_bisect_passes_over_a_damaged_one(cli: Cli) -> None:
    names = [save(step, energy=step) for step in range(1, 6)]
    damage(Path("run") / names[3], 200)
    told = cli("bisect", "run", "energy >= 3")
    assert f"first in step 3 ({names[2]}), and not in step 2" in told.out
    assert f"warning: passed over {names[3]}: " in cli("bisect", "run", "energy >= 5").err


def test_bisect_of_an_absent_field_says_what_is_there(cli: Cli) -> None:
    save(1)
    told = cli("bisect", "run", "temperature > 3")
    assert told.code == 64
    assert "temperature is not there; there is step, energy, label, field" in told.err


# --- replay --------------------------------------------------------------------------------------

KERNEL = '''
import numpy as np
from attrs import frozen
from checkpointable import Array, capture, reinstate

@frozen
class WalkCheckpoint:
    step: int
    place: Array[np.float64]
    speed: Array[np.float64]

class Walk:
    """Walks.

    `gain`
        how fast it gets faster
    """
    def __init__(self, *, gain: float = 0.5, size: int = 3) -> None:
        self.step, self.gain = 0, gain
        self.place, self.speed = np.zeros(size), np.ones(size)
    def advance(self, steps: int) -> None:
        for _ in range(steps):
            self.place += self.speed
            self.speed[-1] += self.gain
            self.step += 1
    async def checkpoint(self) -> WalkCheckpoint:
        return await capture(WalkCheckpoint, self)
    async def restore(self, checkpoint: WalkCheckpoint) -> None:
        await reinstate(checkpoint, self)
'''


@pytest.fixture
def walked(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "walks.py").write_text(KERNEL)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "walks", raising=False)
    run = ("run", "walks:Walk", "--store", "run", "--until", "30", "--every", "10", "--keep", "9")
    assert cli(*run).code == 0
    return "run"


def test_replay_gives_the_same_bits(cli: Cli, walked: str) -> None:
    told = cli("replay", walked, "walks:Walk", "--from", 10, "--to", 30)
    assert told == Result(0, "the same, bit by bit: step 10 run to 30\n", "")
    assert len(archive.entries(LocalStore(walked))) == 3


def test_replay_names_the_first_array_that_differs(cli: Cli, walked: str) -> None:
    words = ("replay", walked, "walks:Walk", "--from", 10, "--to", 20)
    told = cli(*words, "--", "--gain", "0.25")
    assert told.code == 1
    assert told.out.splitlines() == [
        "place: differs, first at [2], in 1 block",
        "speed: differs, first at [2], in 1 block",
    ]
    event = cli(*words, "--json", "--", "--gain", "0.25").events[-1]
    assert (event["same"], event["arrays"][0]["name"]) == (False, "place")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("--from 20 --to 10", 64, "--to 10 is before --from 20"),
        ("--from 10 --to 25", 1, "there is no checkpoint of step 25"),
        ("--from 5 --to 20", 1, "there is no checkpoint of step 5"),
        ("--from 10 --to 20 -- --size 4", 78, "float64 of shape (3,)"),
    ],
)
def test_replay_refuses(cli: Cli, walked: str, words: str, code: int, message: str) -> None:
    told = cli("replay", walked, "walks:Walk", *words.split())
    assert told.code == code
    assert message in told.err


# --- fork ----------------------------------------------------------------------------------------


def test_a_fork_holds_the_step_and_what_it_continues(cli: Cli, chain: list[str]) -> None:
    save(40)
    told = cli("fork", "run", 20, "deep/new")
    assert told == Result(0, "deep/new begins at step 20: 2 files, 2 linked\n", "")
    forked = LocalStore("deep/new")
    assert [entry.name for entry in archive.entries(forked)] == chain[:2]
    expected = load_file(Path("run") / chain[1], Shot).field
    assert np.array_equal(archive.load(forked, chain[1], Shot).field, expected)
    assert Path("deep/new", chain[0]).stat().st_nlink == 2


def test_a_fork_outlives_where_it_came_from(cli: Cli, chain: list[str]) -> None:
    assert cli("fork", "run", 30, "new").code == 0
    assert cli("prune", "run", "--keep", "1", "--compact").code == 0
    assert cli("verify", "new").code == 0


def test_a_run_goes_on_from_a_fork(cli: Cli, walked: str) -> None:
    assert cli("fork", walked, 10, "new").code == 0
    told = cli("run", "walks:Walk", "--store", "new", "--until", "20")
    assert "resumed from step 10" in told.out
    assert cli("diff", f"new/{archive.name_of(20)}", f"run/{archive.name_of(20)}").code == 0


def test_a_fork_replaces_nothing(cli: Cli) -> None:
    save(1)
    Path("new").mkdir()
    told = cli("fork", "run", 1, "new")
    assert told.code == 1
    assert told.err == (
        f"error: there is something of that name\n  where: {Path('new').absolute()}\n"
        "  hint: give the name of a new directory\n"
    )
    assert [*Path("new").iterdir()] == []


def test_a_fork_of_a_damaged_one_leaves_nothing(cli: Cli, chain: list[str]) -> None:
    damage(Path("run") / chain[0])
    assert cli("fork", "run", 10, "new").code == 1
    assert [*map(str, Path().iterdir())] == ["run"]


@pytest.mark.parametrize("fault", ["link", "clone"])
def test_where_nothing_can_be_linked_it_is_copied(
    cli: Cli, chain: list[str], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    if fault == "clone":
        monkeypatch.setattr(fcntl, "ioctl", refuse)
    told = cli("fork", "run", 30, "new")
    assert told.code == 0
    assert "linked" not in told.out
    assert cli("verify", "new").code == 0
    for name in chain:
        old, new = Path("run", name), Path("new", name)
        assert old.read_bytes() == new.read_bytes()
        assert old.stat().st_mtime_ns == new.stat().st_mtime_ns


@pytest.mark.parametrize("links", [True, False])
def test_a_copy_never_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    with pytest.raises(CheckpointExists):
        copies.duplicate(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "b"


def test_a_copy_of_nothing_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NoCheckpoint):
        copies.duplicate(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()


# --- pictures ------------------------------------------------------------------------------------


def seen(path: Path, array: Any, height: int, width: int, **more: bool) -> list[Picture]:
    path.unlink(missing_ok=True)
    save_file(shot(1, array), path)
    with opened_file(path) as opened:
        return pictures(opened, opened.header.arrays["field"], height, width, **more)


shapes = st.lists(st.integers(1, 12), min_size=1, max_size=2).map(tuple)


@given(shapes, st.integers(1, 8), st.integers(1, 8), st.randoms(use_true_random=False))
def test_cells_have_what_they_cover(
    tmp_path: Path, shape: tuple[int, ...], height: int, width: int, random: Any
) -> None:
    array = np.array([random.choice([0.0, 1.5, -3.0, np.nan]) for _ in range(math.prod(shape))])
    (picture,) = seen(tmp_path / "a", array.reshape(shape), height, width)
    rows, columns = (*shape, 1)[:2]
    tall, across = picture.mean.shape
    assert (tall, across) == (min(rows, height if len(shape) > 1 else width), min(columns, width))
    covered = array.reshape(rows, columns)
    for i in range(tall):
        for j in range(across):
            mine = [r for r in range(rows) if r * tall // rows == i]
            own = [c for c in range(columns) if c * across // columns == j]
            part = covered[np.ix_(mine, own)]
            known = part[~np.isnan(part)]
            assert bool(picture.nans[i, j]) == (known.size < part.size)
            if known.size:
                assert picture.mean[i, j] == pytest.approx(known.mean())
                assert (picture.low[i, j], picture.high[i, j]) == (known.min(), known.max())
            else:
                assert np.isnan(picture.mean[i, j])


def test_many_chunks_of_rows_give_the_array(tmp_path: Path) -> None:
    array = np.random.default_rng(3).normal(size=(1100, 1000))  # 8.4 MiB
    (picture,) = seen(tmp_path / "a", array, 2000, 2000)
    assert np.array_equal(picture.mean, array)


def test_a_cube_is_cut_in_its_middle(tmp_path: Path) -> None:
    cube = np.arange(5 * 6 * 7).reshape(5, 6, 7)
    found = seen(tmp_path / "a", cube, 9, 9, every_axis=True)
    expected = [cube[2], cube[:, 3], cube[:, :, 3]]
    assert all(np.array_equal(a.mean, b) for a, b in zip(found, expected, strict=True))
    assert [one.part for one in found] == ["[2, :, :]", "[:, 3, :]", "[:, :, 3]"]


def test_of_more_axes_it_is_the_middle_of_the_first(tmp_path: Path) -> None:
    array = np.arange(3 * 4 * 5 * 6).reshape(3, 4, 5, 6)
    (picture,) = seen(tmp_path / "a", array, 9, 9)
    assert np.array_equal(picture.mean, array[1, 2])
    assert len(seen(tmp_path / "a", array, 9, 9, every_axis=True)) == 3


def test_a_structured_array_has_a_picture_for_each_field(tmp_path: Path) -> None:
    dtype = [("x", "f4"), ("name", "S3"), ("inner", [("id", "u2")])]
    array = np.zeros(4, dtype)
    array["inner"]["id"] = [1, 2, 3, 4]
    found = seen(tmp_path / "a", array, 9, 9)
    assert [one.part for one in found] == [".x", ".inner.id"]
    assert found[1].mean[:, 0].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "array", [np.zeros(0), np.zeros(()), np.array(["a"]), np.zeros(2, "M8[s]")]
)
def test_what_has_no_numbers_in_a_row_has_no_picture(tmp_path: Path, array: Any) -> None:
    assert seen(tmp_path / "a", array, 9, 9) == []


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1.7e308, 0.0])
def test_any_number_can_be_drawn(tmp_path: Path, value: float) -> None:
    for shape in (3, (3, 3)):
        for picture in seen(tmp_path / "a", np.full(shape, value), 9, 9):
            sketched(picture)
            plot(tmp_path / "plot.png", "any", [("a", picture)])
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_show_one_array(cli: Cli) -> None:
    save(3, np.array([0.0, 1.0, np.nan, 7.0]))
    told = cli("show", "run", "field", "--picture")
    assert (told.code, told.err) == (0, "")
    lines = told.out.splitlines()
    assert lines[0] == f"run/{archive.name_of(3)}, step 3"
    assert lines[2].split() == ["field", "float64", "(4,)", "32", "B", "0", "7", "2.667", "1"]
    assert lines[4:] == ["field", "▁▂×█", "▁ 0, █ 7, × NaN"]
    assert "▁" not in cli("show", "run", 3, "field").out  # no terminal
    shown = cli("show", f"run/{archive.name_of(3)}", "field", "--json").events
    assert [one["name"] for one in shown] == ["field"]


def test_show_a_map(cli: Cli) -> None:
    save(3, np.array([[0, 1, 2], [3, 4, 4]]))
    told = cli("show", "run", "field", "--picture")
    assert told.out.splitlines()[-2:] == ["·▓█", "· 1.5, █ 3, each a mean"]


def test_show_draws_a_picture(cli: Cli) -> None:
    save(3, np.arange(12.0).reshape(3, 4), label="$x")
    told = cli("show", "run", "--plot", "out.png")
    assert (told.code, told.err) == (0, "")
    assert told.out.endswith("drawn in out.png\n")
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")


def test_no_name_is_mathematics_to_matplotlib(tmp_path: Path) -> None:
    (picture,) = seen(tmp_path / "a", np.arange(3), 9, 9)
    plot(tmp_path / "out.png", r"$\frac{$ \x1b[2J 上", [(r"$\evil{$", picture)])
    assert (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("run nothing", 64, "there is no array 'nothing'; there are: field"),
        ("run 3 field field", 64, "'field' is one word too many"),
        ("run --plot out.txt", 64, "give a name that ends in .png, .svg, .pdf"),
        ("run --plot no/where.png", 1, "nothing is there"),
    ],
)
def test_show_refuses(cli: Cli, words: str, code: int, message: str) -> None:
    save(3)
    told = cli("show", *words.split())
    assert (told.code, told.out) == (code, "")
    assert message in told.err


def test_without_matplotlib_it_says_what_to_install(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(3)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    told = cli("show", "run", "--plot", "out.png")
    assert told.code == 78
    assert told.err == (
        "error: --plot needs matplotlib, which is not installed\n"
        "  hint: install it with: pip install 'checkpointable[plot]'\n"
    )


def test_nothing_to_draw_is_told(cli: Cli) -> None:
    save(3, np.array(["a"]))
    told = cli("show", "run", "--plot", "out.png")
    assert told.code == 78
    assert "there are no numbers to draw" in told.err


@pytest.mark.parametrize(("words", "drawn"), [([], True), (["--no-picture"], False)])
def test_on_a_terminal_one_array_is_drawn(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, words: list[str], drawn: bool
) -> None:
    save(3, np.arange(8))
    cli("ls", "run")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert ("▁▂▃▄▅▆▇█" in cli("show", "run", "field", *words).out) is drawn


@pytest.mark.parametrize("name", ["diff", "replay", "bisect", "fork", "report"])
def test_each_command_says_how_it_is_used(cli: Cli, name: str) -> None:
    shown = cli(name, "--help")
    assert shown.code == 0
    assert "--json" in shown.out
    assert f"  {name} " in cli("--help").out
