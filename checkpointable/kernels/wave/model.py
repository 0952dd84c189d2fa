"""What `Wave` and `WaveMpi` share: options, the Earth, source and receivers, first arrivals."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from attrs import frozen

from checkpointable import HealthStatus
from checkpointable.kernels.checks import check_option
from checkpointable.kernels.wave.prem import RADIUS, speed

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


@frozen(eq=False)
class WaveModel:
    """What is computed from a setup, for some rows of the grid."""

    setup: WaveSetup
    cell: float
    time_step: float
    distances: Float64
    receivers: Int64  # their cells, (receivers, 2)
    source: Int64  # its cell, (2,)
    wavelet: Float64  # at each recorded step
    courant2: Float32  # (c dt/dx)² of these rows
    sponge: Float32  # of each row or column of the whole grid

    def force(self, row: int) -> Float64:
        """Return the force of the source at each step; the source is in this row of `courant2`."""
        return self.wavelet * self.setup.amplitude * float(self.courant2[row, self.source[1]])

    def first_arrivals(self, seismograms: Float32) -> Float64:
        """See `Wave.first_arrivals`."""
        traces = seismograms.astype(np.float64)
        departure = _onset(_far_wavelet(self.wavelet, at_surface=self.setup.model == "prem"))
        return self.time_step * (np.array([_onset(trace) for trace in traces]) - departure)

    def summary(self, seismograms: Float32) -> dict[str, str]:
        """Return the first arrivals, one for each receiver."""
        unit = "degrees" if self.setup.model == "prem" else "km"
        times = self.first_arrivals(seismograms)
        return {
            f"arrival at {distance:.0f} {unit}": "none yet" if math.isnan(time) else f"{time:.1f} s"
            for distance, time in zip(self.distances, times, strict=True)
        }


def checked_setup(
    model: str,
    n: int,
    period: float,
    depth: float,
    angle: float,
    duration: float,
    receivers: int,
    amplitude: float,
    courant: float,
) -> WaveSetup:
    """Return the options of `Wave` as a setup; raises `InvalidKernel` on one out of range."""
    check_option("model", f"{model=} is unknown", valid=model in ("prem", "uniform"),
                 hint="use prem or uniform")  # fmt: skip
    check_option("n", f"{n=} is too small a grid", valid=n >= 12, hint="use 12 or more")
    check_option("depth", f"{depth=} km is not inside the Earth", valid=0 <= depth < RADIUS,
                 hint=f"use 0 to {RADIUS:g} km")  # fmt: skip
    check_option("angle", f"{angle=} is not an angle", valid=math.isfinite(angle),
                 hint="use degrees")  # fmt: skip
    check_option("duration", f"{duration=} s", valid=0 < duration < math.inf, hint="use > 0")
    check_option("receivers", f"{receivers=}", valid=receivers >= 1, hint="use 1 or more")
    check_option("amplitude", f"{amplitude=}", valid=math.isfinite(amplitude), hint="use 1")
    check_option("courant", f"{courant=} is unstable", valid=0 < courant <= 1,
                 hint="use a fraction of the stability limit, in (0, 1]")  # fmt: skip
    return WaveSetup(
        model, n, float(period), float(depth), float(angle), float(duration), receivers,
        float(amplitude), float(courant),
    )  # fmt: skip


def wave_model(
    setup: WaveSetup, rows: slice = slice(None), maximum: Callable[[float], float] = float
) -> WaveModel:
    """Return the model for these rows; raises `InvalidKernel` on a period too short for the grid.

    `maximum` returns the maximum over all rows, given that over these.
    """
    n, period = setup.n, setup.period
    cell = 2 * RADIUS / (n - 6 if setup.model == "prem" else n)
    speeds = _speeds(setup.model, n, cell, rows)
    slowest = -maximum(-float(speeds.min(initial=math.inf, where=speeds > 0)))
    fastest = maximum(float(speeds.max()))
    shortest = CELLS_PER_WAVELENGTH * cell / slowest
    check_option("period", f"{period=} s is too short for {n} cells",
                 valid=shortest <= period < math.inf,
                 hint=f"use {shortest:.1f} s or more, or a larger n")  # fmt: skip
    # Stable while the largest eigenvalue of the stencil, 32/3, times (c dt/dx)² is at most 4.
    time_step = setup.courant * math.sqrt(3 / 8) * cell / fastest
    distances, receivers, source = _geometry(setup, cell)
    return WaveModel(
        setup, cell, time_step, distances, receivers, source,
        wavelet=_ricker(np.arange(math.ceil(setup.duration / time_step)) * time_step / period),
        courant2=((speeds * time_step / cell) ** 2).astype(np.float32),
        sponge=_sponge(setup.model, n, time_step / cell),
    )  # fmt: skip


def health_of(*fields: Float32) -> HealthStatus:
    """Report whether the fields are finite."""
    bad = max(int(np.count_nonzero(~np.isfinite(field))) for field in fields)
    return HealthStatus(healthy=not bad, reason=f"{bad} cells are not finite" if bad else "")


def _speeds(model: str, n: int, cell: float, rows: slice) -> Float64:
    """Return the P speed in km/s of each cell in these rows, 0 outside the Earth."""
    offset = cell * (np.arange(n) - (n - 1) / 2)
    if model == "uniform":
        return np.full((len(offset[rows]), n), UNIFORM_SPEED)
    return speed(np.hypot(offset[rows, None], offset))


def _sponge(model: str, n: int, slowness: float) -> Float32:
    """Return the part of the wave that each row or column keeps in a time step.

    That is 1, but ever less towards the edge in the outer n/6 of the uniform model. A wave that
    crosses the sponge s(x) to the edge and back keeps exp(-2/c ∫ s dx) of its amplitude: here a
    thousandth, with s quadratic so that little is reflected on the way.
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
    # One cell down: rounding cannot move that outside, where the pressure is zero.
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


def _far_wavelet(wavelet: Float64, *, at_surface: bool) -> Float64:
    """Return the shape of the wave far from a line source.

    That is its convolution with t^(-1/2), the tail of the two-dimensional Green's function. Just
    under a free surface the wave and its reflection, of opposite sign, add up to its derivative.
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
