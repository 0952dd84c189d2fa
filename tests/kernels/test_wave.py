"""The wave against exact plane waves, and against travel times of PREM by TauP."""

import math
from typing import Any, Literal

import attrs
import numpy as np
import pytest

from checkpointable import InvalidKernel
from checkpointable.kernels.wave import UNIFORM_SPEED, Wave
from checkpointable.kernels.wave.prem import RADIUS, speed
from tests.kernels.kernel_checks import restore, snapshot

# First arrivals of P (PKIKP from 160°) in seconds, by distance in degrees and depth in km:
# obspy.taup 1.5.1, TauPyModel("prem").get_travel_times(depth, distance, phase_list=["ttp"]).
# TauP: Crotwell, Owens and Ritsema (1999), Seismological Research Letters 70, 154-160.
TAUP = {
    0: {30: 369.58, 40: 455.51, 50: 534.96, 60: 607.15, 70: 672.06, 80: 729.67, 90: 779.69,
        160: 1199.03, 170: 1207.59, 180: 1210.48},
    600: {30: 321.29, 40: 403.84, 50: 479.89, 60: 549.14, 70: 611.54, 80: 666.95, 90: 715.27,
          160: 1129.68, 170: 1138.03, 180: 1140.85},
}  # fmt: skip


def plane_wave(wave: Wave, wavelength: float, time: float) -> Any:
    """Return sin(k (x·u - c t)) on the grid, in a direction along no axis."""
    x = wave.cell * (np.arange(wave.setup.n) - (wave.setup.n - 1) / 2)
    along = math.cos(0.5) * x[:, None] + math.sin(0.5) * x
    return np.sin(2 * np.pi / wavelength * (along - UNIFORM_SPEED * time))


def silent(n: int, **options: Any) -> Wave:
    return Wave(model="uniform", n=n, period=8000.0, amplitude=0.0, duration=1.0, receivers=1,
                device="cpu", **options)  # fmt: skip


def set_fields(wave: Wave, now: Any, before: Any) -> None:
    fields = {"pressure": now.astype(np.float32), "pressure_before": before.astype(np.float32)}
    restore(wave, attrs.evolve(snapshot(wave), **fields))


