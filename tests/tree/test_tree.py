"""Checkpoint objects to trees and files and back: equal in value and in type."""

import linecache
import struct
import traceback
from collections import deque
from contextlib import suppress
from typing import Any, Literal

import attrs
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointable import Array, InvalidCheckpoint, MemoryStore
from checkpointable.archive import codec, load, save
from checkpointable.tree.tree import from_tree, to_tree
from tests.helpers.depth import NARROW
from tests.helpers.equality import same
from tests.helpers.strategies import Chain, Color, Narrow, Pair, any_type, checkpoints


def through_json(value: Any, cls: Any) -> Any:
    tree, arrays = to_tree(value, cls)
    return from_tree(orjson.loads(orjson.dumps(tree)), arrays, cls)


@given(checkpoints)
def test_every_class_and_value_survives_the_tree(made: tuple[Any, Any]) -> None:
    cls, value = made
    assert same(through_json(value, cls), value)


@NARROW
@given(checkpoints)
def test_every_class_and_value_survives_the_file(made: tuple[Any, Any]) -> None:
    cls, value = made
    store = MemoryStore()
    entry = save(store, value, 1)
    assert same(load(store, entry.name, cls), value)


@NARROW
@given(checkpoints)
def test_arrays_never_pass_through_json(made: tuple[Any, Any]) -> None:
    cls, value = made
    tree, arrays = to_tree(value, cls)
    orjson.dumps(tree)  # orjson refuses arrays unless asked
    assert all(isinstance(array, np.ndarray) for array in arrays.values())


NAN = float("nan")
NAT = np.array([-(2**63)]).view("M8")[0]  # without a unit, which NumPy 2.5 warns of to spell
PAYLOAD = struct.unpack(">d", bytes.fromhex("fff8000000001234"))[0]


HARD: list[tuple[Any, Any]] = [
    *((int, n + d) for n in (2**63, -(2**63), 2**64, -(2**64), 2**65) for d in (-1, 0, 1)),
    (int, 10**6000), (float, NAN), (float, -NAN), (float, PAYLOAD), (float, -0.0),
    (float, 5e-324), (complex, complex(-0.0, NAN)), (str, "\ud800"), (str, "\0"), (str, ""),
    (np.str_, np.str_("a\0")), (np.bytes_, np.bytes_(b"a\0")),
    *((dict[str, int], {key: 1}) for key in ("$", "$tuple", "$array", "$type", "a.b", "")),
    (dict[str, dict[str, int]], {"$dict": {"$array": 1}}), (dict[int, int], {1: 1}),
    (dict[str, int] | None, {"$type": 1}), (dict[str, int] | int, {"$int": 1}),
    (dict[float, int], {NAN: 1, -0.0: 2}), (set[float], {NAN}), (tuple[()], ()),
    (deque[int], deque([1], maxlen=1)), (list[bool | int | float], [True, 1, 1.0]),
    (Literal[1] | Literal[True], True), (np.datetime64, NAT),
    (np.datetime64, np.datetime64("NaT", "us")),
]  # fmt: skip


@pytest.mark.parametrize(("tp", "value"), HARD, ids=range(len(HARD)))
def test_hard_values_survive_the_file(tp: Any, value: Any) -> None:
    holder = attrs.make_class("Holder", {"field": attrs.field(type=tp)})
    store = MemoryStore()
    entry = save(store, holder(value), 1)
    assert same(load(store, entry.name, holder).field, value)


@attrs.frozen(cache_hash=True)
class SlottedKey:
    x: int


@attrs.frozen(slots=False, cache_hash=True)
class PlainKey:
    x: int


@pytest.mark.parametrize("key", [SlottedKey(1), PlainKey(1)])
def test_a_cached_hash_is_computed_anew(key: Any) -> None:
    pair = Pair(key, 2)
    restored = through_json(pair, Pair[type(key), int])  # type: ignore[misc]
    assert {restored.first: 2}[key] == 2


@NARROW
@given(st.data())
def test_generic_classes_hold_their_types(data: st.DataObject) -> None:
    (first_type, first), (second_type, second) = data.draw(any_type), data.draw(any_type)
    value = Pair(data.draw(first), data.draw(second))
    assert same(through_json(value, Pair[first_type, second_type]), value)  # type: ignore[valid-type]


