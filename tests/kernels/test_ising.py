"""The Ising model against exact solutions, and its random numbers against their definition."""

import functools
import itertools
import math
from typing import Any

import attrs
import numpy as np
import pytest

from checkpointable import InvalidCheckpoint, InvalidKernel
from checkpointable.kernels.ising import CRITICAL_TEMPERATURE, STATE, STREAMS, Ising
from tests.kernels.kernel_checks import assert_same, restore, snapshot


def onsager(temperature: float) -> float:
    """Return the energy per site of the infinite lattice: Onsager (1944), Phys. Rev. 65, 117."""
    k = 1 / temperature
    modulus = 2 * math.sinh(2 * k) / math.cosh(2 * k) ** 2
    factor = 2 * math.tanh(2 * k) ** 2 - 1
    if abs(factor) < 1e-12:  # at the critical point it vanishes faster than K diverges
        return -1 / math.tanh(2 * k)
    return -(1 + 2 / math.pi * factor * elliptic_k(modulus)) / math.tanh(2 * k)


def elliptic_k(modulus: float) -> float:
    """Return the complete elliptic integral of the first kind, by Gauss's mean."""
    a, b = 1.0, math.sqrt((1 - modulus) * (1 + modulus))
    while abs(a - b) > 1e-15 * a:
        a, b = (a + b) / 2, math.sqrt(a * b)
    return math.pi / (2 * a)


def kaufman(n: int, temperature: float) -> float:
    """Return the energy per site of the n x n torus: Kaufman (1949), Phys. Rev. 76, 1232."""

    def log_partition(k: float) -> float:
        gamma = [
            math.acosh(math.cosh(2 * k) / math.tanh(2 * k) - math.cos(math.pi * m / n))
            for m in range(2 * n)
        ]
        gamma[0] = 2 * k + math.log(math.tanh(k))  # changes its sign at the critical point
        parts = []  # sign and logarithm of the products of 2 cosh(n g / 2) and 2 sinh(n g / 2)
        for half in (n / 2 * np.array(gamma[1::2]), n / 2 * np.array(gamma[::2])):
            size, decay = np.abs(half), np.exp(-2 * np.abs(half))
            parts.append((1.0, float(np.sum(size + np.log1p(decay)))))
            if size.min() > 0:
                parts.append((float(np.sign(half[0])), float(np.sum(size + np.log1p(-decay)))))
        largest = max(log for _, log in parts)
        total = sum(sign * math.exp(log - largest) for sign, log in parts)
        return n * n / 2 * math.log(2 * math.sinh(2 * k)) + largest + math.log(total)

    step = 1e-5
    k = 1 / temperature
    return -(log_partition(k + step) - log_partition(k - step)) / (2 * step) / n**2


@functools.cache
def counted(n: int, temperature: float) -> float:
    """Return the energy per site of the n x n torus, summed over every state."""
    states = np.arange(2 ** (n * n), dtype=np.uint32)
    spins = [
        1 - 2 * ((states >> np.uint32(k)) & np.uint32(1)).astype(np.int8) for k in range(n * n)
    ]
    energy = np.zeros(len(states))
    for i, j in itertools.product(range(n), range(n)):
        neighbours = spins[(i + 1) % n * n + j] + spins[i * n + (j + 1) % n]
        energy -= spins[i * n + j] * neighbours
    weight = np.exp(-(energy - energy.min()) / temperature)
    return float((energy * weight).sum() / weight.sum() / n**2)


def measure(n: int, temperature: float, batches: int, sweeps: int) -> tuple[float, float]:
    """Return the energy per site and its standard error, by the means of long batches."""
    ising = Ising(n=n, temperature=temperature, seed=12, warmup=2 * sweeps, device="cpu")
    ising.advance(2 * sweeps)
    sums = [0.0]
    for _ in range(batches):
        ising.advance(sweeps)
        sums.append(ising.mean_energy_per_site * ising.measured)
    means = np.diff(sums) / sweeps
    return float(means.mean()), float(means.std(ddof=1) / math.sqrt(batches))


def test_the_exact_solutions_agree_with_each_other() -> None:
    assert pytest.approx(-math.sqrt(2), abs=1e-9) == onsager(CRITICAL_TEMPERATURE)
    for temperature in (2.0, CRITICAL_TEMPERATURE, 3.0):
        assert kaufman(4, temperature) == pytest.approx(counted(4, temperature), abs=1e-7)
    for temperature in (2.0, 3.0):
        assert kaufman(64, temperature) == pytest.approx(onsager(temperature), abs=1e-6)
    # At the critical point the difference is proportional to 1/n.
    gap = [kaufman(n, CRITICAL_TEMPERATURE) + math.sqrt(2) for n in (32, 64)]
    assert gap[0] / gap[1] == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize("temperature", [2.0, 3.0])
