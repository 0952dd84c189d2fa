"""Sound waves through a cross-section of the Earth.

The two-dimensional acoustic wave equation, (∂/∂t + s)² p = c² (∇²p + f), by finite differences:
second order in time, fourth in space, float32. c is the speed of P waves, f the source, s a sponge
at the edges of the uniform model (Cerjan, Kosloff, Kosloff and Reshef 1985, Geophysics 50,
705-708). Shear waves and density are left out: arrival times of P waves are right, amplitudes are
those of a line source in a fluid.
"""

from typing import Literal

import numpy as np
from attrs import frozen

from checkpointable import Array, HealthStatus, KernelMetadata, capture, checkpoint, reinstate
from checkpointable.kernels.checks import check_checkpoint
from checkpointable.kernels.target import Device, choose_target
from checkpointable.kernels.wave.model import (
    Float32,
    Float64,
    WaveSetup,
    checked_setup,
    health_of,
    wave_model,
)


@checkpoint("wave")
@frozen
class WaveCheckpoint:
    """The state of a `Wave` after `step` steps.

    `pressure` and `pressure_before`, (n, n) float32, are the field now and one step ago;
    `seismograms`, (receivers, total_steps) float32, are the records so far, followed by zeros.
    """

    step: int
    setup: WaveSetup
    pressure: Array[np.float32]
    pressure_before: Array[np.float32]
    seismograms: Array[np.float32]


class Wave:
    """A wave that spreads from a point source, recorded by receivers. One step is one time step.

    `model`
        "prem": a cross-section of the Earth with the P speeds of PREM; its surface reflects
        (pressure zero outside). "uniform": a square of the Earth's diameter, 8 km/s everywhere,
        with edges (a sixth of it each) that absorb all but a few per cent.
    `n`
        cells along each side of the square grid, so that a cell is about 12 742 km / n.
    `period`
        dominant period of the source in seconds (a Ricker wavelet that peaks 1.5 periods after
        the start).
    `depth`, `angle`
        of the source, in km under the surface and in degrees clockwise from the top; in the
        uniform model it is in the middle.
    `duration`
        seconds to record, in `total_steps` steps. Later steps are computed, but not recorded.
    `receivers`
        their number; they are evenly spaced. In "prem" they are just under the surface at
        `distances` degrees from the source, up to 180; in "uniform" on a line from the source,
        `distances` km away.
    `amplitude`
        of the source, in the unit of the pressure, which is arbitrary; 0 is silence.
    `courant`
        time step as a fraction of the largest stable one.
    `device`
        "cpu", "cuda", or "auto" for CUDA where there is a device.

    Raises `InvalidKernel` on an option out of range, and on a period too short for the grid.

    The result does not depend on the number of CPU cores. That of CUDA differs from it by
    rounding, as CUDA fuses multiplications and additions.

    >>> wave = Wave(model="uniform", n=64, period=240.0, duration=600.0, device="cpu")
    >>> wave.advance(wave.total_steps)
    >>> wave.health_check().healthy, wave.seismograms.shape == (18, wave.total_steps)
    (True, True)
    """

    metadata = KernelMetadata(id="wave", version="1", domain="seismology",
                              description="sound through a section of the Earth")  # fmt: skip

    def __init__(
        self,
        *,
        model: Literal["prem", "uniform"] = "prem",
        n: int = 1000,
        period: float = 30.0,
        depth: float = 600.0,
        angle: float = 0.0,
        duration: float = 1300.0,
        receivers: int = 18,
        amplitude: float = 1.0,
        courant: float = 0.9,
        device: Device = "auto",
    ) -> None:
        self.setup = checked_setup(
            model, n, period, depth, angle, duration, receivers, amplitude, courant
        )
        self._model = wave_model(self.setup)
        self.cell, self.time_step = self._model.cell, self._model.time_step
        self.distances: Float64 = self._model.distances
        self.total_steps = len(self._model.wavelet)
        self.step = 0

        from checkpointable.kernels.wave import programs

        self._programs = programs
        self._target = choose_target(device)
        place = self._target.place
        self._force = self._model.force(int(self._model.source[0]))
        self._courant2 = place(self._model.courant2)
        self._sponge = place(self._model.sponge)
        self._receivers = place(self._model.receivers)
        self._source = place(self._model.source)
        self.pressure = place(np.zeros((n, n), np.float32))
        self.pressure_before = place(np.zeros((n, n), np.float32))
        self.seismograms = place(np.zeros((receivers, self.total_steps), np.float32))

    def advance(self, steps: int) -> None:
        """Do `steps` time steps of `time_step` seconds each."""
        launch, programs, n = self._target.launch, self._programs, self.setup.n
        for _ in range(steps):
            force = self._force[self.step] if self.step < self.total_steps else 0.0
            launch(
                programs.OBSERVE, self.setup.receivers, self.pressure, self.pressure_before,
                self.seismograms, self._receivers, self._source, np.float32(force), self.step,
            )  # fmt: skip
            launch(
                programs.UPDATE, n * n, self.pressure, self.pressure_before,
                self._courant2, self._sponge, self._sponge,
            )  # fmt: skip
            self.pressure, self.pressure_before = self.pressure_before, self.pressure
            self.step += 1
        self._target.wait()

    async def checkpoint(self) -> WaveCheckpoint:
        """Return a snapshot of the state."""
        return await capture(WaveCheckpoint, self)

    async def restore(self, checkpoint: WaveCheckpoint) -> None:
        """Continue from `checkpoint`; raises `InvalidCheckpoint` if its setup is another."""
        check_checkpoint(checkpoint, WaveCheckpoint, self, self.setup)
        await reinstate(checkpoint, self)

    def checkpoint_size_estimate(self) -> int:
        """Return the size of a checkpoint's arrays in bytes."""
        return 4 * (2 * self.setup.n**2 + self.setup.receivers * self.total_steps)

    def health_check(self) -> HealthStatus:
        """Report whether the field is finite, now and one time step ago: a checkpoint has both."""
        return health_of(self.wavefield, self._target.fetch(self.pressure_before))

    @property
    def wavefield(self) -> Float32:
        """A copy of the pressure on the host, (n, n) float32, first axis down, second right."""
        return self._target.fetch(self.pressure)

    def first_arrivals(self) -> Float64:
        """Return when the wave first reached each receiver, in seconds after it left the source.

        NaN where nothing has arrived. The arrival is picked where a trace first reaches a tenth of
        its first swing, which is the first extremum above 2% of the trace's largest value. The same
        pick on the wavelet, as it looks far from a line source, is the time of departure.
        """
        return self._model.first_arrivals(self._target.fetch(self.seismograms))

    def summary(self) -> dict[str, str]:
        """Return the first arrivals, one for each receiver."""
        return self._model.summary(self._target.fetch(self.seismograms))
