"""capture and reinstate: owned copies out, all or nothing in."""

import asyncio
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointable import Array, InvalidCheckpoint, InvalidKernel, capture, check_fit, reinstate
from tests.helpers.depth import NARROW
from tests.helpers.equality import same
from tests.helpers.strategies import Pair, checkpoints


@attrs.frozen
class Source:
    trace: Array[np.float64]
    name: str


@attrs.frozen
class State:
    step: int
    field: Array[np.float32]
    source: Source
    layers: list[Array[np.int8]]
    note: str | None
    _seed: int
    late: dict[str, int] = attrs.field(init=False)


def kernel(fill: int = 1, **changes: Any) -> Any:
    state = {
        "step": fill,
        "field": np.full((2, 3), fill, np.float32),
        "source": Source(np.full(4, fill, np.float64), "s" * fill),
        "layers": [np.full(2, fill, np.int8), np.full(3, fill, np.int8)],
        "note": None,
        "_seed": fill,
        "late": {"a": fill},
    }
    return SimpleNamespace(**{**state, **changes})


def run(work: Any) -> Any:
    return asyncio.run(work)


def arrays_of(k: Any) -> list[Any]:
    return [k.field, k.source.trace, *k.layers]


def test_what_is_captured_shares_nothing_with_the_kernel() -> None:
    k = kernel(1)
    checkpoint = run(capture(State, k))
    for array in arrays_of(k):
        array += 1
    k.late["a"] = 99
    k.layers.clear()
    assert same(checkpoint, run(capture(State, kernel(1))))


def test_what_is_reinstated_shares_nothing_with_the_checkpoint() -> None:
    checkpoint = run(capture(State, kernel(1)))
    k = kernel(2)
    run(reinstate(checkpoint, k))
    for array in arrays_of(k):
        array += 1
    k.late["a"] = 99
    assert same(checkpoint, run(capture(State, kernel(1))))


def test_arrays_that_the_kernel_lacks_are_new_copies() -> None:
    checkpoint = run(capture(State, kernel(1)))
    k = kernel(2, layers=[])
    run(reinstate(checkpoint, k))
    for array in checkpoint.layers:
        array += 1
    assert same(k.layers, kernel(1).layers)


def test_reinstate_writes_into_the_arrays_that_the_kernel_has() -> None:
    k = kernel(2)
    before = arrays_of(k)
    run(reinstate(run(capture(State, kernel(1))), k))
    assert all(a is b for a, b in zip(arrays_of(k), before, strict=True))
    assert same(run(capture(State, k)), run(capture(State, kernel(1))))


@NARROW
@given(checkpoints, st.booleans())
def test_reinstate_undoes_any_change(made: tuple[Any, Any], lost: bool) -> None:
    cls, value = made
    names = [f.name for f in attrs.fields(cls)] if attrs.has(cls) else []
    k = SimpleNamespace(**{n: None if lost else getattr(value, n) for n in names})
    if names:
        before = run(capture(cls, SimpleNamespace(**{n: getattr(value, n) for n in names})))
        run(reinstate(before, k))
        assert same(run(capture(cls, k)), before)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"field": np.zeros((3, 2), np.float32)}, "field"),
        ({"field": np.zeros((2, 3), np.float64)}, "field"),
        ({"source": Source(np.zeros(5), "")}, "source.trace"),
        ({"layers": [np.zeros(2, np.int8), np.zeros(4, np.int8)]}, r"layers\[1\]"),
    ],
)
def test_an_array_that_does_not_fit_changes_nothing(change: dict[str, Any], where: str) -> None:
    k = kernel(2, **change)
    before = {n: np.copy(v) if isinstance(v, np.ndarray) else v for n, v in vars(k).items()}
    inner = [a.copy() for a in arrays_of(k)]
    with pytest.raises(InvalidCheckpoint, match=where):
        run(reinstate(run(capture(State, kernel(1))), k))
    assert all(same(getattr(k, n), v) for n, v in before.items())
    assert all(same(a, b) for a, b in zip(arrays_of(k), inner, strict=True))


def test_a_read_only_array_is_refused_before_anything_changes() -> None:
    k = kernel(2)
    k.layers[1].flags.writeable = False
    with pytest.raises(InvalidKernel, match="read-only"):
        run(reinstate(run(capture(State, kernel(1))), k))
    assert k.step == 2
    assert (k.field == 2).all()


def test_a_property_that_returns_copies_is_refused() -> None:
    class Copying(SimpleNamespace):
        @property
        def field(self) -> Any:
            return self.hidden.copy()

    hidden = np.full((2, 3), 2, np.float32)
    k = Copying(**{n: v for n, v in vars(kernel(2)).items() if n != "field"}, hidden=hidden)
    with pytest.raises(InvalidKernel, match=r"Copying\.field"):
        run(reinstate(run(capture(State, kernel(1))), k))
    assert k.step == 2


