"""Events to JSON and back; a log that is damaged gives what can be read of it."""

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointable import events
from checkpointable.events import Event, Pruned, Saved, Skipped, from_json, to_json

KINDS: list[Any] = [*events._CLASSES.values()]
any_event: st.SearchStrategy[Event] = st.sampled_from(KINDS).flatmap(
    lambda cls: st.builds(
        cls,
        **{
            a.name: st.floats(allow_nan=False, allow_infinity=False)
            for a in attrs.fields(cls)
            if a.type in (float, "float", float | None)
        },
        **{
            a.name: st.text(st.characters(exclude_categories=["Cs"]))
            for a in attrs.fields(cls)
            if a.type is str
        },
        **{a.name: st.integers(0, 2**63 - 1) for a in attrs.fields(cls) if a.type is int},
    )
)


@given(any_event)
def test_an_event_comes_back_equal(event: Event) -> None:
    line = to_json(event)
    assert from_json(line) == event
    assert line.count(b"\n") == 1


@given(any_event, st.data())
def test_a_line_that_is_cut_short_is_none(event: Event, data: st.DataObject) -> None:
    line = to_json(event)
    assert from_json(line[: data.draw(st.integers(0, len(line) - 2))]) is None


@given(st.binary())
def test_no_line_raises(line: bytes) -> None:
    from_json(line)


@pytest.mark.parametrize("line", [b"[]", b"{}", b'{"event":"New","step":1}', b'{"event":"Saved"}'])
def test_what_is_no_event_is_none(line: bytes) -> None:
    assert from_json(line) is None


def test_a_field_of_a_newer_version_is_passed_over() -> None:
    line = to_json(Skipped(3, "busy", time=1.0)).replace(b"{", b'{"more":[1],', 1)
    assert from_json(line) == Skipped(3, "busy", time=1.0)


def test_tuples_stay_tuples() -> None:
    assert from_json(to_json(Pruned(("a", "b"), time=0.0))) == Pruned(("a", "b"), time=0.0)


def test_an_event_knows_its_time() -> None:
    saved = Saved(1, "a", "full", 10, 1.0, 0.1, 0.01, 0.0)
    assert saved.time > 1.7e9
