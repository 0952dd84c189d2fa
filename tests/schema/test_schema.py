"""Checkpoint classes: what is supported, what is refused where, and how they are described."""

import enum
import sys
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import attrs
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given

from checkpointable import Array, InvalidCheckpoint, UnsupportedType, checkpoint
from checkpointable.schema.fields import fields_of
from checkpointable.schema.schema import is_same, mismatch, schema_from_json, schema_of
from checkpointable.schema.types import describe
from checkpointable.testing.strategies.classes import Access
from tests.helpers import strategies
from tests.helpers.strategies import Chain, Color, Narrow, Pair, Point, any_type

T = TypeVar("T")


@attrs.frozen
class Bare(Generic[T]):
    value: T


class Other:
    pass


def holder(tp: Any) -> Any:
    """A class `Wave` whose field `source` is a class `Source` whose field `shape` is `tp`."""
    source = attrs.make_class("Source", {"shape": attrs.field(type=tp)})
    return attrs.make_class("Wave", {"source": attrs.field(type=source)})


@pytest.mark.parametrize(
    ("tp", "path"),
    [
        (Other, ""), (Any, ""), (object, ""), (list, ""), (dict, ""), (tuple, ""), (set, ""),
        (bytearray, ""), (range, ""), (OrderedDict[str, int], ""), (Callable[[], None], ""),
        (list[Other], "[]"), (tuple[int, int, Other], "[2]"), (tuple[Other, ...], "[]"),
        (dict[Other, int], "[key]"), (dict[int, Other], "[value]"), (deque[Other], "[]"),
        (int | Other, ""), (list[int | Other], "[]"), (type[int], ""), (T, ""),
        (Array[np.object_], ""), (npt.NDArray[np.object_], ""), (Bare, ""), (Pair[int, Other],
        ".second"), (Bare[list[Other]], ".value[]"), (Point, ".x"), (ValueError, ""),
    ],
    ids=str,
)  # fmt: skip
def test_an_unsupported_type_is_refused_with_its_path(tp: Any, path: str) -> None:
    with pytest.raises(UnsupportedType) as error:
        schema_of(holder(tp))
    assert error.value.where == f"Wave.source.shape{path}"
    assert error.value.hint


@pytest.mark.parametrize("cls", [int, dict, Color, Other, list[int]])
def test_a_checkpoint_must_be_a_class_with_fields(cls: Any) -> None:
    with pytest.raises(UnsupportedType, match="attrs"):
        schema_of(cls)


def test_two_classes_of_one_name_in_a_union_are_refused() -> None:
    twin = attrs.make_class("Chain", {"x": attrs.field(type=int)})
    with pytest.raises(UnsupportedType, match="more than one class named Chain"):
        schema_of(holder(Chain | twin))


def test_annotations_that_cannot_be_resolved_are_refused() -> None:
    @attrs.frozen
    class Lost:
        x: "NoSuchThing"  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(UnsupportedType, match="NoSuchThing"):
        schema_of(Lost)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement is of Python 3.12")
@pytest.mark.parametrize(
    "alias",
    [
        "type A = list[A]; found = A",
        "type A = int | list[A]; found = A",
        "type A = int | list[A]; found = dict[str, A]",
        "type A[T] = list[A[T]]; found = A[int]",
    ],
)
def test_an_alias_that_refers_to_itself_is_refused(alias: str) -> None:
    names: dict[str, Any] = {}
    exec(alias, names)
    with pytest.raises(UnsupportedType, match="refers to itself") as error:
        schema_of(holder(names["found"]))
    assert error.value.where == "Wave.source.shape"


@given(any_type)
def test_every_supported_type_is_accepted_and_described(typed: Any) -> None:
    schema = schema_of(holder(typed[0]))
    assert schema.classes["Source"]["shape"] == describe(typed[0])


