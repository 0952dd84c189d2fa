"""The sketch against NumPy, Python's exact integers and fractions, and math.fsum."""

import bisect
import math
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from checkpointable import InvalidCheckpoint, InvalidKernel
from checkpointable.kernels.sketch import END, Sketch
from checkpointable.kernels.sketch.layout import BINS, LIMBS, REGISTERS, bin_edges
from tests.kernels.kernel_checks import assert_same, restore, run_in_pieces, snapshot

Write = Callable[..., Path]

any_float = st.one_of(
    st.integers(0, 2**64 - 1).map(lambda bits: float(np.uint64(bits).view(np.float64))),
    st.floats(),
    st.sampled_from([0.0, -0.0, 5e-324, -5e-324, math.inf, -math.inf, math.nan, 1.0, 1.7e308]),
)
any_int = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1, 2**60 - 1]),
)
stops = st.lists(st.integers(0, 12), max_size=4)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(values: Any, dtype: str = "<f8") -> Path:
        path = tmp_path / "numbers"
        np.asarray(values, dtype).tofile(path)
        return path

    return write


def whole(
    path: Path, dtype: Literal["float64", "int64"] = "float64", batch: int = 1 << 20
) -> Sketch:
    sketch = Sketch(path, dtype=dtype, batch=batch, device="cpu")
    sketch.advance(sketch.total_steps)
    return sketch