def test_a_property_that_returns_views_is_restored() -> None:
    class Viewing(SimpleNamespace):
        @property
        def field(self) -> Any:
            return self.hidden[0]

    hidden = np.full((2, 2, 3), 2, np.float32)
    k = Viewing(**{n: v for n, v in vars(kernel(2)).items() if n != "field"}, hidden=hidden)
    run(reinstate(run(capture(State, kernel(1))), k))
    assert (k.hidden[0] == 1).all()
    assert (k.hidden[1] == 2).all()


def test_an_attribute_that_cannot_be_set_rolls_back_the_others() -> None:
    class Stubborn(SimpleNamespace):
        @property
        def note(self) -> None:
            return None

    k = Stubborn(**{n: v for n, v in vars(kernel(2)).items() if n != "note"})
    with pytest.raises(InvalidKernel, match=r"Stubborn\.note"):
        run(reinstate(run(capture(State, kernel(1))), k))
    assert k.step == 2
    assert (k.field == 2).all()
    assert k.source.name == "ss"


def test_a_missing_attribute_is_named() -> None:
    k = kernel()
    del k.field
    for work in (capture(State, k), reinstate(run(capture(State, kernel())), k)):
        with pytest.raises(InvalidKernel, match="no attribute 'field'"):
            run(work)


def test_a_value_of_another_type_is_named() -> None:
    with pytest.raises(InvalidCheckpoint, match=r"State\.layers\[0\]"):
        run(capture(State, kernel(layers=[np.zeros(2)])))


def test_a_checkpoint_of_another_class_is_refused() -> None:
    with pytest.raises(InvalidCheckpoint, match="expected State, got Source"):
        run(reinstate(kernel().source, kernel(), State))


def doubled(x: Any) -> float:
    return float(x) * 2


def test_converters_run_once_at_capture() -> None:
    @attrs.frozen
    class Rounded:
        energy: float = attrs.field(converter=doubled)

    assert run(capture(Rounded, SimpleNamespace(energy=np.float32(1.5)))) == Rounded(1.5)


def test_what_a_validator_refuses_is_not_captured() -> None:
    @attrs.frozen
    class Sound:
        energy: float = attrs.field(validator=attrs.validators.lt(10))

    with pytest.raises(InvalidCheckpoint, match="energy"):
        run(capture(Sound, SimpleNamespace(energy=11.0)))


def test_a_generic_class_with_its_types() -> None:
    cls = Pair[int, Array[np.int8]]
    k = SimpleNamespace(first=1, second=np.ones(2, np.int8))
    checkpoint = run(capture(cls, k))
    other = SimpleNamespace(first=0, second=np.zeros(2, np.int8))
    run(reinstate(checkpoint, other, cls))
    assert other.first == 1
    assert (other.second == 1).all()


def test_a_dlpack_producer_is_read_and_written() -> None:
    class Foreign:
        """An array like those of JAX, torch and others: not of NumPy, but with DLPack."""

        def __init__(self, array: Any) -> None:
            self.array = array

        def __dlpack__(self, **options: Any) -> Any:
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    @attrs.frozen
    class Held:
        field: Array[Any]

    k = SimpleNamespace(field=Foreign(np.arange(3.0)))
    checkpoint = run(capture(Held, k))
    assert same(checkpoint.field, np.arange(3.0))
    k.field.array[:] = 0
    run(reinstate(checkpoint, k))
    assert same(k.field.array, np.arange(3.0))


def positive(_: Any, attribute: Any, value: Any) -> None:
    if not np.all(value > 0):
        raise ValueError(f"{attribute.name} must be positive")


@attrs.frozen
class CheckedCheckpoint:
    first: Array[np.float64]
    second: Array[np.float64] = attrs.field(validator=positive)


class CheckedKernel:
    def __init__(self) -> None:
        self.first, self.second = np.zeros(2), np.ones(2)


@pytest.mark.parametrize("check", [check_fit, lambda *given: asyncio.run(reinstate(*given))])
@pytest.mark.parametrize("fault", ["missing", "invalid", "other"])
def test_what_does_not_fit_is_refused_before_anything_is_written(check: Any, fault: str) -> None:
    kernel = CheckedKernel()
    checkpoint: Any = CheckedCheckpoint(np.full(2, 5.0), np.full(2, 6.0))
    if fault == "missing":
        object.__delattr__(checkpoint, "second")
    elif fault == "invalid":
        checkpoint.second[1] = np.nan
    else:
        checkpoint = CheckedCheckpoint(np.full(2, 5.0), np.full(3, 6.0))
    with pytest.raises(InvalidCheckpoint) as error:
        check(checkpoint, kernel)
    assert ".second" in error.value.where
    assert same((kernel.first, kernel.second), (np.zeros(2), np.ones(2)))


def test_checking_writes_nothing() -> None:
    kernel = CheckedKernel()
    check_fit(CheckedCheckpoint(np.full(2, 5.0), np.full(2, 6.0)), kernel)
    assert same((kernel.first, kernel.second), (np.zeros(2), np.ones(2)))
