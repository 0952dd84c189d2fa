"""Sound waves through a cross-section of the Earth.

The two-dimensional acoustic wave equation, (∂/∂t + s)² p = c² (∇²p + f), by finite differences:
second order in time, fourth in space, float32. c is the speed of P waves, f the source, s a sponge
at the edges of the uniform model (Cerjan, Kosloff, Kosloff and Reshef 1985, Geophysics 50,
705-708). Shear waves and density are left out: arrival times of P waves are right, amplitudes are
those of a line source in a fluid.
"""

import math
from typing import Any, Literal

import numpy as np
from attrs import frozen

from checkpointable import Array, HealthStatus, KernelMetadata, capture, checkpoint, reinstate
from checkpointable.kernels._checks import require, require_fit
from checkpointable.kernels._prem import RADIUS, speed
from checkpointable.kernels._target import Device, choose_target

Float32 = np.ndarray[Any, np.dtype[np.float32]]
Float64 = np.ndarray[Any, np.dtype[np.float64]]
Int64 = np.ndarray[Any, np.dtype[np.int64]]

UNIFORM_SPEED = 8.0  # km/s, everywhere in the uniform model
CELLS_PER_WAVELENGTH = 8.0  # at the dominant period, in the slowest rock


@frozen
class WaveSetup:
    """The options that a checkpoint and the kernel that restores it must share; see `Wave`."""

    model: str
    n: int
    period: float
    depth: float
    angle: float
    duration: float
    receivers: int
    amplitude: float
    courant: float


@checkpoint("wave")
@frozen
class WaveCheckpoint:
    """The state of a `Wave` after `step` steps.

    `pressure` and `pressure_before`, (n, n) float32, are the field now and one step ago;
    `seismograms`, (receivers, total_steps) float32, what was recorded so far, then zeros.
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
        where the source is, in km under the surface and in degrees clockwise from the top; the
        uniform model has it in the middle.
    `duration`
        seconds to record: `total_steps` of them. Later steps are computed, but not recorded.
    `receivers`
        how many, evenly spaced. In "prem" just under the surface at `distances` degrees from the
        source, up to 180; in "uniform" on a line from the source, `distances` km away.
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
        require(model in ("prem", "uniform"), f"{model=} is unknown", option="model",
                hint="use prem or uniform")  # fmt: skip
        require(n >= 12, f"{n=} is too small a grid", option="n", hint="use 12 or more")
        require(0 <= depth < RADIUS, f"{depth=} km is not inside the Earth", option="depth",
                hint=f"use 0 to {RADIUS:g} km")  # fmt: skip
        require(math.isfinite(angle), f"{angle=} is no angle", option="angle", hint="use degrees")
        require(0 < duration < math.inf, f"{duration=} s", option="duration", hint="use > 0")
        require(receivers >= 1, f"{receivers=}", option="receivers", hint="use 1 or more")
        require(math.isfinite(amplitude), f"{amplitude=}", option="amplitude", hint="use 1")
        require(0 < courant <= 1, f"{courant=} is unstable", option="courant",
                hint="use a fraction of the stability limit, in (0, 1]")  # fmt: skip
        self.setup = WaveSetup(
            model, n, float(period), float(depth), float(angle), float(duration), receivers,
            float(amplitude), float(courant),
        )  # fmt: skip
        self.cell = 2 * RADIUS / (n - 6 if model == "prem" else n)
        speeds = _speeds(model, n, self.cell)
        slowest = float(speeds[speeds > 0].min())
        shortest = CELLS_PER_WAVELENGTH * self.cell / slowest
        require(shortest <= period < math.inf, f"{period=} s is too short for {n} cells",
                option="period", hint=f"use {shortest:.1f} s or more, or a larger n")  # fmt: skip
        # Stable while the largest eigenvalue of the stencil, 32/3, times (c dt/dx)² is at most 4.
        self.time_step = courant * math.sqrt(3 / 8) * self.cell / float(speeds.max())
        self.total_steps = math.ceil(duration / self.time_step)
        self.step = 0

        from checkpointable.kernels import _wave_programs

        self._programs = _wave_programs
        self._target = choose_target(device)
        place = self._target.place
        self.distances: Float64
        self.distances, cells, source = _geometry(self.setup, self.cell)
        courant2 = ((speeds * self.time_step / self.cell) ** 2).astype(np.float32)
        self._wavelet = _ricker(np.arange(self.total_steps) * self.time_step / period)
        self._force = self._wavelet * amplitude * float(courant2[tuple(source)])
        self._courant2 = place(courant2)
        self._sponge = place(_sponge(model, n, self.time_step / self.cell))
        self._receivers = place(cells)
        self._source = place(source)
        self.pressure = place(np.zeros((n, n), np.float32))
        self.pressure_before = place(np.zeros((n, n), np.float32))
        self.seismograms = place(np.zeros((receivers, self.total_steps), np.float32))

    @property
    def metadata(self) -> KernelMetadata:
        """Who this kernel is."""
        return KernelMetadata(id="wave", version="1", domain="seismology",
                              description="sound through a section of the Earth")  # fmt: skip

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
                self._courant2, self._sponge,
            )  # fmt: skip
            self.pressure, self.pressure_before = self.pressure_before, self.pressure
            self.step += 1
        self._target.wait()

    async def checkpoint(self) -> WaveCheckpoint:
        """Return a snapshot of the state."""
        return await capture(WaveCheckpoint, self)

    async def restore(self, checkpoint: WaveCheckpoint) -> None:
        """Continue from `checkpoint`; raises `InvalidCheckpoint` if its setup is another."""
        require_fit(checkpoint, WaveCheckpoint, self, self.setup)
        await reinstate(checkpoint, self)

    def checkpoint_size_estimate(self) -> int:
        """Return the size of a checkpoint's arrays in bytes."""
        return 4 * (2 * self.setup.n**2 + self.setup.receivers * self.total_steps)

    def health_check(self) -> HealthStatus:
        """Say whether the field is finite, now and a time step ago: a checkpoint has both."""
        fields = (self.wavefield, self._target.fetch(self.pressure_before))
        bad = max(int(np.count_nonzero(~np.isfinite(field))) for field in fields)
        return HealthStatus() if bad == 0 else HealthStatus(False, f"{bad} cells are not finite")

    @property
    def wavefield(self) -> Float32:
        """A copy of the pressure on the host, (n, n) float32, first axis down, second right."""
        return self._target.fetch(self.pressure)

    def first_arrivals(self) -> Float64:
        """Return when the wave first reached each receiver, in seconds after it left the source.

        NaN where nothing has arrived. The pick is where a trace first reaches a tenth of its
        first swing; the first swing is the first extremum above 2% of the trace's largest value.
        The same pick on the wavelet, as it looks far from a line source, is the time of departure.
        """
        traces = self._target.fetch(self.seismograms).astype(np.float64)
        departure = _onset(_far_wavelet(self._wavelet, self.setup.model == "prem"))
        return self.time_step * (np.array([_onset(trace) for trace in traces]) - departure)

    def summary(self) -> dict[str, str]:
        """Return the first arrivals, one a receiver."""
        unit = "degrees" if self.setup.model == "prem" else "km"
        return {
            f"arrival at {distance:.0f} {unit}": "none yet" if math.isnan(time) else f"{time:.1f} s"
            for distance, time in zip(self.distances, self.first_arrivals(), strict=True)
        }