def middle(field: Any, part: int) -> Any:
    """Return the cells further than (part - 1) / (2 part) of the side from all edges."""
    n = len(field)
    inside = slice(n // 2 - n // (2 * part), n // 2 + n // (2 * part))
    return field[inside, inside]


def orders(errors: list[float]) -> Any:
    return np.log2(np.array(errors[:-1]) / np.array(errors[1:]))


def test_a_plane_wave_converges_with_second_order() -> None:
    # The time step shrinks with the cell, and its error dominates. Until the wave has crossed a
    # fifth of the square, the edges (a sixth of it each) cannot reach the middle quarter.
    wavelength = 2 * RADIUS / 6
    errors = []
    for n in (64, 128, 256):
        wave = silent(n)
        steps = round(0.2 * 2 * RADIUS / UNIFORM_SPEED / wave.time_step)
        set_fields(
            wave, plane_wave(wave, wavelength, 0), plane_wave(wave, wavelength, -wave.time_step)
        )
        wave.advance(steps)
        exact = plane_wave(wave, wavelength, steps * wave.time_step)
        errors.append(float(np.abs(middle(wave.wavefield - exact, 4)).max()))
    assert errors[-1] < 0.02
    assert orders(errors) == pytest.approx(2, abs=0.2)


def test_space_is_differenced_with_fourth_order() -> None:
    # From rest, one step adds (c dt)² ∇²p exactly, so an error in time cannot hide that in space.
    wavelength = 2 * RADIUS / 6
    errors = []
    for n in (36, 72):  # finer, and the rounding of float32 shows
        wave = silent(n)
        start = plane_wave(wave, wavelength, 0).astype(np.float32)
        set_fields(wave, start, start)
        wave.advance(1)
        added = (wave.wavefield - start) / (UNIFORM_SPEED * wave.time_step) ** 2
        exact = -((2 * np.pi / wavelength) ** 2) * start
        errors.append(float(np.abs(middle(added / exact.max() - exact / exact.max(), 2)).max()))
    assert orders(errors) == pytest.approx(4, abs=0.3)


def test_the_largest_time_step_is_stable() -> None:
    models: tuple[Literal["prem", "uniform"], ...] = ("prem", "uniform")
    for model in models:
        wave = Wave(model=model, n=48, period=500.0, courant=1.0, device="cpu")
        wave.advance(wave.total_steps)
        peak = np.abs(wave.wavefield).max()
        wave.advance(20 * wave.total_steps)
        assert 0 < np.abs(wave.wavefield).max() < 10 * peak


def test_the_edges_absorb() -> None:
    wave = Wave(model="uniform", n=192, period=80.0, duration=2000.0, device="cpu")
    arrived = 120 + float(wave.distances[-1]) / UNIFORM_SPEED  # the peak, at the sponge
    wave.advance(round(arrived / wave.time_step))
    loudest = np.abs(wave.wavefield).max()
    wave.advance(wave.total_steps - wave.step)
    assert np.abs(wave.wavefield).max() < 0.03 * loudest


def test_nothing_leaves_the_earth() -> None:
    wave = Wave(n=64, period=400.0, device="cpu")
    wave.advance(wave.total_steps)
    x = wave.cell * (np.arange(64) - 31.5)
    outside = np.hypot(x[:, None], x) > RADIUS
    assert np.all(wave.wavefield[outside] == 0)
    assert np.abs(wave.wavefield[~outside]).min() > 0


def test_prem_is_as_published() -> None:
    # Dziewonski and Anderson (1981), table II, on either side of the great discontinuities.
    radii = np.array([0, 1221.5, 1221.6, 3480, 3480.001, 5701, 5701.001, 5971, 5971.001, 6371])
    published = [
        11.2622,
        11.02827,
        10.35568,
        8.06482,
        13.7166,
        10.75131,
        10.26622,
        9.13397,
        8.90522,
        5.8,
    ]
    assert speed(radii) == pytest.approx(published, abs=1e-3)


@pytest.fixture(scope="module")
def default_run() -> Wave:
    wave = Wave(device="cpu")
    wave.advance(wave.total_steps)
    return wave


def test_first_arrivals_are_those_of_prem(default_run: Wave) -> None:
    assert default_run.setup.depth == 600
    arrivals = dict(zip(default_run.distances.tolist(), default_run.first_arrivals(), strict=True))
    measured = {distance: arrivals[distance] for distance in TAUP[600]}
    assert measured == pytest.approx(TAUP[600], rel=0.01)


def test_first_arrivals_from_the_surface_and_from_any_side() -> None:
    wave = Wave(n=500, period=60.0, depth=0.0, angle=200.0, duration=1400.0, device="cpu")
    wave.advance(wave.total_steps)
    arrivals = dict(zip(wave.distances.tolist(), wave.first_arrivals(), strict=True))
    measured = {distance: arrivals[distance] for distance in TAUP[0]}
    assert measured == pytest.approx(TAUP[0], rel=0.02)


def test_the_shadow_of_the_core(default_run: Wave) -> None:
    # Between 100° and 140° the core bends P away: what arrives early there is diffracted and weak.
    by_distance = dict(zip(default_run.distances.tolist(), default_run.seismograms, strict=True))
    early = {d: np.abs(by_distance[d][: int(900 / default_run.time_step)]).max() for d in (60, 130)}
    assert early[130] < 0.2 * early[60]


@pytest.mark.filterwarnings("ignore")
def test_the_table_is_that_of_taup() -> None:
    taup = pytest.importorskip("obspy.taup", reason="obspy, the source of the table, is not here")
    model = taup.TauPyModel("prem")
    for depth, times in TAUP.items():
        for distance, time in times.items():
            first = model.get_travel_times(depth, distance, phase_list=["ttp"])[0].time
            assert first == pytest.approx(time, abs=0.02)


def test_first_arrivals_in_a_uniform_medium() -> None:
    wave = Wave(model="uniform", n=256, period=100.0, duration=800.0, device="cpu")
    wave.advance(wave.total_steps)
    assert wave.first_arrivals() == pytest.approx(wave.distances / UNIFORM_SPEED, rel=0.01)


def test_no_arrivals_without_a_wave() -> None:
    for wave in (silent(16), Wave(n=16, period=1500.0, duration=1.0, amplitude=0.0, device="cpu")):
        wave.advance(3)
        assert wave.total_steps == 1
        assert np.isnan(wave.first_arrivals()).all()


def test_steps_after_the_recording_are_not_recorded() -> None:
    wave = Wave(n=48, period=500.0, duration=300.0, device="cpu")
    wave.advance(wave.total_steps)
    recorded, field = snapshot(wave).seismograms, wave.wavefield
    wave.advance(5)
    assert np.array_equal(snapshot(wave).seismograms, recorded)
    assert not np.array_equal(wave.wavefield, field)


def test_health() -> None:
    wave = silent(16)
    assert wave.health_check().healthy
    field = np.zeros((16, 16))
    field[8, 8] = np.nan
    for fields in ((field, field), (np.zeros((16, 16)), field), (field, np.zeros((16, 16)))):
        set_fields(wave, *fields)
        assert wave.health_check().reason == "1 cells are not finite"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("model", "iasp91"), ("n", 11), ("depth", -1.0), ("depth", 6371.0), ("angle", math.nan),
        ("duration", 0.0), ("duration", math.inf), ("receivers", 0), ("amplitude", math.inf),
        ("courant", 0.0), ("courant", 1.01), ("period", 5.0), ("period", math.nan),
    ],
)  # fmt: skip
def test_options_out_of_range(option: str, value: Any) -> None:
    with pytest.raises(InvalidKernel, match=f"where: {option}"):
        Wave(device="cpu", **{option: value})