@NARROW
@given(st.data())
def test_a_generic_base_has_its_types_filled_in(data: st.DataObject) -> None:
    tp, values = data.draw(any_type)
    value = Narrow(data.draw(st.integers()), data.draw(values), data.draw(st.lists(values)))
    assert same(through_json(value, Narrow[tp]), value)  # type: ignore[valid-type]


chains = st.recursive(
    st.builds(Chain, st.integers()),
    lambda inner: st.builds(Chain, st.integers(), st.none() | inner, st.lists(inner, max_size=3)),
)


@NARROW
@given(chains)
def test_recursive_classes(value: Chain) -> None:
    assert same(through_json(value, Chain), value)


@NARROW
@given(st.data())
def test_containers_of_one_kind_in_a_union_are_distinguished(data: st.DataObject) -> None:
    @attrs.frozen
    class A:
        x: int

    @attrs.frozen
    class B:
        x: int

    @attrs.frozen
    class Holder:
        field: list[A] | list[B] | A | B | dict[str, A] | dict[str, B] | None

    a, b = st.builds(A, st.integers()), st.builds(B, st.integers())
    lists = st.lists(a, min_size=1) | st.lists(b, min_size=1)
    dicts = st.dictionaries(st.text(), a, min_size=1) | st.dictionaries(st.text(), b, min_size=1)
    value = Holder(data.draw(a | b | lists | dicts | st.none()))
    assert same(through_json(value, Holder), value)


def double(x: int) -> int:
    return 2 * x


def test_converters_do_not_run_again() -> None:
    @attrs.frozen
    class Doubled:
        x: int = attrs.field(converter=double)

    assert through_json(Doubled(4), Doubled).x == 8


def test_validators_run_and_name_the_field() -> None:
    @attrs.define(on_setattr=[])
    class Positive:
        x: int = attrs.field(validator=attrs.validators.gt(0))

    @attrs.frozen
    class Holder:
        inner: list[Positive]

    bad = Positive(1)
    object.__setattr__(bad, "x", -1)
    with pytest.raises(InvalidCheckpoint, match=r"Holder\.inner\[0\]\.x") as error:
        through_json(Holder([bad]), Holder)
    assert "validator" in error.value.what


@attrs.frozen
class Inner:
    shape: tuple[int, float]


@attrs.frozen
class Outer:
    source: Inner
    table: dict[str, list[int]]
    either: Inner | None
    field: Array[np.float32]


