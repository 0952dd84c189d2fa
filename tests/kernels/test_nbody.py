"""The bodies against Kepler's orbits, a sum by NumPy, and what gravity conserves."""

import math
from typing import Any

import attrs
import numpy as np
import pytest

from checkpointable import InvalidKernel
from checkpointable.kernels.nbody import SCALE, NBody, plummer_sphere
from tests.kernels.kernel_checks import assert_same, restore, snapshot

ECCENTRICITY = 0.5
PERIOD = 2 * math.pi  # by Kepler's third law: the semi-major axis, the total mass and G are 1


def kepler(time: float) -> tuple[Any, Any]:
    """Return the separation of two bodies, and its derivative, on an exact ellipse.

    At time 0 they are closest. Kepler's equation, E - e sin E = t, is solved by Newton's method.
    """
    e = ECCENTRICITY
    anomaly = time
    for _ in range(50):
        anomaly -= (anomaly - e * math.sin(anomaly) - time) / (1 - e * math.cos(anomaly))
    height = math.sqrt(1 - e**2)
    place = [math.cos(anomaly) - e, height * math.sin(anomaly), 0.0]
    speed = 1 / (1 - e * math.cos(anomaly))
    motion = [-speed * math.sin(anomaly), speed * height * math.cos(anomaly), 0.0]
    return np.array(place), np.array(motion)


def two_bodies(steps_a_period: int) -> NBody:
    pair = NBody(n=2, softening=0.0, time_step=PERIOD / steps_a_period, device="cpu")
    place, motion = (np.outer([-0.5, 0.5], vector) for vector in kepler(0.0))
    restore(pair, attrs.evolve(snapshot(pair), positions=place, velocities=motion))
    return pair


def separation(pair: NBody) -> Any:
    positions = snapshot(pair).positions
    return np.array(positions[1]) - np.array(positions[0])


def test_keplers_ellipse_is_solved() -> None:
    # By the conic's equation, and by the vis-viva equation.
    for time in np.linspace(0, PERIOD, 7):
        place, motion = kepler(time)
        distance = float(np.hypot(*place[:2]))
        assert distance == pytest.approx((1 - ECCENTRICITY**2) - ECCENTRICITY * place[0])
        assert motion @ motion == pytest.approx(2 / distance - 1)


def test_two_bodies_move_on_keplers_ellipse() -> None:
    pair = two_bodies(20_000)
    for eighth in range(1, 9):
        pair.advance(2500)
        assert separation(pair) == pytest.approx(kepler(eighth * PERIOD / 8)[0], abs=5e-6)
    velocities = snapshot(pair).velocities
    assert velocities[1] - velocities[0] == pytest.approx(kepler(0.0)[1], abs=2e-5)


