"""The two-dimensional Ising model: spins ±1 on a square lattice, by Metropolis' algorithm.

E = -Σ s_i s_j over neighbouring pairs, with J = k_B = 1, on a torus. The two colours of a
checkerboard are updated in turn, all spins of one colour at once, since none are neighbours.
"""

import math
from typing import Any

import numpy as np
from attrs import frozen

from checkpointable import Array, KernelMetadata, capture, checkpoint, reinstate
from checkpointable.kernels.checks import check_checkpoint, check_option, check_value, on_host
from checkpointable.kernels.target import Device, choose_target

CRITICAL_TEMPERATURE = 2 / math.log(1 + math.sqrt(2))
"""Onsager's 2 / ln(1 + √2), where the infinite lattice orders."""

STREAMS = 64  # of random numbers per row, at most: enough threads for a device, in little memory
STATE = np.dtype([("s0", "<u8"), ("s1", "<u8")], align=True)  # as Numba's xoroshiro128p_dtype

Int8 = np.ndarray[Any, np.dtype[np.int8]]


@frozen
class IsingSetup:
    """The options that a checkpoint and the kernel that restores it must share; see `Ising`."""

    n: int
    temperature: float
    seed: int
    warmup: int


@checkpoint("ising")
@frozen
class IsingCheckpoint:
    """The state of an `Ising` after `step` sweeps.

    `spins`, (n, n) int8, is the lattice. Each row has w streams of random numbers. For each,
    `states`, (n, w) of {s0, s1: uint64}, is the generator's state; `energy`, (n, w) int64, is what
    its flips have added to the energy; `energy_sum`, (n, w) int64, is the sum of `energy` over the
    measured sweeps.
    """

    step: int
    setup: IsingSetup
    spins: Array[np.int8]
    states: Array[np.void]
    energy: Array[np.int64]
    energy_sum: Array[np.int64]


