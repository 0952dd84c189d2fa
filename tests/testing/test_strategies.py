"""The shipped strategies: values fit their class, and classes are of every kind."""

import dataclasses
import enum
import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import attrs
import numpy as np
import pytest
from attrs import validators as v
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from checkpointable import Array, UnsupportedType
from checkpointable.kernels.ising import IsingCheckpoint
from checkpointable.kernels.sketch import SketchCheckpoint
from checkpointable.kernels.wave import WaveCheckpoint
from checkpointable.schema.fields import fields_of
from checkpointable.schema.schema import schema_of
from checkpointable.schema.types import is_named_tuple, is_record, is_union
from checkpointable.testing.strategies import checkpoint_classes, checkpoints
from checkpointable.tree.tree import to_tree
from tests.helpers.depth import NARROW
from tests.helpers.strategies import Chain, Pair


def drawn(strategy: st.SearchStrategy[Any], count: int = 200) -> list[Any]:
    """Return the values that a property test with Hypothesis's own settings draws."""
    values = []
    phases = [Phase.generate]  # a smaller example does not make an error here clearer

    @settings(max_examples=count, deadline=None, database=None, derandomize=True, phases=phases)
    @given(strategy)
    def collect(value: Any) -> None:
        values.append(value)

    collect()
    return values


@NARROW
@given(checkpoint_classes().flatmap(lambda cls: st.tuples(st.just(cls), checkpoints(cls))))
def test_values_of_any_class_can_be_stored(made: tuple[Any, Any]) -> None:
    to_tree(made[1], made[0])


@given(checkpoint_classes())
def test_generated_classes_are_supported(cls: Any) -> None:
    schema_of(cls)


@attrs.frozen
class Six:
    count: int = attrs.field(validator=[v.gt(3), v.le(9)])
    share: float = attrs.field(validator=v.and_(v.ge(0), v.lt(1)))
    name: str = attrs.field(validator=v.matches_re("[a-z]{3,5}-[0-9]+"))
    mode: str = attrs.field(validator=v.in_(("fast", "exact")))
    tags: list[int] = attrs.field(validator=[v.min_len(2), v.max_len(4)])
    note: str | None = attrs.field(validator=v.optional(v.min_len(5)))


def field_with(tp: Any, validator: Any) -> Any:
    return attrs.make_class("One", {"x": attrs.field(type=tp, validator=validator)})


VALIDATED = {
    "gt": (int, v.gt(10**6)), "ge": (float, v.ge(1e9)), "lt": (int, v.lt(-(2**80))),
    "le": (float, v.le(-1e9)), "between": (int, v.and_(v.ge(41), v.le(42))),
    "half open": (int, [v.gt(0.5), v.lt(2.5)]), "in": (str, v.in_({"fast", "exact"})),
    "range": (int, v.in_(range(10**9, 10**12))), "matches": (str, v.matches_re(r"v\d+\.\d+")),
    "min_len": (str, v.min_len(30)), "max_len": (bytes, v.max_len(1)),
    "long list": (list[int], v.min_len(7)), "short dict": (dict[str, int], v.max_len(1)),
    "large set": (set[int], v.min_len(4)),
    "or": (int, v.or_(v.in_((7,)), v.gt(10**9))), "not": (int, v.not_(v.in_((0, 1)))),
    "optional": (int | None, v.optional(v.gt(10**6))),
    "items": (list[int], v.deep_iterable(v.gt(10**6), v.min_len(3))),
    "mapping": (dict[str, int], v.deep_mapping(v.max_len(2), v.gt(10**6))),
    "instance": (int | str | bytes, v.instance_of(bytes)),
}  # fmt: skip


@pytest.mark.parametrize("name", VALIDATED)
def test_a_validator_of_attrs_is_met(name: str) -> None:
    for value in drawn(checkpoints(field_with(*VALIDATED[name]))):
        attrs.validate(value)


def test_six_validated_fields_are_met_together() -> None:
    for value in drawn(checkpoints(Six)):
        attrs.validate(value)


def test_an_optional_validator_leaves_none_and_values() -> None:
    are_none = {one.x is None for one in drawn(checkpoints(field_with(*VALIDATED["optional"])))}
    assert are_none == {True, False}


def even(self: Any, attribute: Any, value: int) -> None:
    if value % 2:
        raise ValueError("odd")