def in_pieces(values: Any, dtype: Literal["float64", "int64"], batch: int, stops: list[int]) -> Any:
    """Sketch a file of the values in 12 steps or more, resumed at each of the stops."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "numbers")
        values.tofile(path)
        until = max(12, -(-len(values) // batch))
        return run_in_pieces(
            lambda: Sketch(path, dtype=dtype, batch=batch, device="cpu"), until, stops
        )


def bins(magnitudes: list[Any], negative: list[bool]) -> Any:
    """Count by exact comparison with the edges in Python, for floats and ints alike."""
    edges = bin_edges()[: 4 * 0x7FF + 1].tolist()
    counts = np.zeros(BINS, np.int64)
    for magnitude, below in zip(magnitudes, negative, strict=True):
        counts[bisect.bisect_right(edges, magnitude) - 1 + BINS // 2 * below] += 1
    return counts


def registers(bits: Any) -> Any:
    """Return the HyperLogLog registers, by NumPy and Python integers."""
    z = np.asarray(bits, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    ranks = [51 - (h & (2**50 - 1)).bit_length() for h in z.tolist()]
    answer = np.zeros(REGISTERS, np.uint32)
    np.maximum.at(answer, z >> np.uint64(50), np.array(ranks, np.uint32))
    return answer


@given(st.lists(any_float, max_size=60), st.integers(1, 70), stops)
@example([math.inf, -math.inf], 1, [1])
@example([1.7e308, 1.7e308, -1.7e308], 1, [])
@example([1.0, 2.0**-53, 2.0**-1074], 3, [])
@example([], 1, [])
def test_floats_are_summarised_exactly(values: list[float], batch: int, stops: list[int]) -> None:
    array = np.array(values, "<f8")
    sketch = in_pieces(array, "float64", batch, stops)
    summary, numbers = sketch.summary(), array[~np.isnan(array)]
    finite = array[np.isfinite(array)]
    assert summary.count == len(values)
    assert summary.nans == np.isnan(array).sum()
    assert summary.minimum == (numbers.min() if len(numbers) else None)
    assert summary.maximum == (numbers.max() if len(numbers) else None)
    assert np.array_equal(
        sketch.counts(), bins(np.abs(finite).tolist(), np.signbit(finite).tolist())
    )
    if len(finite) == len(array):
        exact = sum(map(Fraction, values), Fraction(0))
        try:
            expected = float(exact)
        except OverflowError:
            expected = math.inf if exact > 0 else -math.inf
        assert summary.total == expected
    else:
        with np.errstate(invalid="ignore"):
            expected = array[~np.isfinite(array)].sum()
        assert summary.total == expected or (math.isnan(summary.total) and math.isnan(expected))
    canonical = np.where(array == 0, 0.0, np.where(np.isnan(array), math.nan, array))
    same = canonical.astype("<f8").view(np.uint64)
    same[np.isnan(array)] = 0x7FF8 << 48
    assert np.array_equal(snapshot(sketch).registers, registers(same))


@given(st.lists(any_int, max_size=60), st.integers(1, 70), stops)
@example([-(2**63)] * 5, 2, [1])
def test_integers_are_summarised_exactly(values: list[int], batch: int, stops: list[int]) -> None:
    array = np.array(values, "<i8")
    sketch = in_pieces(array, "int64", batch, stops)
    summary = sketch.summary()
    assert (summary.count, summary.nans) == (len(values), 0)
    assert summary.total == sum(values)
    assert summary.minimum == min(values, default=None)
    assert summary.maximum == max(values, default=None)
    assert np.array_equal(sketch.counts(), bins([abs(v) for v in values], [v < 0 for v in values]))
    assert np.array_equal(snapshot(sketch).registers, registers(array.view(np.uint64)))


def test_a_large_file_against_numpy(write: Write) -> None:
    rng = np.random.default_rng(3)
    values = rng.standard_normal(1_000_003) * 10.0 ** rng.integers(-200, 200, 1_000_003)
    sketch = whole(write(values), batch=100_000)
    summary = sketch.summary()
    assert sketch.total_steps == 11
    assert summary.count == len(values)
    assert (summary.minimum, summary.maximum) == (values.min(), values.max())
    assert summary.total == math.fsum(values)
    edges = bin_edges()[: 4 * 0x7FF + 1]
    for sign, half in ((1, slice(0, BINS // 2 - 4)), (-1, slice(BINS // 2, BINS - 4))):
        counts, _ = np.histogram(sign * values[sign * values > 0], edges)
        assert np.array_equal(sketch.counts()[half], counts)


@pytest.mark.parametrize("distinct", [0, 10, 1000, 20_000, 50_000, 100_000, 1_000_000])
def test_distinct_values_within_three_standard_errors(write: Write, distinct: int) -> None:
    values = np.random.default_rng(distinct).permutation(np.tile(np.arange(distinct) / 7, 2))
    error = 1.04 / math.sqrt(REGISTERS)
    estimate = whole(write(values)).summary().distinct
    assert abs(estimate - distinct) <= 3 * error * distinct


def test_equal_values_count_once(write: Write) -> None:
    nans = np.array([0x7FF8 << 48, 0xFFF8 << 48, (0x7FF << 52) + 1], np.uint64).view(np.float64)
    assert whole(write([0.0, -0.0])).summary().distinct == pytest.approx(1, abs=1e-3)
    assert whole(write(nans)).summary().distinct == pytest.approx(1, abs=1e-3)


def test_carries_keep_every_limb_within_its_32_bits(write: Write) -> None:
    limbs = np.array(snapshot(whole(write([1.7e308] * 64), batch=1)).limbs)
    assert len(limbs) == LIMBS
    assert np.all((limbs[:-1] >= 0) & (limbs[:-1] < 2**32))


def test_batches_and_steps_past_the_end_change_nothing(write: Write) -> None:
    path = write(np.random.default_rng(5).standard_normal(1000))
    one, other = whole(path, batch=7), whole(path, batch=999)
    assert one.total_steps == 143
    assert one.summary() == other.summary()
    one.advance(3)
    assert (one.step, one.offset) == (146, 1000)
    assert one.summary() == other.summary()


def test_a_file_of_another_name_is_continued(write: Write, tmp_path: Path) -> None:
    path = write(np.arange(100))
    sketch = Sketch(path, batch=10, device="cpu")
    sketch.advance(4)
    saved = snapshot(sketch)
    moved = Sketch(path.rename(tmp_path / "moved"), batch=10, device="cpu")
    restore(moved, saved)
    moved.advance(6)
    assert moved.summary().total == 4950


@pytest.mark.parametrize(
    ("change", "where"),
    [(lambda v: v[:-1], "setup.size"), (lambda v: v + 1, "setup.ends")],
)
def test_another_file_is_refused(write: Write, change: Callable[[Any], Any], where: str) -> None:
    values = np.arange(END / 4)  # so long that its ends do not overlap
    sketch = Sketch(write(values), device="cpu")
    sketch.advance(1)
    saved = snapshot(sketch)
    other = Sketch(write(change(values)), device="cpu")
    before = snapshot(other)
    with pytest.raises(InvalidCheckpoint, match=f"where: {where}"):
        restore(other, saved)
    assert_same(snapshot(other), before)


def test_counts_that_contradict_what_was_read_are_refused(write: Write) -> None:
    sketch = Sketch(write(np.arange(30.0)), batch=10, device="cpu")
    sketch.advance(1)
    saved = snapshot(sketch)
    for bad in ({"offset": 20}, {"step": 2}, {"histogram": 2 * np.array(saved.histogram)}):
        with pytest.raises(InvalidCheckpoint):
            restore(sketch, attrs.evolve(saved, **bad))
    assert_same(snapshot(sketch), saved)


def test_a_file_that_shrinks_or_vanishes_stops_the_run_between_batches(write: Write) -> None:
    path = write(np.arange(30.0))
    sketch = Sketch(path, batch=10, device="cpu")
    sketch.advance(1)
    before = snapshot(sketch)
    write(np.arange(15.0))
    with pytest.raises(InvalidKernel, match="shorter"):
        sketch.advance(1)
    path.unlink()
    with pytest.raises(InvalidKernel, match="cannot be read"):
        sketch.advance(1)
    assert_same(snapshot(sketch), before)


def test_files_and_options_that_make_no_sense(tmp_path: Path, write: Write) -> None:
    with pytest.raises(InvalidKernel, match="No such file"):
        Sketch(tmp_path / "absent", device="cpu")
    with pytest.raises(InvalidKernel, match="cannot be read"):
        Sketch(tmp_path, device="cpu")
    with pytest.raises(InvalidKernel, match="12 bytes are not a whole number"):
        Sketch(write(np.arange(3), "<i4"), device="cpu")
    path = write(np.arange(3))
    for batch in (0, 2**30 + 1):
        with pytest.raises(InvalidKernel, match="where: batch"):
            Sketch(path, batch=batch, device="cpu")
    wrong: Any = "float32"
    with pytest.raises(InvalidKernel, match="where: dtype"):
        Sketch(path, dtype=wrong, device="cpu")