def test_the_error_shrinks_with_the_second_power_of_the_time_step() -> None:
    errors = []
    for steps in (500, 1000, 2000, 4000):
        pair = two_bodies(steps)
        pair.advance(steps * 7 // 10)
        errors.append(float(np.linalg.norm(separation(pair) - kepler(0.7 * PERIOD)[0])))
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert orders == pytest.approx(2, abs=0.02)


def test_the_energy_of_an_orbit_does_not_drift() -> None:
    # A method that is not symplectic loses some in each period. E = -m m' / 2a.
    pair = two_bodies(200)
    errors = []
    for _ in range(100):
        pair.advance(200)
        errors.append(pair.energy + 0.125)
    assert np.abs(errors).max() < 1e-3
    assert np.abs(np.mean(errors[50:]) - np.mean(errors[:50])) < 1e-4


@pytest.mark.parametrize("softening", [0.0, 0.3])
def test_the_pull_is_the_sum_over_all_pairs(softening: float) -> None:
    cluster = NBody(n=37, softening=softening, device="cpu")
    place, velocities = cluster.positions, cluster.velocities
    apart = place[None, :] - place[:, None]
    distance = np.sqrt((apart**2).sum(axis=2) + softening**2 + np.eye(37))
    expected = (apart / distance[:, :, None] ** 3).sum(axis=1) / 37
    potential = ((np.eye(37) - 1) / distance).sum() / 2 / 37**2

    assert cluster.potential_energy == pytest.approx(potential, rel=1e-13)
    assert cluster.kinetic_energy == pytest.approx((velocities**2).sum() / 2 / 37, rel=1e-13)
    # A short step changes the velocities by the pull.
    before = np.array(velocities)
    short = NBody(n=37, softening=softening, time_step=1e-6, device="cpu")
    short.advance(1)
    assert 1e6 * (short.velocities - before) == pytest.approx(expected, abs=1e-4)


def test_energy_and_momentum_are_conserved_as_the_docstring_says() -> None:
    for cluster, steps, bound in (
        (NBody(device="cpu"), 128, 2e-5),
        (NBody(n=256, device="cpu"), 1280, 1e-4),
    ):
        turning, errors = cluster.angular_momentum, []
        while cluster.step < steps:
            cluster.advance(16)
            errors.append(abs(cluster.energy_error))
        assert 0 < max(errors) < bound
        assert np.abs(cluster.momentum).max() < 1e-13
        assert np.abs(cluster.angular_momentum - turning).max() < 1e-13


def test_time_can_be_turned_back() -> None:
    cluster = NBody(n=50, device="cpu")
    start = snapshot(cluster)
    cluster.advance(100)
    turned = snapshot(cluster)
    restore(cluster, attrs.evolve(turned, velocities=-np.array(turned.velocities)))
    cluster.advance(100)
    assert np.abs(cluster.positions - np.array(start.positions)).max() < 1e-11


def test_the_sphere_is_plummers_and_in_equilibrium() -> None:
    n = 4000
    positions, velocities = plummer_sphere(n, seed=3)
    radius = np.sort(np.linalg.norm(positions, axis=1))
    within = (1 + (SCALE / radius) ** 2) ** -1.5
    assert np.abs(within - np.arange(n) / n).max() < 2 / math.sqrt(n)  # Kolmogorov and Smirnov
    # <v²> = 1 / (2 √(r² + a²)) everywhere, and the same along all axes.
    slow = (velocities**2).sum(axis=1) * 2 * np.sqrt((positions**2).sum(axis=1) + SCALE**2)
    assert slow.mean() == pytest.approx(1, abs=0.03)
    assert (velocities**2).mean(axis=0) == pytest.approx(1 / 6, rel=0.06)

    cluster = NBody(n=n, seed=3, softening=0.0, device="cpu")
    assert cluster.energy == pytest.approx(-1 / 4, rel=0.03)
    assert cluster.summary()["virial ratio"] == pytest.approx(1, abs=0.03)
    assert cluster.half_mass_radius == pytest.approx(1.305 * SCALE, rel=0.05)
    for vectors in (positions, velocities):
        assert np.abs(vectors.mean(axis=0)).max() < 1e-15


def test_it_stays_in_equilibrium() -> None:
    cluster = NBody(n=256, device="cpu")
    before = cluster.half_mass_radius
    cluster.advance(640)
    assert cluster.half_mass_radius == pytest.approx(before, rel=0.15)


def test_other_seeds_give_other_bodies() -> None:
    one, same, other = (NBody(n=5, seed=seed, device="cpu") for seed in (1, 1, 2))
    assert_same(snapshot(one), snapshot(same))
    assert not np.array_equal(one.positions, other.positions)


def test_the_energy_at_the_start_is_restored() -> None:
    cluster = NBody(n=5, device="cpu")
    saved = attrs.evolve(snapshot(cluster), energy_at_start=-2.0)
    restore(cluster, saved)
    assert cluster.energy_error == pytest.approx((cluster.energy + 2) / 2)


def test_natural_runs_last_as_long_as_asked() -> None:
    cluster = NBody(n=2, time_step=0.25, duration=1.1, device="cpu")
    assert cluster.total_steps == 5
    cluster.advance(6)
    assert cluster.time == 1.5


def test_health() -> None:
    cluster = NBody(n=3, softening=0.0, device="cpu")
    assert cluster.health_check().healthy
    saved = snapshot(cluster)
    positions = np.array(saved.positions)
    positions[1, 2] = math.inf
    restore(cluster, attrs.evolve(saved, positions=positions))
    assert cluster.health_check().reason == "1 bodies have non-finite positions or velocities"
    positions[1] = positions[0]  # where Newton's gravity is infinite
    restore(cluster, attrs.evolve(saved, positions=positions))
    assert cluster.health_check().reason == "the energy is nan"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("n", 1), ("seed", -1), ("seed", 2**63), ("softening", -0.1), ("softening", math.nan),
        ("softening", math.inf), ("time_step", 0.0), ("time_step", math.inf), ("duration", -1.0),
        ("duration", math.nan),
    ],
)  # fmt: skip
def test_options_out_of_range(option: str, value: Any) -> None:
    with pytest.raises(InvalidKernel, match=f"where: {option}"):
        NBody(device="cpu", **{option: value})
