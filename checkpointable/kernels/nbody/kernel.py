"""Bodies that attract each other: a star cluster, from Plummer's sphere.

Newton's equations with softened gravity, x" = Σ m (x_j - x) / (|x_j - x|² + ε²)^(3/2) (Plummer
1911, MNRAS 71, 460-470), summed over all pairs in float64, and followed by the leapfrog in its form
kick-drift-kick: second order, symplectic, reversible. Units are those of N-body work (Hénon 1971,
Astrophysics and Space Science 14, 151-167): gravity's constant 1, mass of all bodies 1, energy of
the unsoftened sphere -1/4; then the cluster is crossed in a time of 2√2.
"""

import math
from typing import Any

import numpy as np
from attrs import frozen

from checkpointable import Array, HealthStatus, KernelMetadata, capture, checkpoint, reinstate
from checkpointable.kernels.checks import check_checkpoint, check_option
from checkpointable.kernels.target import Device, choose_target

Float64 = np.ndarray[Any, np.dtype[np.float64]]

SCALE = 3 * math.pi / 16
"""Plummer's radius of the sphere, in the units used; half of its mass is within 1.305 of these."""

OUTERMOST = 0.999  # of the mass is within the radius at which the sphere is cut off


@frozen
class NBodySetup:
    """The options that a checkpoint and the kernel that restores it must share; see `NBody`."""

    n: int
    seed: int
    softening: float
    time_step: float


@checkpoint("nbody")
@frozen
class NBodyCheckpoint:
    """The state of an `NBody` after `step` steps.

    `positions` and `velocities`, (n, 3) float64, are those of the bodies at the same time;
    `energy_at_start` is the `energy` at step 0.
    """

    step: int
    setup: NBodySetup
    positions: Array[np.float64]
    velocities: Array[np.float64]
    energy_at_start: float


