"""Files of older versions: migrated by the author's functions, or refused with a reason."""

import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointable import (
    Array,
    CorruptCheckpoint,
    InvalidCheckpoint,
    LazyArray,
    MemoryStore,
    SchemaMismatch,
    UnsupportedType,
    archive,
    checkpoint,
    migrate,
)
from checkpointable.archive import codec
from checkpointable.schema.schema import schema_of
from checkpointable.testing.schemas import assert_schema
from tests.helpers.equality import same

Versions = dict[int, Any]


@pytest.fixture
def name() -> str:
    """The name of a schema that no other test migrates."""
    return f"wave-{uuid.uuid4()}"


def version(name: str, number: int, /, **fields: Any) -> Any:
    """A checkpoint class of this version; each field is a type, or attrs' field."""
    made = {n: f if hasattr(f, "metadata") else attrs.field(type=f) for n, f in fields.items()}
    return checkpoint(name, version=number)(attrs.make_class("Wave", made, frozen=True))


def saved(value: object) -> tuple[MemoryStore, str]:
    store = MemoryStore()
    return store, archive.save(store, value, 1).name


def reloaded(value: object, cls: Any) -> Any:
    return archive.load(*saved(value), cls)


def test_the_functions_run_in_order(name: str) -> None:
    versions = []
    for old in (1, 2, 3):

        @migrate(name, old)
        def step(tree: dict[str, Any], old: int = old) -> dict[str, Any]:
            versions.append(old)
            tree["path"] = f"{tree['path']}{old}"
            return tree

        step.__qualname__ += str(old)

    assert reloaded(version(name, 2, path=str)("from"), version(name, 4, path=str)).path == "from23"
    assert versions == [2, 3]


def test_arrays_are_renamed_reshaped_cast_and_computed(name: str) -> None:
    old = version(name, 1, u=Array[np.float64], v=Array[np.float64])
    new = version(name, 2, u=Array[np.float32], speed=Array[np.float64], rest=list[Array[np.int8]])

    @migrate(name, 1)
    def step(tree: dict[str, Any]) -> dict[str, Any]:
        u, v = tree["u"], tree.pop("v")
        assert (u.dtype, u.shape) == (np.float64, (6,))
        return {
            "u": u.astype(np.float32).reshape(2, -1),
            "speed": LazyArray(np.float64, (6,), lambda: np.hypot(u, v)),
            "rest": [np.ones(2, np.int8), LazyArray(np.int8, (), lambda: np.array(1, np.int8))],
        }

    u, v = np.arange(6.0), np.arange(6.0) + 1
    expected = new(
        u.astype("f4").reshape(2, 3), np.hypot(u, v), [np.ones(2, "i1"), np.array(1, "i1")]
    )
    assert same(reloaded(old(u, v), new), expected)


def test_what_a_migration_drops_is_not_read(name: str) -> None:
    old = version(name, 1, kept=Array[np.uint8], dropped=Array[np.uint8])
    new = version(name, 2, kept=Array[np.uint8])

    @migrate(name, 1)
    def step(tree: dict[str, Any]) -> dict[str, Any]:
        del tree["dropped"]
        return tree

    value = old(np.full(10, 1, np.uint8), np.full(10, 2, np.uint8))
    packed = codec.encode(value, step=1)
    blob = b"".join(packed.chunks())

    def damaged(array: bytes) -> MemoryStore:
        store = MemoryStore()
        store.create("it", len(blob), [blob.replace(array, array[:-1] + b"\0")])
        return store

    assert same(archive.load(damaged(bytes([2] * 10)), "it", new), new(value.kept))
    with pytest.raises(CorruptCheckpoint, match="damaged") as error:
        archive.load(damaged(bytes([1] * 10)), "it", new)
    assert error.value.hint == "use an older checkpoint"


def test_damage_in_a_migrated_array_is_reported_as_damage(name: str) -> None:
    @migrate(name, 1)
    def step(tree: dict[str, Any]) -> dict[str, Any]:
        return {"total": float(np.asarray(tree["u"]).sum())}

    packed = codec.encode(version(name, 1, u=Array[np.uint8])(np.full(10, 1, np.uint8)))
    blob = b"".join(packed.chunks()).replace(bytes([1] * 10), bytes([1] * 9 + [0]))
    store = MemoryStore()
    store.create("it", len(blob), [blob])
    with pytest.raises(CorruptCheckpoint, match="damaged"):
        archive.load(store, "it", version(name, 2, total=float))