good = Outer(Inner((1, 2.0)), {"a": [1]}, None, np.zeros(2, np.float32))


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"source": Inner((1, "2"))}, r"Outer\.source\.shape\[1\]"),  # type: ignore[arg-type]
        ({"table": {"a": [1, None]}}, r"Outer\.table\['a'\]\[1\]"),
        ({"either": Inner((1.5, 2.0))}, r"Outer\.either\.shape\[0\]"),  # type: ignore[arg-type]
        ({"field": np.zeros(2)}, r"Outer\.field"),
        ({"field": np.zeros(2, object)}, r"Outer\.field"),
        ({"field": np.ma.zeros(2, np.float32)}, r"Outer\.field"),
        ({"source": object()}, r"Outer\.source"),
        ({"table": {"a": deque([1])}}, r"Outer\.table\['a'\]"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_path(
    change: dict[str, Any], path: str
) -> None:
    with pytest.raises(InvalidCheckpoint, match=path + "$|" + path + r"\n"):
        to_tree(attrs.evolve(good, **change), Outer)


def test_a_subclass_is_refused_rather_than_truncated() -> None:
    @attrs.frozen
    class Wider(Inner):
        more: int

    with pytest.raises(InvalidCheckpoint, match="Wider"):
        to_tree(attrs.evolve(good, source=Wider((1, 2.0), 3)), Outer)


def test_object_arrays_inside_any_dtype_are_refused_with_the_path() -> None:
    @attrs.frozen
    class Anything:
        parts: list[Array[Any]]

    bad = np.zeros(2, [("a", object)])
    with pytest.raises(InvalidCheckpoint, match=r"Anything\.parts\[0\]"):
        to_tree(Anything([bad]), Anything)


def test_a_cycle_is_refused() -> None:
    @attrs.define
    class Knot:
        others: "list[Knot]"

    knot = Knot([])
    knot.others.append(knot)
    with pytest.raises(InvalidCheckpoint, match="contains itself"):
        to_tree(knot, Knot)


def test_what_nests_too_deeply_for_json_is_refused_before_it_is_written() -> None:
    chain = Chain(0)
    for i in range(300):
        chain = Chain(i, chain)
    with pytest.raises(InvalidCheckpoint, match=r"less deep|too deeply"):
        codec.encode(chain)


@attrs.frozen
class Strict:
    truth: bool
    whole: int
    real: float
    word: str
    many: list[int]
    color: Color
    choice: Literal["a", 1]
    pair: tuple[int, int]
    maybe: Inner | None


strict = Strict(True, 1, 1.0, "w", [1], Color.RED, "a", (1, 2), Inner((1, 2.0)))


@pytest.mark.parametrize(
    ("field", "wire"),
    [
        ("truth", "false"), ("truth", 1), ("whole", 1.9), ("whole", "1"), ("real", "1.0"),
        ("word", None), ("many", "123"), ("many", {"$tuple": [1]}), ("color", "RED"),
        ("color", {"$enum": ["Colour", "RED"]}), ("color", {"$enum": ["Color", "name"]}),
        ("choice", True), ("pair", [1, 2]), ("pair", {"$tuple": [1, 2, 3]}),
        ("pair", {"$tuple": 7}), ("maybe", {"$type": "os.system"}), ("maybe", {"$type": 3}),
        ("maybe", {"$type": "Inner"}), ("maybe", {"shape": {"$tuple": [1, 2.0]}}),
        ("whole", {"$int": "zz"}), ("whole", {"$int": 5}), ("whole", {"$nothing": 1}),
        ("real", {"$float": "nan"}), ("word", {"$str": "?"}), ("real", {"$array": "x"}),
        ("many", [[[[]]]]), ("word", {"$datetime": ["2020-01-01T00:00", 0, "../../etc/passwd"]}),
    ],
)  # fmt: skip
def test_a_stored_form_of_another_type_is_refused(field: str, wire: Any) -> None:
    tree, arrays = to_tree(strict, Strict)
    with pytest.raises(InvalidCheckpoint, match=rf"Strict(\.{field}|$|\n)"):
        from_tree({**tree, field: wire}, arrays, Strict)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.text() | st.sampled_from(["$int", "$float", "$numpy", "$tuple", "$dict", "$array",
                                     "$type", "$enum", "$path", "$time", "$union", "$member"]),
        inner, max_size=3),
)  # fmt: skip


@given(st.sampled_from([f.name for f in attrs.fields(Strict)]), json)
def test_any_stored_form_is_read_or_refused(field: str, wire: Any) -> None:
    tree, arrays = to_tree(strict, Strict)
    with suppress(InvalidCheckpoint):
        from_tree({**tree, field: wire}, arrays, Strict)


@given(any_type, json)
def test_any_json_at_any_type_is_read_or_refused(typed: Any, wire: Any) -> None:
    holder = attrs.make_class("Holder", {"field": attrs.field(type=typed[0])})
    with suppress(InvalidCheckpoint):
        from_tree({"field": wire}, {}, holder)


def test_extra_missing_and_repeated_arrays_are_refused() -> None:
    @attrs.frozen
    class Two:
        a: Array[np.int8]
        b: Array[np.int8]

    one = np.zeros(1, np.int8)
    tree, arrays = to_tree(Two(one, one), Two)
    assert arrays.keys() == {"a", "b"}
    for wire, given_arrays in [
        (tree, {"a": one}),
        (tree, {**arrays, "c": one}),
        ({"a": {"$array": "a"}, "b": {"$array": "a"}}, {"a": one}),
    ]:
        with pytest.raises(InvalidCheckpoint, match="array"):
            from_tree(wire, given_arrays, Two)