def test_five_validators_that_refuse_half_are_workable() -> None:
    cls = attrs.make_class(
        "Even", {f"x{i}": attrs.field(type=int, validator=even) for i in range(5)}
    )
    assert drawn(checkpoints(cls))


def like(name: str, longer: int = 0) -> Callable[[Any, Any, Any], None]:
    """A validator: the shape is that of the field `name`, the first axis longer by `longer`."""

    def check(self: Any, attribute: Any, value: Any) -> None:
        first = getattr(self, name).shape
        wanted = (first[0] + longer, *first[1:]) if first else first
        if value.shape != wanted:
            raise ValueError(f"{attribute.name} must have the shape {wanted}")

    return check


@attrs.frozen
class Body:
    position: Array[np.float64]
    velocity: Array[np.float64] = attrs.field(validator=like("position"))
    mass: Array[np.float32] = attrs.field(validator=like("velocity"))


def square(self: Any, attribute: Any, value: Any) -> None:
    if value.ndim != 2 or value.shape[0] != value.shape[1]:
        raise ValueError("it must be square")


@attrs.frozen
class Staggered:
    pressure: Array[np.float32] = attrs.field(validator=square)
    speed: Array[np.float32] = attrs.field(validator=like("pressure", 1))


@attrs.frozen
class Later:
    """The validator of the first field reads the last."""

    speed: Array[np.float32] = attrs.field(validator=like("pressure", 1))
    pressure: Array[np.float32]


@attrs.frozen
class Counted:
    n: int = attrs.field(validator=v.in_(range(1, 7)))
    field: Array[np.float32] = attrs.field()

    @field.validator  # pyright: ignore[reportAttributeAccessIssue]
    def _square(self, attribute: Any, value: Any) -> None:
        if value.shape != (self.n, self.n):
            raise ValueError("field must be (n, n)")


@dataclasses.dataclass
class AfterInit:
    cells: Array[np.float64]
    nodes: Array[np.float64]

    def __post_init__(self) -> None:
        if len(self.cells.shape) != 1 or self.nodes.shape != (self.cells.shape[0] + 1,):
            raise ValueError("one node more than cells")


@pytest.mark.parametrize("cls", [Body, Staggered, Later, Counted, AfterInit])
def test_related_shapes_are_found(cls: Any) -> None:
    arrays = [f.name for f in fields_of(cls) if f.type is not int]
    shapes = {tuple(getattr(one, n).shape for n in arrays) for one in drawn(checkpoints(cls))}
    assert len(shapes) > 3


class Hue(enum.Enum):
    RED = 1


@attrs.frozen
class Choice:
    x: int | str | bytes | Hue | list[int] | list[str] | Pair[int, int] | Array[np.int8] | None
    y: Literal[2, "two"]


def test_every_member_of_a_union_is_met() -> None:
    values = drawn(checkpoints(Choice), 500)
    types = {type(one.x) for one in values} - {bool}
    assert types == {int, str, bytes, type(None), Hue, list, Pair, np.ndarray}
    assert {one.y for one in values} == {2, "two"}


class Mode(enum.Flag):
    A = 1
    B = 2


def test_flags_are_combined() -> None:
    modes = {one.x for one in drawn(checkpoints(field_with(Mode, None)))}
    assert modes == {Mode(0), Mode.A, Mode.B, Mode.A | Mode.B}


def depth(chain: Chain | None) -> int:
    return 0 if chain is None else 1 + depth(chain.next)


def test_values_of_recursive_classes_end() -> None:
    assert 3 <= max(depth(one) for one in drawn(checkpoints(Chain))) <= 8


@attrs.frozen
class Endless:
    leaf: "Branch | Leaf"


@attrs.frozen
class Leaf:
    x: int


@attrs.frozen
class Branch:
    both: "tuple[Endless, Endless]"


def test_values_of_a_union_of_classes_end() -> None:
    assert {type(one.leaf) for one in drawn(checkpoints(Endless))} == {Leaf, Branch}


def test_a_given_strategy_is_used_for_its_field() -> None:
    given_step = st.integers(100, 110)
    arrays = st.just(np.ones(3, np.float32))
    for one in drawn(checkpoints(WaveCheckpoint, step=given_step, pressure=arrays)):
        assert 100 <= one.step <= 110
        assert one.pressure.tolist() == [1, 1, 1]