def _speeds(model: str, n: int, cell: float) -> Float64:
    """Return the P speed in km/s of every cell, 0 outside the Earth."""
    if model == "uniform":
        return np.full((n, n), UNIFORM_SPEED)
    offset = cell * (np.arange(n) - (n - 1) / 2)
    return speed(np.hypot(offset[:, None], offset))


def _sponge(model: str, n: int, slowness: float) -> Float32:
    """Return what each row or column keeps in a time step: all, or less and less in the outer n/6.

    A wave that crosses the sponge s(x), meets the edge and returns keeps exp(-2/c ∫ s dx) of its
    amplitude: here a thousandth, with s quadratic so that little is reflected on the way.
    """
    width = n // 6
    edge = np.minimum(np.arange(n), np.arange(n)[::-1])
    inside = np.maximum(0, (width - edge) / width) * (model == "uniform")
    strength = 1.5 * math.log(1e3) * UNIFORM_SPEED * slowness / width
    return np.exp(-strength * inside**2).astype(np.float32)


def _geometry(setup: WaveSetup, cell: float) -> tuple[Any, Int64, Int64]:
    """Return the receivers' distances, their cells (receivers, 2), and the source's cell (2,)."""
    number = np.arange(1, setup.receivers + 1)
    if setup.model == "uniform":
        middle = setup.n // 2
        reach = middle - setup.n // 6 - 1
        columns = middle + np.rint(reach * number / setup.receivers).astype(np.int64)
        cells = np.stack([np.full_like(columns, middle), columns], axis=1)
        return cell * (columns - middle), cells, np.array([middle, middle])
    # One cell down, the nearest that rounding cannot put outside, where the pressure is zero.
    surface = RADIUS - cell

    def cells_at(radius: float, degrees: Any) -> Any:
        angle = np.radians(degrees)
        place = radius / cell * np.stack([-np.cos(angle), np.sin(angle)], axis=-1)
        return np.rint(place + (setup.n - 1) / 2).astype(np.int64)

    source = cells_at(min(RADIUS - setup.depth, surface), setup.angle)
    distances = 180 * number / setup.receivers
    return distances, cells_at(surface, setup.angle + distances), source


def _ricker(time: Any) -> Float64:
    """Return Ricker's wavelet, the second derivative of a Gaussian, at a time in periods.

    Its peak, 1, is at 1.5; at 0 it is below 1e-7.
    """
    phase = (np.pi * (time - 1.5)) ** 2
    wavelet: Float64 = (1 - 2 * phase) * np.exp(-phase)
    return wavelet


def _far_wavelet(wavelet: Float64, at_surface: bool) -> Float64:
    """Return the shape of the wave far from a line source.

    That is the convolution with t^(-1/2), the tail of the two-dimensional Green's function. Just
    under a free surface the wave and its reflection, of opposite sign, leave its derivative.
    """
    tail = 1 / np.sqrt(np.arange(len(wavelet)) + 0.5)
    size = 2 * len(wavelet)
    far = np.fft.irfft(np.fft.rfft(wavelet, size) * np.fft.rfft(tail, size), size)[: len(wavelet)]
    return np.diff(far, prepend=0.0) if at_surface else far


def _onset(trace: Float64) -> float:
    """Return the (fractional) sample at which the trace reaches a tenth of its first swing."""
    size = np.abs(trace)
    if not size.any():
        return math.nan
    above = int(np.argmax(size > 0.02 * size.max()))
    falls = np.flatnonzero(np.diff(size[above:]) < 0)
    swing = size[above + falls[0]] if len(falls) else size[-1]
    after = int(np.argmax(size >= 0.1 * swing))
    if after == 0:
        return 0.0
    low, high = size[after - 1], size[after]
    return float(after - (high - 0.1 * swing) / (high - low))
