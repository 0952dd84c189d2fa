"""One path means the same value to `best`, to `bisect`, and in what `show` and `diff` print."""

from collections.abc import Iterator
from keyword import iskeyword
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointable.archive.keep import number_at
from checkpointable.cli.view.compare import tree_changes
from checkpointable.cli.view.expression import parse_expression
from checkpointable.tree import container, extended, find
from tests.helpers.depth import NARROW

NAMES = st.from_regex(r"[a-z]{1,3}", fullmatch=True).filter(lambda name: not iskeyword(name))
KEYS = NAMES | st.text("a .[]'\"\\-0", min_size=1, max_size=4)


def trees(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(items, max_size=3)
    fields = st.dictionaries(NAMES, items, max_size=3)
    return (
        lists
        | lists.map(lambda inner: {"$tuple": inner})
        | lists.map(lambda inner: {"$deque": inner, "$maxlen": None})
        | st.dictionaries(KEYS, items, max_size=3)
        | st.dictionaries(st.integers(-9, 9) | KEYS, items, max_size=3).map(
            lambda inner: {"$dict": [[key, value] for key, value in inner.items()]}
        )
        | fields.map(lambda inner: {"$type": "Layer", **inner})
        | fields.map(lambda inner: {"$union": {"$type": "Layer", **inner}, "$member": "Layer"})
    )


def leaves(wire: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    inner = container(wire)
    if inner is None:
        yield path, wire
    for label, item in inner[1] if inner else []:
        yield from leaves(item, extended(path, label))


def no_arrays(name: str) -> Any:
    raise AssertionError


def with_leaves_less_by_1(wire: Any) -> Any:
    if isinstance(wire, dict):
        inner = {key: with_leaves_less_by_1(wire[key]) for key in wire if key != "$dict"}
        if "$dict" in wire:
            inner["$dict"] = [[key, with_leaves_less_by_1(value)] for key, value in wire["$dict"]]
        return inner
    if isinstance(wire, list):
        return [with_leaves_less_by_1(item) for item in wire]
    return wire - 1 if type(wire) is int else wire


@NARROW
@given(st.dictionaries(NAMES, st.recursive(st.integers(0, 99), trees, max_leaves=9), min_size=1))
def test_every_path_that_is_printed_leads_to_its_value(tree: Any) -> None:
    expected = dict(leaves(tree))
    for path, value in expected.items():
        assert find(tree, path) == value
        assert number_at(tree, path) == value
        assert parse_expression(f"{path} == {value}").holds(tree, no_arrays)
    changes = [*tree_changes(tree, with_leaves_less_by_1(tree))]
    assert [change.path for change in changes] == [*expected]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("layers.1", 5),
        ("layers[-1]", 5),
        ("rates.a b", 0.5),
        ("rates['a b']", 0.5),
        ("rates['c.d']", 0.25),
        ("seen[3]", 7),
        ("signed[-1]", 8),
    ],
)
def test_paths_in_other_spellings(path: str, value: float) -> None:
    tree = {
        "layers": {"$deque": [4, 5], "$maxlen": 2},
        "rates": {"a b": 0.5, "c.d": 0.25},
        "seen": {"$union": {"$dict": [[3, 7]]}, "$member": "dict"},
        "signed": {"$dict": [[0, 6], [-1, 8], [5, 9]]},
    }
    assert number_at(tree, path) == value
    if "a b" not in path and ".1" not in path:
        assert parse_expression(f"{path} == {value}").holds(tree, no_arrays)


@pytest.mark.parametrize(
    "path",
    ["layers.2", "layers[", "layers]", ".layers", "layers..0", "no", "layers[]", "layers.-1"],
)
def test_what_leads_nowhere_raises(path: str) -> None:
    with pytest.raises(LookupError):
        find({"layers": [1, 2]}, path)