def test_a_strategy_for_an_unknown_field_is_refused() -> None:
    with pytest.raises(Exception, match="no field 'stepp'"):
        checkpoints(WaveCheckpoint, stepp=st.integers())


def never(self: Any, attribute: Any, value: Any) -> None:
    raise ValueError("never enough")


def test_the_error_of_a_class_that_refuses_everything_names_the_field_and_a_way_out() -> None:
    @attrs.frozen
    class Impossible:
        step: int
        field: Array[np.float32] = attrs.field(validator=never)

    with pytest.raises(Exception, match="never enough") as error:
        drawn(checkpoints(Impossible))
    assert "Impossible.field" in str(error.value)
    assert "checkpoints(Impossible, field=" in str(error.value)


def test_an_unsupported_class_is_refused_at_once() -> None:
    with pytest.raises(UnsupportedType):
        checkpoints(field_with(object, None))


def test_fields_that_the_constructor_does_not_take_are_set() -> None:
    @attrs.frozen
    class Late:
        _seed: int
        twice: int = attrs.field(init=False)
        unset: str = attrs.field(init=False)

        def __attrs_post_init__(self) -> None:
            object.__setattr__(self, "twice", 2 * self._seed)

    for one in drawn(checkpoints(Late)):
        assert one.twice == 2 * one._seed
        assert isinstance(one.unset, str)


@pytest.mark.parametrize("cls", [WaveCheckpoint, IsingCheckpoint, SketchCheckpoint])
def test_the_gallery_needs_no_help(cls: Any) -> None:
    for one in drawn(checkpoints(cls), 100):
        to_tree(one, cls)


@functools.cache
def arrays_of(tp: Any) -> list[Any]:
    return [one.x for one in drawn(checkpoints(field_with(tp, None)), 500)]


LAYOUTS: dict[str, Callable[[Any], bool]] = {
    "empty": lambda a: a.size == 0, "0-d": lambda a: a.ndim == 0, "3-d": lambda a: a.ndim == 3,
    "Fortran": lambda a: a.flags.f_contiguous and not a.flags.c_contiguous,
    "strided": lambda a: not a.flags.forc, "backward": lambda a: any(s < 0 for s in a.strides),
    "NaN": lambda a: bool(np.isnan(a).any()), "infinity": lambda a: bool(np.isinf(a).any()),
    "-0.0": lambda a: bool(((a == 0) & np.signbit(a)).any()),
}  # fmt: skip


@pytest.mark.parametrize("kind", LAYOUTS)
def test_hard_arrays_are_met(kind: str) -> None:
    assert any(map(LAYOUTS[kind], arrays_of(Array[np.float64])))


def test_an_abstract_scalar_type_stands_for_all_of_its_kind() -> None:
    types = {array.dtype.type for array in arrays_of(Array[np.floating[Any]])}
    assert {np.float16, np.float32, np.float64} <= types


def test_times_without_a_value_are_met() -> None:
    assert any(bool(np.isnat(array).any()) for array in arrays_of(Array[np.datetime64]))


def made(cls: Any) -> Iterator[str]:
    """What is special about a class."""
    if is_named_tuple(cls):
        yield "named tuple"
    elif attrs.has(cls):
        yield from ("attrs", f"slots {'__dict__' not in dir(cls)}")
        yield f"frozen {cls.__setattr__ is not object.__setattr__}"
        for attribute in attrs.fields(cls):
            alias = attribute.name.lstrip("_")
            yield from ("late",) * (not attribute.init) + ("alias",) * (attribute.alias != alias)
            yield from ("validator",) * bool(attribute.validator)
    else:
        yield "dataclass"
    for field in fields_of(cls):
        yield from ("union",) * is_union(field.type) + ("nested",) * is_record(field.type)


@functools.cache
def makes() -> set[str]:
    return {special for cls in drawn(checkpoint_classes(), 500) for special in made(cls)}


@pytest.mark.parametrize(
    "special",
    ["named tuple", "attrs", "dataclass", "slots True", "slots False", "frozen True",
     "frozen False", "late", "alias", "validator", "union", "nested"],
)  # fmt: skip
def test_classes_of_every_kind_are_met(special: str) -> None:
    assert special in makes()