@given(
    dtype=st.sampled_from([np.float64, np.int32]),
    shape=st.lists(st.integers(0, 4), max_size=3).map(tuple),
    data=st.data(),
)
def test_a_lazy_array_is_what_numpy_makes(dtype: Any, shape: Any, data: st.DataObject) -> None:
    array = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)
    lazy = LazyArray(array.dtype, array.shape, lambda: array)
    to = data.draw(st.sampled_from([np.float32, np.int8]))
    known = data.draw(st.permutations(shape))
    asked = [-1 if i == 0 and array.size else n for i, n in enumerate(known)]
    made = lazy.astype(to).reshape(*asked)
    expected = array.astype(to).reshape(asked)
    assert (made.dtype, made.shape) == (expected.dtype, expected.shape)
    assert same(np.asarray(made), expected)
    assert same(np.asarray(lazy, dtype=to), array.astype(to))


@pytest.mark.parametrize("shape", [(5,), (4, -1), (-1, -1), (2, 2), (0, -1), (-2, -3)])
@pytest.mark.parametrize("size", [6, 1])
def test_a_lazy_array_cannot_change_its_size(size: int, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cannot have the shape"):
        LazyArray(np.int8, (size,), lambda: np.zeros(size, np.int8)).reshape(*shape)


@pytest.mark.parametrize("given", [np.zeros(3), np.zeros((1, 3), np.float32)])
def test_a_lazy_array_that_breaks_its_promise_is_refused(name: str, given: Any) -> None:
    @migrate(name, 1)
    def step(tree: dict[str, Any]) -> dict[str, Any]:
        return {"u": LazyArray(np.float32, (3,), lambda: given)}

    with pytest.raises(InvalidCheckpoint, match=r"promised float32 of shape \(3,\), and gave"):
        reloaded(version(name, 1, x=int)(1), version(name, 2, u=Array[Any]))


# --- declared changes ----------------------------------------------------------------------------


@attrs.frozen
class Source:
    at: tuple[int, ...]
    array: Array[np.int64]


def test_declared_fields_need_no_function(name: str) -> None:
    old = version(name, 1, step=int, log=list[str], trace=Array[np.float64])

    @checkpoint(name, version=3, added={"source": 3, "rate": 2}, removed={"log": 2, "trace": 3})
    @attrs.frozen
    class New:
        step: int
        rate: float = attrs.field(default="inf", converter=float)  # type: ignore[assignment]
        source: Source | None = attrs.Factory(lambda: Source((1, 2), np.arange(3)))

    expected = New(7, float("inf"), Source((1, 2), np.arange(3)))
    assert same(reloaded(old(7, ["a"], np.zeros(9)), New), expected)


def test_a_function_comes_before_the_declared_changes(name: str) -> None:
    @checkpoint(name, version=2, added={"rate": 2, "mass": 2}, removed={"period": 2})
    @attrs.frozen
    class New:
        rate: float = 0.0
        mass: float = 1.0

    @migrate(name, 1)
    def step(tree: dict[str, Any]) -> dict[str, Any]:
        return tree | {"rate": 1 / tree["period"]}

    assert reloaded(version(name, 1, period=float)(4.0), New) == New(0.25, 1.0)


def test_the_defaults_of_dataclasses_and_named_tuples_count(name: str) -> None:
    import dataclasses

    @dataclasses.dataclass
    class Data:
        x: int
        y: int = 2
        z: list[int] = dataclasses.field(default_factory=lambda: [3])

    class Named(NamedTuple):
        x: int
        y: int = 2

    old = version(name, 1, x=int)
    changed: dict[str, Any] = {"version": 2}
    data: Any = checkpoint(name, added={"y": 2, "z": 2}, **changed)(Data)
    named: Any = checkpoint(name, added={"y": 2}, **changed)(Named)
    assert reloaded(old(1), data) == Data(1, 2, [3])
    assert reloaded(old(1), named) == Named(1, 2)


def lacking(default: Any = attrs.NOTHING, converter: Any = None) -> Any:
    fields = {"x": attrs.field(type=int, default=default, converter=converter)}
    return attrs.make_class("Lacking", fields)


ASKS: Any = attrs.Converter(lambda value, self: 1, takes_self=True)


@pytest.mark.parametrize(
    ("cls", "declared", "match"),
    [
        (lacking(), {"added": {"x": 2}}, "'x' is declared as added, but has no default"),
        (lacking(attrs.Factory(len, takes_self=True)), {"added": {"x": 2}}, "has no default of"),
        (
            lacking(1, attrs.Converter(lambda value, self: 1, takes_self=True)),
            {"added": {"x": 2}},
            "no default of",
        ),
        (lacking(1), {"added": {"y": 2}}, "'y' is declared as added, but is not a field"),
        (lacking(1), {"removed": {"x": 2}}, "'x' is declared as removed, but is a field"),
    ],
    ids=range(5),
)
def test_a_declaration_that_the_class_contradicts_is_refused(
    cls: Any, declared: dict[str, Any], match: str
) -> None:
    with pytest.raises(UnsupportedType, match=match) as error:
        schema_of(checkpoint("lacking", version=2, **declared)(cls))
    assert error.value.where.startswith("Lacking.")


@pytest.mark.parametrize("since", [1, 4, 2.0])
def test_a_change_belongs_to_a_version(since: Any) -> None:
    with pytest.raises(ValueError, match="from 2 to 3"):
        checkpoint("wave", version=3, added={"x": since})


# --- what is refused -----------------------------------------------------------------------------


def test_a_missing_step_is_named(name: str) -> None:
    migrate(name, 1)(lambda tree: tree)
    old, new = version(name, 1, x=int), version(name, 3, x=int)
    with pytest.raises(SchemaMismatch, match="nothing leads from version 2 to 3") as error:
        reloaded(old(1), new)
    assert f"@migrate({name!r}, 2)" in error.value.hint


def test_a_file_names_no_other_package_to_install(name: str) -> None:
    old, new = version(name, 1, x=int), version(name, 2, x=int)
    new.__module__ = "numpy.core"
    with pytest.raises(SchemaMismatch) as error:
        reloaded(new(1), old)
    assert error.value.hint == "install the version of the program that wrote it"


def test_a_newer_version_names_what_to_install(name: str) -> None:
    old, new = version(name, 1, x=int), version(name, 2, x=int)
    old.__module__ = new.__module__ = "numpy.core"
    with pytest.raises(SchemaMismatch, match=r"version 2.* up to version 1") as error:
        reloaded(new(1), old)
    assert error.value.hint == f"install numpy>={np.__version__}"


def test_a_newer_version_without_a_package_names_the_program(name: str) -> None:
    old, new = version(name, 1, x=int), version(name, 2, x=int)
    new.__module__ = "__main__"
    with pytest.raises(SchemaMismatch) as error:
        reloaded(new(1), old)
    assert error.value.hint == "install the version of the program that wrote it"


def test_another_schema_and_a_changed_class_are_refused_field_by_field(name: str) -> None:
    old = version(name, 1, x=int)
    with pytest.raises(SchemaMismatch, match=r"\.x: int in the file, str in the class"):
        reloaded(old(1), version(name, 1, x=str))
    with pytest.raises(SchemaMismatch, match="the class is other version 2"):
        reloaded(old(1), version("other", 2, x=int))


def test_a_class_of_the_same_meaning_is_read(name: str) -> None:
    a, b = (attrs.make_class(n, {"y": attrs.field(type=int)}) for n in "AB")
    assert reloaded(version(name, 1, x=a)(a(1)), version(name, 1, x=b)).x == b(1)


def fails(tree: dict[str, Any]) -> dict[str, Any]:
    raise KeyError("u")


@pytest.mark.parametrize(
    ("function", "match", "where"),
    [
        (fails, r"from version 1 failed: KeyError\('u'\)", "test_migrations.fails"),
        (lambda tree: None, "returned NoneType, not the tree", "<lambda>"),
        (lambda tree: {"x": "text"}, "expected int, got str", "Wave.x"),
        (lambda tree: {}, "the fields are not those of Wave", "Wave"),
    ],
    ids=range(4),
)
def test_a_failing_migration_is_named(
    name: str, function: Callable[[Any], Any], match: str, where: str
) -> None:
    migrate(name, 1)(function)
    with pytest.raises(InvalidCheckpoint, match=match) as error:
        reloaded(version(name, 1, x=int)(1), version(name, 2, x=int))
    assert where in error.value.where
    assert error.value.hint


def test_two_functions_for_one_version_are_refused(name: str) -> None:
    def other(tree: dict[str, Any]) -> dict[str, Any]:
        return tree

    migrate(name, 1)(fails)
    migrate(name, 1)(fails)  # its module, loaded again
    with pytest.raises(ValueError, match=r"already has a migration, .*test_migrations\.fails"):
        migrate(name, 1)(other)


# --- the pin -------------------------------------------------------------------------------------


def test_the_pin_holds_until_the_meaning_changes(name: str) -> None:
    before, after = version(name, 1, x=int), version(name, 1, x=float)
    pin = schema_of(before).fingerprint
    assert_schema(before, version=1, fingerprint=pin)
    with pytest.raises(AssertionError, match="its version is still 1") as error:
        assert_schema(after, version=1, fingerprint=pin)
    for advice in (f"@checkpoint({name!r}, version=2)", f"@migrate({name!r}, 1)"):
        assert advice in str(error.value)


@pytest.mark.parametrize("tp", [int, float])
def test_a_new_version_asks_for_a_new_pin(name: str, tp: Any) -> None:
    pin = schema_of(version(name, 1, x=int)).fingerprint
    new = version(name, 2, x=tp)
    with pytest.raises(AssertionError, match="version 1 is pinned") as error:
        assert_schema(new, version=1, fingerprint=pin)
    pinned = str(error.value).rpartition("\n")[2].strip()
    eval(pinned, {"assert_schema": assert_schema, "Wave": new})  # what it says to pin, holds