class NBody:
    """A cluster of bodies of equal mass under their own gravity. One step is one time step.

    `n`
        number of bodies, 2 or more; each has the mass 1/n. A step takes time in proportion to n².
    `seed`
        of the random initial positions and velocities, 0 to 2^63 - 1.
    `softening`
        the length ε below which gravity is weakened; 0 is Newton's.
    `time_step`
        in N-body units. Errors are in proportion to its square.
    `duration`
        length of a natural run in the same units, `total_steps` time steps. A kernel can be
        advanced beyond it.
    `device`
        "cpu", "cuda", or "auto" for CUDA where there is a device.

    Raises `InvalidKernel` on an option out of range.

    The initial state is a Plummer sphere in equilibrium (Aarseth, Hénon and Wielen 1974, Astronomy
    and Astrophysics 37, 183-187), cut off at 0.999 of its mass, with the centre of mass at rest at
    the origin. With the default options the relative error of the energy stays below 2e-5, with 256
    bodies below 1e-4; momentum and angular momentum stay what they were to 1e-13.

    The result does not depend on the number of CPU cores. That of CUDA differs from it by
    rounding, as CUDA fuses multiplications and additions: by less than 1e-11 in the positions
    after 32 steps. The motion is chaotic, so the difference keeps growing.

    >>> cluster = NBody(n=100, device="cpu")
    >>> cluster.advance(128)
    >>> cluster.time, abs(cluster.energy_error) < 1e-4
    (1.0, True)
    """

    metadata = KernelMetadata(id="nbody", version="1", domain="astrophysics",
                              description="a star cluster, all pairs, leapfrog")  # fmt: skip

    def __init__(
        self,
        *,
        n: int = 1024,
        seed: int = 1,
        softening: float = 0.05,
        time_step: float = 1 / 128,
        duration: float = 10.0,
        device: Device = "auto",
    ) -> None:
        check_option("n", f"{n=} is too few bodies", valid=n >= 2, hint="use 2 or more")
        check_option("seed", f"{seed=}", valid=0 <= seed < 2**63, hint="use 0 to 2^63 - 1")
        check_option("softening", f"{softening=}", valid=0 <= softening < math.inf,
                     hint="use a length, 0 or more")  # fmt: skip
        check_option("time_step", f"{time_step=}", valid=0 < time_step < math.inf, hint="use > 0")
        check_option("duration", f"{duration=}", valid=0 <= duration < math.inf,
                     hint="use 0 or more")  # fmt: skip

        from checkpointable.kernels.nbody import programs

        self._programs = programs
        self._target = choose_target(device)
        self.setup = NBodySetup(n, seed, float(softening), float(time_step))
        self.total_steps = math.ceil(duration / time_step)
        self.step = 0
        positions, velocities = plummer_sphere(n, seed)
        self.positions = self._target.place(positions)
        self.velocities = self._target.place(velocities)
        self._field = self._target.place(np.zeros((n, 4)))
        self._update_field()
        self.energy_at_start = self.energy

    def advance(self, steps: int) -> None:
        """Do `steps` time steps of `time_step` each."""
        launch, programs, n = self._target.launch, self._programs, self.setup.n
        time = self.setup.time_step
        for _ in range(steps):
            launch(programs.KICK, n, self.velocities, self._field, time / 2)
            launch(programs.DRIFT, n, self.positions, self.velocities, time)
            self._update_field()
            launch(programs.KICK, n, self.velocities, self._field, time / 2)
            self.step += 1
        self._target.wait()

    def _update_field(self) -> None:
        """Compute the field, acceleration and potential at each body, from the positions."""
        n, softening2 = self.setup.n, self.setup.softening**2
        self._target.launch(self._programs.PULL, n, self.positions, 1 / n, softening2, self._field)

    async def checkpoint(self) -> NBodyCheckpoint:
        """Return a snapshot of the state."""
        return await capture(NBodyCheckpoint, self)

    async def restore(self, checkpoint: NBodyCheckpoint) -> None:
        """Continue from `checkpoint`; raises `InvalidCheckpoint` if its setup is another."""
        check_checkpoint(checkpoint, NBodyCheckpoint, self, self.setup)
        await reinstate(checkpoint, self)
        self._update_field()
        self._target.wait()

    def checkpoint_size_estimate(self) -> int:
        """Return the size of a checkpoint's arrays in bytes."""
        return 8 * 2 * 3 * self.setup.n

    def health_check(self) -> HealthStatus:
        """Report whether all positions, all velocities and the energy are finite."""
        state = np.concatenate([self._target.fetch(self.positions), self._velocities()], axis=1)
        bad = int(np.count_nonzero(~np.isfinite(state).all(axis=1)))
        if bad:
            reason = f"{bad} bodies have non-finite positions or velocities"
            return HealthStatus(healthy=False, reason=reason)
        energy = self.energy
        return HealthStatus(
            healthy=math.isfinite(energy),
            reason="" if math.isfinite(energy) else f"the energy is {energy}",
        )

    @property
    def time(self) -> float:
        """The time since the start, in units of N-body work."""
        return self.step * self.setup.time_step

    @property
    def kinetic_energy(self) -> float:
        """The energy of motion now."""
        return 0.5 * _total(self._velocities() ** 2) / self.setup.n

    @property
    def potential_energy(self) -> float:
        """The energy of all pairs now, softened like their attraction; below 0."""
        return 0.5 * _total(self._target.fetch(self._field)[:, 3]) / self.setup.n

    @property
    def energy(self) -> float:
        """The energy of motion and of all pairs now."""
        return self.kinetic_energy + self.potential_energy

    @property
    def energy_error(self) -> float:
        """The change of the energy since step 0, relative to what it was then."""
        return (self.energy - self.energy_at_start) / abs(self.energy_at_start)

    @property
    def momentum(self) -> Float64:
        """The momentum of all bodies now, (3,) float64; 0 except for rounding."""
        return np.array([_total(part) for part in self._velocities().T]) / self.setup.n

    @property
    def angular_momentum(self) -> Float64:
        """The angular momentum about the origin now, (3,) float64."""
        angular = np.cross(self._target.fetch(self.positions), self._velocities())
        return np.array([_total(part) for part in angular.T]) / self.setup.n

    @property
    def half_mass_radius(self) -> float:
        """The distance from the origin that half of the bodies are within now."""
        return float(np.median(np.linalg.norm(self._target.fetch(self.positions), axis=1)))

    def _velocities(self) -> Float64:
        return self._target.fetch(self.velocities)

    def summary(self) -> dict[str, float]:
        """Return the time, the energy and its error, the virial ratio and the cluster's size."""
        return {
            "time": self.time,
            "energy": self.energy,
            "relative error of the energy": self.energy_error,
            "virial ratio": -2 * self.kinetic_energy / self.potential_energy,
            "half-mass radius": self.half_mass_radius,
        }


def plummer_sphere(n: int, seed: int) -> tuple[Float64, Float64]:
    """Return positions and velocities, each (n, 3) float64, of bodies in a Plummer sphere.

    In the units used, from NumPy's default generator. The speed, in units of the escape speed, is q
    with density q² (1 - q²)^(7/2), hence q² has the Beta distribution (3/2, 9/2).

    >>> positions, velocities = plummer_sphere(10_000, seed=1)
    >>> radii = np.linalg.norm(positions, axis=1)
    >>> bool(0.74 < np.median(radii) < 0.80)  # 1.305 SCALE is 0.769
    True
    """
    rng = np.random.default_rng(seed)
    radius = SCALE / np.sqrt(rng.uniform(0, OUTERMOST, n) ** (-2 / 3) - 1)
    escape = math.sqrt(2) * (radius**2 + SCALE**2) ** (-1 / 4)
    speed = escape * np.sqrt(rng.beta(1.5, 4.5, n))
    positions, velocities = (size[:, None] * _directions(rng, n) for size in (radius, speed))
    return positions - positions.mean(axis=0), velocities - velocities.mean(axis=0)


def _directions(rng: np.random.Generator, n: int) -> Float64:
    arrow = rng.standard_normal((n, 3))
    directions: Float64 = arrow / np.linalg.norm(arrow, axis=1, keepdims=True)
    return directions


def _total(values: Any) -> float:
    """Return the sum, rounded once; NaN or infinite where a value is."""
    flat = np.ravel(values)
    return math.fsum(flat) if np.isfinite(flat).all() else float(flat.sum())