def test_the_description_is_the_meaning_of_the_class() -> None:
    class Named(NamedTuple):
        x: float

    @dataclass
    class Data:
        n: Named

    @attrs.frozen
    class Whole:
        _private: int | None
        array: npt.NDArray[np.float32]
        grid: np.ndarray[tuple[int, int], np.dtype[np.int8]]
        color: Color
        data: list[Data]
        choice: Literal["b", "a"]
        chain: "strategies.Chain"
        access: Access

    assert schema_of(Whole).classes == {
        "Whole": {
            "_private": "None | int", "array": "array[float32]", "grid": "array[int8, 2-d]",
            "color": "Color", "data": "list[Data]", "choice": "Literal['a', 'b']",
            "chain": "Chain", "access": "Access",
        },
        "Color": {"RED": "member", "GREEN": "member", "CRIMSON": "member"},
        "Data": {"n": "Named"},
        "Named": {"x": "float"},
        "Chain": {"value": "int", "next": "Chain | None", "others": "list[Chain]"},
        "Access": {"READ": "1", "WRITE": "2", "ROOT": str(2**70)},
    }  # fmt: skip


def test_a_union_is_described_alike_in_any_order() -> None:
    assert describe(int | str | None) == describe(None | str | int)


def test_generic_bases_are_resolved() -> None:
    assert {f.name: f.type for f in fields_of(Narrow[str])} == {
        "first": int, "second": str, "third": list[str],
    }  # fmt: skip


def test_one_type_variable_may_mean_two_things() -> None:
    @attrs.frozen
    class Both(Bare[int], Generic[T]):
        other: T

    assert {f.name: f.type for f in fields_of(Both[str])} == {"value": int, "other": str}


def test_the_decorator_names_the_schema_above_and_below_attrs() -> None:
    @checkpoint("wave", version=3)
    @attrs.frozen
    class Above:
        x: int

    @attrs.frozen
    @checkpoint("wave", version=4)
    class Below:
        x: int

    @attrs.frozen
    class Sub(Above):
        pass

    result = [(s.name, s.version) for s in map(schema_of, (Above, Below, Sub))]
    assert result == [("wave", 3), ("wave", 4), ("Sub", 1)]


def test_a_mismatch_names_both_sides_field_by_field() -> None:
    @checkpoint("wave", version=1)
    @attrs.frozen
    class Old:
        step: int
        field: Array[np.float32]
        gone: str

    @checkpoint("wave", version=1)
    @attrs.frozen
    class New:
        step: int
        field: Array[np.float64]
        added: bool

    assert mismatch(schema_of(Old), New).what == (
        "the checkpoint holds wave version 1, but the class has changed since\n"
        "  - wave.field: array[float32] in the file, array[float64] in the class\n"
        "  - wave.gone: str in the file, nothing in the class\n"
        "  - wave.added: nothing in the file, bool in the class"
    )


def test_a_changed_enum_is_a_mismatch() -> None:
    one = schema_of(holder(enum.Enum("Mode", ["A", "B"])))
    two = holder(enum.Enum("Mode", ["A", "C"]))
    assert not is_same(one, schema_of(two))
    assert "Mode.B" in mismatch(one, two).what


@given(any_type)
def test_a_schema_survives_json(typed: Any) -> None:
    schema = schema_of(holder(typed[0]))
    assert schema_from_json(attrs.asdict(schema)) == schema


DESCRIBED: dict[str, Any] = {
    "name": "a",
    "version": 1,
    "fingerprint": "",
    "classes": {"a": {"x": "int"}},
}


def test_a_schema_is_read() -> None:
    assert attrs.asdict(schema_from_json(DESCRIBED)) == DESCRIBED


@pytest.mark.parametrize(
    "value",
    [
        None, {}, DESCRIBED | {"more": 1}, DESCRIBED | {"name": 1}, DESCRIBED | {"version": "1"},
        DESCRIBED | {"fingerprint": None}, DESCRIBED | {"classes": {"a": 1}},
        DESCRIBED | {"classes": {"a": {"x": 1}}},
        {k: v for k, v in DESCRIBED.items() if k != "fingerprint"},
    ],
)  # fmt: skip
def test_anything_else_is_not_a_schema(value: Any) -> None:
    with pytest.raises(InvalidCheckpoint):
        schema_from_json(value)