def test_energy_is_onsagers_below_and_above_the_critical_temperature(temperature: float) -> None:
    mean, error = measure(128, temperature, batches=40, sweeps=200)
    assert error < 5e-4
    assert abs(mean - onsager(temperature)) < 4 * error


def test_energy_at_the_critical_temperature() -> None:
    # There the torus differs from the infinite lattice by more than the error, so compare with
    # Kaufman's exact value for the torus.
    mean, error = measure(64, CRITICAL_TEMPERATURE, batches=40, sweeps=2500)
    assert error < 2e-3
    finite = kaufman(64, CRITICAL_TEMPERATURE)
    assert abs(mean - finite) < 4 * error
    infinite = onsager(CRITICAL_TEMPERATURE)
    assert abs(mean - infinite) < 4 * error + abs(finite - infinite)


def test_energy_of_the_smallest_lattice() -> None:
    mean, error = measure(4, 2.5, batches=40, sweeps=1000)
    assert abs(mean - counted(4, 2.5)) < 4 * error


def test_random_numbers_are_those_of_xoroshiro128plus() -> None:
    mask = 2**64 - 1

    def rotate(x: int, bits: int) -> int:
        return (x << bits | x >> (64 - bits)) & mask

    def successor(s0: int, s1: int) -> tuple[int, int]:
        s1 ^= s0
        return rotate(s0, 24) ^ s1 ^ (s1 << 16) & mask, rotate(s1, 37)

    def splitmix(count: int) -> int:
        z = (7 + count * 0x9E3779B97F4A7C15) & mask
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        return z ^ z >> 31

    ising = Ising(n=4, seed=7, device="cpu")  # two streams a row, each draws twice in a sweep
    expected = [(splitmix(2 * k + 1), splitmix(2 * k + 2)) for k in range(8)]
    assert np.array(snapshot(ising).states).flatten().tolist() == expected
    ising.advance(3)
    for _ in range(6):
        expected = [successor(*state) for state in expected]
    assert np.array(snapshot(ising).states).flatten().tolist() == expected


def test_a_half_sweep_offers_flips_to_one_colour_of_the_checkerboard() -> None:
    from checkpointable.kernels.ising.programs import HALF_SWEEP

    ising = Ising(n=12, device="cpu")
    always = np.full(5, 2**53, np.uint64)
    HALF_SWEEP.loop(ising.spins, ising.states, ising.energy, ising.energy_sum, always, 0, False)
    rows, columns = np.indices((12, 12))
    assert np.array_equal(ising.lattice == -1, (rows + columns) % 2 == 0)


def test_the_stored_energy_is_that_of_the_spins() -> None:
    ising = Ising(n=2 * STREAMS + 6, warmup=5, device="cpu")  # streams of unequal length
    energies = []
    for _ in range(9):
        ising.advance(1)
        spins = ising.lattice.astype(np.int64)
        bonds = spins * np.roll(spins, 1, 0) + spins * np.roll(spins, 1, 1)
        energies.append(-bonds.sum() / spins.size)
        assert ising.energy_per_site == energies[-1]
    assert ising.measured == 4
    assert ising.mean_energy_per_site == pytest.approx(np.mean(energies[5:]), abs=1e-12)


def test_cold_lattices_order_and_hot_ones_do_not() -> None:
    for temperature, low, high in ((1.0, 0.99, 1.0), (10.0, -0.1, 0.1)):
        ising = Ising(n=64, temperature=temperature, device="cpu")
        assert ising.magnetisation_per_site == 1
        assert math.isnan(ising.mean_energy_per_site)
        ising.advance(100)
        assert low <= ising.magnetisation_per_site <= high


def test_other_seeds_give_other_lattices() -> None:
    lattices = []
    for seed in (1, 2):
        ising = Ising(n=32, seed=seed, device="cpu")
        ising.advance(5)
        lattices.append(ising.lattice)
    assert not np.array_equal(lattices[0], lattices[1])


@pytest.mark.parametrize(
    ("value", "what"), [(3, "neither 1 nor -1"), (-1, "not that of the spins")]
)
def test_invalid_spins_are_refused(value: int, what: str) -> None:
    ising = Ising(n=8, temperature=0.1, device="cpu")
    before = snapshot(ising)
    spins = np.array(before.spins)
    spins[2, 3] = value
    with pytest.raises(InvalidCheckpoint, match=what):
        restore(ising, attrs.evolve(before, spins=spins))
    assert_same(snapshot(ising), before)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("n", 5), ("n", 2), ("temperature", 0.0), ("temperature", -1.0), ("temperature", math.nan),
        ("temperature", math.inf), ("seed", -1), ("seed", 2**63), ("warmup", -1), ("sweeps", -1),
    ],
)  # fmt: skip
def test_options_out_of_range(option: str, value: Any) -> None:
    with pytest.raises(InvalidKernel, match=f"where: {option}"):
        Ising(device="cpu", **{option: value})


def test_states_are_aligned() -> None:
    """Of others a device loads and stores each byte by itself."""
    assert STATE.isalignedstruct