class Ising:
    """An Ising lattice at one temperature, from all spins up. One step is one sweep.

    `n`
        side of the lattice; even.
    `temperature`
        in units of J / k_B. The default is the critical one.
    `seed`
        of the random numbers, 0 to 2^63 - 1.
    `warmup`
        sweeps before measuring begins.
    `sweeps`
        `total_steps`, the length of a natural run. A kernel can be advanced beyond it.
    `device`
        "cpu", "cuda", or "auto" for CUDA where there is a device.

    Raises `InvalidKernel` on an option out of range.

    The spins are the same, bit for bit, on the CPU with any number of cores and on CUDA: flips
    are decided, and energies summed, in integers. Random numbers are those of xoroshiro128+
    (Blackman and Vigna 2021, Scrambled linear pseudorandom number generators, ACM TOMS 47:36),
    one stream for each row and each of up to 64 sets of columns, seeded by SplitMix64 as its
    authors advise.

    >>> hot = Ising(n=16, temperature=5.0, warmup=50, device="cpu")
    >>> hot.advance(250)
    >>> hot.measured, -0.6 < hot.mean_energy_per_site < -0.3
    (200, True)
    """

    metadata = KernelMetadata(id="ising", version="1", domain="statistical physics",
                              description="two-dimensional Ising model, Metropolis")  # fmt: skip

    def __init__(
        self,
        *,
        n: int = 512,
        temperature: float = CRITICAL_TEMPERATURE,
        seed: int = 1,
        warmup: int = 1000,
        sweeps: int = 10_000,
        device: Device = "auto",
    ) -> None:
        check_option("n", f"{n=} does not fit a checkerboard", valid=n >= 4 and n % 2 == 0,
                     hint="use an even number, 4 or more")  # fmt: skip
        check_option("temperature", f"{temperature=}", valid=0 < temperature < math.inf,
                     hint="use a number > 0")  # fmt: skip
        check_option("seed", f"{seed=}", valid=0 <= seed < 2**63, hint="use 0 to 2^63 - 1")
        check_option("warmup", f"{warmup=}", valid=warmup >= 0, hint="use 0 or more")
        check_option("sweeps", f"{sweeps=}", valid=sweeps >= 0, hint="use 0 or more")

        from checkpointable.kernels.ising import programs

        self._program = programs.HALF_SWEEP
        self._target = choose_target(device)
        self.setup = IsingSetup(n, float(temperature), seed, warmup)
        self.total_steps = sweeps
        self.step = 0
        place, streams = self._target.place, min(n // 2, STREAMS)
        self.spins = place(np.ones((n, n), np.int8))
        self.states = place(_seeded(seed, n, streams))
        self.energy = place(np.zeros((n, streams), np.int64))
        self.energy_sum = place(np.zeros((n, streams), np.int64))
        self._thresholds = place(_thresholds(temperature))

    def advance(self, steps: int) -> None:
        """Do `steps` sweeps: each spin is offered one flip in each."""
        threads = self.states.shape[0] * self.states.shape[1]
        for _ in range(steps):
            for colour in (0, 1):
                self._target.launch(
                    self._program, threads, self.spins, self.states, self.energy, self.energy_sum,
                    self._thresholds, colour, colour == 1 and self.step >= self.setup.warmup,
                )  # fmt: skip
            self.step += 1
        self._target.wait()

    async def checkpoint(self) -> IsingCheckpoint:
        """Return a snapshot of the state."""
        return await capture(IsingCheckpoint, self)

    async def restore(self, checkpoint: IsingCheckpoint) -> None:
        """Continue from `checkpoint`.

        Raises `InvalidCheckpoint` if its setup is another, or its energy is not that of its spins.
        """
        check_checkpoint(checkpoint, IsingCheckpoint, self, self.setup)
        spins = on_host(checkpoint.spins)
        valid = bool(np.all(np.abs(spins) == 1))
        check_value("spins", "a spin is neither 1 nor -1", valid=valid)
        energy = _ground_energy(self.setup.n) + int(on_host(checkpoint.energy).sum())
        valid = _energy(spins) == energy
        check_value("energy", "the energy is not that of the spins", valid=valid)
        await reinstate(checkpoint, self)

    def checkpoint_size_estimate(self) -> int:
        """Return the size of a checkpoint's arrays in bytes."""
        n, streams = self.states.shape
        return int(n * n + 32 * n * streams)

    @property
    def lattice(self) -> Int8:
        """A copy of the spins on the host, (n, n) int8."""
        return self._target.fetch(self.spins)

    @property
    def measured(self) -> int:
        """The number of sweeps that the mean energy is over."""
        return max(0, self.step - self.setup.warmup)

    @property
    def energy_per_site(self) -> float:
        """The energy per site now, in units of J: -2 is the ground state."""
        n = self.setup.n
        return (_ground_energy(n) + int(self._target.fetch(self.energy).sum())) / n**2

    @property
    def mean_energy_per_site(self) -> float:
        """The energy per site, in units of J, averaged over the measured sweeps; NaN at first."""
        if self.measured == 0:
            return math.nan
        n = self.setup.n
        total = sum(int(row) for row in self._target.fetch(self.energy_sum).sum(axis=1))
        return (_ground_energy(n) + total / self.measured) / n**2

    @property
    def magnetisation_per_site(self) -> float:
        """The mean spin now, -1 to 1."""
        return int(self.lattice.sum(dtype=np.int64)) / self.setup.n**2

    def summary(self) -> dict[str, float]:
        """Return the mean energy, and the magnetisation now, per site."""
        return {
            "mean energy per site": self.mean_energy_per_site,
            "magnetisation per site": self.magnetisation_per_site,
        }


def _ground_energy(n: int) -> int:
    return -2 * n * n


def _energy(spins: Int8) -> int:
    bonds = spins * (np.roll(spins, 1, axis=0) + np.roll(spins, 1, axis=1))
    return -int(bonds.sum(dtype=np.int64))


def _thresholds(temperature: float) -> Any:
    """Return, for s Σ s' = -4, -2, 0, 2, 4, what 53 random bits must be below for a flip."""
    change = 2.0 * np.array([-4, -2, 0, 2, 4])
    return np.rint(np.exp(np.minimum(0, -change / temperature)) * 2.0**53).astype(np.uint64)


def _seeded(seed: int, n: int, streams: int) -> Any:
    """Return (n, streams) generator states: successive outputs of SplitMix64 from the seed.

    Steele, Lea and Flood (2014), Fast splittable pseudorandom number generators, OOPSLA. Its
    outputs in one period are all different, so no state is all zeros.
    """
    count = np.arange(1, 2 * n * streams + 1, dtype=np.uint64)
    z = np.uint64(seed) + count * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z.astype("<u8").view(STATE).reshape(n, streams)
