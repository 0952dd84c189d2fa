"""The contract, for each kernel of the gallery."""

import importlib
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_origin, get_type_hints

import attrs
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointable import (
    InvalidCheckpoint,
    InvalidKernel,
    KernelMetadata,
    check_kernel,
    checkpoint_size_estimate,
    health_check,
)
from checkpointable.kernels import KERNELS
from checkpointable.kernels._target import choose_target
from tests.kernels.kernel_checks import assert_same, restore, run_in_pieces, snapshot

UNTIL = 24
Make = Callable[..., Any]


def load(name: str) -> Any:
    module, _, factory = KERNELS[name].partition(":")
    return getattr(importlib.import_module(module), factory)


@pytest.fixture(scope="module", params=sorted(KERNELS))
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A small kernel of each kind; `other=True` makes one that must refuse its checkpoints."""
    if request.param == "sketch":
        path = tmp_path_factory.mktemp("sketch") / "numbers"
        np.random.default_rng(1).standard_normal(500).astype("<f8").tofile(path)

    def make(other: bool = False) -> Any:
        factory = load(request.param)
        if request.param == "wave":
            n = 50 if other else 48
            return factory(n=n, period=500.0, duration=20 * 20.0, receivers=5, device="cpu")
        if request.param == "ising":
            return factory(n=24, seed=2 if other else 1, warmup=10, device="cpu")
        return factory(path, batch=20 if other else 25, device="cpu")

    return make


def test_it_fulfils_the_contract(make: Make) -> None:
    kernel = make()
    check_kernel(kernel, steppable=True)
    assert isinstance(kernel.metadata, KernelMetadata)
    assert health_check(kernel).healthy
    assert kernel.step == 0
    assert kernel.total_steps > 0


@settings(max_examples=15)
@given(stops=st.lists(st.integers(0, UNTIL), max_size=4))
def test_stopped_and_resumed_equals_never_stopped(make: Make, stops: list[int]) -> None:
    whole = make()
    whole.advance(UNTIL)
    assert_same(snapshot(run_in_pieces(make, UNTIL, stops)), snapshot(whole))


def test_the_run_changes_the_state_in_every_step(make: Make) -> None:
    kernel = make()
    for _ in range(3):
        before = snapshot(kernel)
        kernel.advance(1)
        with pytest.raises(AssertionError):
            assert_same(attrs.evolve(snapshot(kernel), step=before.step), before)


def test_advancing_by_parts_equals_advancing_at_once(make: Make) -> None:
    by_parts, at_once = make(), make()
    by_parts.advance(7)
    by_parts.advance(0)
    by_parts.advance(4)
    at_once.advance(11)
    assert by_parts.step == 11
    assert_same(snapshot(by_parts), snapshot(at_once))


def test_the_number_of_threads_does_not_matter(make: Make) -> None:
    single, parallel = make(), make()
    single.advance(UNTIL)
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    parallel.advance(UNTIL)
    assert_same(snapshot(single), snapshot(parallel))


def test_a_checkpoint_shares_nothing_with_the_live_state(make: Make) -> None:
    kernel = make()
    kernel.advance(5)
    first, second = snapshot(kernel), snapshot(kernel)
    kernel.advance(5)
    assert_same(first, second)
    fresh = make()
    restore(fresh, first)
    fresh.advance(5)
    assert_same(first, second)
    assert_same(snapshot(fresh), snapshot(kernel))


def test_restoring_twice_is_restoring_once(make: Make) -> None:
    kernel, fresh = make(), make()
    kernel.advance(5)
    saved = snapshot(kernel)
    kernel.advance(4)
    restore(kernel, saved)
    restore(kernel, saved)
    restore(fresh, saved)
    assert_same(snapshot(kernel), snapshot(fresh))


def test_the_size_estimate_is_the_size_of_the_arrays(make: Make) -> None:
    kernel = make()
    saved = snapshot(kernel)
    arrays = [getattr(saved, field.name) for field in attrs.fields(type(saved))]
    size = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
    assert checkpoint_size_estimate(kernel) == size


def test_a_checkpoint_of_another_setup_is_refused_and_changes_nothing(make: Make) -> None:
    kernel, other = make(), make(other=True)
    kernel.advance(3)
    other.advance(5)
    before = snapshot(kernel)
    with pytest.raises(InvalidCheckpoint, match=r"where: setup\."):
        restore(kernel, snapshot(other))
    assert_same(snapshot(kernel), before)


def test_an_array_of_another_shape_is_refused_and_changes_nothing(make: Make) -> None:
    kernel, other = make(), make()
    kernel.advance(3)
    other.advance(5)
    before, taken = snapshot(kernel), snapshot(other)
    last = attrs.fields(type(taken))[-1].name
    bad = attrs.evolve(taken, **{last: np.concatenate([getattr(taken, last)] * 2)})
    with pytest.raises(InvalidCheckpoint):
        restore(kernel, bad)
    assert_same(snapshot(kernel), before)


def test_a_checkpoint_of_another_class_or_a_negative_step_is_refused(make: Make) -> None:
    kernel = make()
    with pytest.raises(InvalidCheckpoint, match="is not a"):
        restore(kernel, object())
    with pytest.raises(InvalidCheckpoint, match="negative"):
        restore(kernel, attrs.evolve(snapshot(kernel), step=-1))


def test_no_such_device() -> None:
    wrong: Any = "tpu"
    with pytest.raises(InvalidKernel, match="'tpu' is not a device"):
        choose_target(wrong)


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_the_options_are_such_as_a_command_line_can_offer(name: str) -> None:
    factory = load(name)
    hints = get_type_hints(factory.__init__)
    for option in inspect.signature(factory).parameters.values():
        hint = hints[option.name]
        assert hint in (int, float, str, bool, Path) or get_origin(hint) is Literal
        assert option.default is not option.empty or option.name == "path"


def test_importing_the_gallery_imports_no_numba() -> None:
    modules = ", ".join(target.partition(":")[0] for target in KERNELS.values())
    code = f"import sys, checkpointable.kernels, {modules}; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