def test_array_names_are_their_paths() -> None:
    @attrs.frozen
    class Layers:
        weights: dict[str, Array[np.int8]]
        pairs: list[tuple[Array[np.int8], int]]

    one = np.zeros(1, np.int8)
    value = Layers({"w": one, "../x": one, "": one}, [(one, 1)])
    _, arrays = to_tree(value, Layers)
    assert list(arrays) == ["weights.w", "weights.#1", "weights.#2", "pairs[0][0]"]


def test_the_code_for_a_class_is_made_once() -> None:
    def made() -> set[str]:
        return {file for file in linecache.cache if file.startswith("<checkpointable ")}

    value = Chain(1, Chain(2), [Chain(3), Chain(4)])
    assert same(through_json(value, Chain), value)
    before = made()
    assert before
    for _ in range(3):
        assert same(through_json(value, Chain), value)
    assert made() == before


@attrs.frozen
class Many:
    step: int
    points: list[Pair[int, float]]
    field: Array[np.int8]
    nested: list[Array[np.int8]]


def test_an_array_in_the_place_of_a_scalar_is_refused() -> None:
    value = Many(1, [Pair(1, 0.5)], np.zeros(2, np.int8), [np.ones(3, np.int8)])
    tree, arrays = to_tree(value, Many)
    assert same(from_tree(tree, arrays, Many), value)
    for wrong in (
        tree | {"points": [{"first": {"$array": "field"}, "second": 0.5}]},
        tree | {"points": {"$array": "field"}},
        tree | {"step": {"$array": "field"}},
        tree | {"field": {"$array": "nested[0]"}},
        tree | {"nested": []},
    ):
        with pytest.raises(InvalidCheckpoint):
            from_tree(wrong, arrays, Many)


def test_a_traceback_shows_the_generated_code() -> None:
    class Strange:
        pass

    with pytest.raises(InvalidCheckpoint) as error:
        to_tree(Many(Strange(), [], np.zeros(2), []), Many)  # type: ignore[arg-type]
    assert any("value.step" in line for line in traceback.format_exception(error.value))


PLAIN: list[Any] = [True, 1, 0.5, "a", None]


@pytest.mark.parametrize("value", PLAIN, ids=repr)
@pytest.mark.parametrize("tp", [bool, int, float, str, type(None)])
def test_plain_values_are_accepted_by_their_own_types_only(tp: Any, value: Any) -> None:
    one = attrs.make_class("One", {"x": attrs.field(type=tp), "items": attrs.field(type=list[tp])})
    accepted = isinstance(value, tp) or (tp is float and isinstance(value, int))
    for holder in (one(value, []), one(next(v for v in PLAIN if type(v) is tp), [value])):
        if accepted:
            tree, _ = to_tree(holder, one)
            assert from_tree(tree, {}, one) == holder
        else:
            with pytest.raises(InvalidCheckpoint):
                to_tree(holder, one)
            with pytest.raises(InvalidCheckpoint):
                from_tree({"x": holder.x, "items": holder.items}, {}, one)


@pytest.mark.parametrize(
    "wire", [{"first": 1, "second": 2, "third": 3}, {"first": 1}, {"first": 1, "other": 2}, [1, 2]]
)
def test_a_record_has_its_fields_and_no_others(wire: Any) -> None:
    with pytest.raises(InvalidCheckpoint, match="the fields are not those of Pair"):
        from_tree(wire, {}, Pair[int, int])


def test_a_field_that_was_never_set_is_refused() -> None:
    late = attrs.make_class(
        "Late", {"a": attrs.field(type=int, default=1), "b": attrs.field(type=int, init=False)}
    )
    with pytest.raises(InvalidCheckpoint, match="never set") as error:
        to_tree(late(), late)
    assert error.value.where == "Late.b"


@pytest.mark.parametrize("slots", [True, False])
def test_names_that_python_would_normalize_survive(slots: bool) -> None:
    name = "\ufb01"  # a ligature, which Python reads as "fi"
    cls = attrs.make_class("Odd", {name: attrs.field(type=int, init=False)}, slots=slots)
    value = cls()
    object.__setattr__(value, name, 5)
    assert getattr(through_json(value, cls), name) == 5
