"""The wave of `wave`, its rows split among the ranks of an MPI job.

Each rank has a slab of rows, and a halo: the two rows on each side that belong to its neighbours.
Before each time step it receives the halo; then it does what `Wave` does, by the same functions in
the same order. So on the CPU the results are those of `Wave` bit for bit, whatever the number of
ranks, and a run can continue on another number of them.
"""

from typing import Any, Literal

import numpy as np
from attrs import frozen

from checkpointable import (
    Array,
    HealthStatus,
    KernelMetadata,
    Shard,
    capture,
    checkpoint,
    reinstate,
)
from checkpointable.kernels.checks import check_checkpoint, check_option
from checkpointable.kernels.target import Device, choose_target
from checkpointable.kernels.wave.halo import Ranks
from checkpointable.kernels.wave.model import (
    Float64,
    WaveSetup,
    checked_setup,
    health_of,
    wave_model,
)

HALO = 2  # rows, on each side: as far as the stencil reaches


@checkpoint("wave-mpi")
@frozen
class WaveMpiCheckpoint:
    """The state of a `WaveMpi` after `step` steps.

    `pressure` and `pressure_before`, (n, n) float32, are the field now and one step ago, of which a
    rank has some rows; `seismograms`, (receivers, total_steps) float32, are the records so far,
    followed by zeros: every rank has all of them.
    """

    step: int
    setup: WaveSetup
    pressure: Shard[np.float32]
    pressure_before: Shard[np.float32]
    seismograms: Array[np.float32]


class WaveMpi:
    """One rank's part of a `Wave`, with the same options and `comm`.

    `comm`
        the mpi4py communicator whose ranks share the work, or None for one rank. Messages of
        `WaveMpi` have tag 0.

    All ranks make it with the same options and advance it by the same steps together; everything
    else a rank does by itself. On CUDA each rank uses its current device, and the halo passes
    through the host; on the CPU each uses all cores, or NUMBA_NUM_THREADS of them.

    Raises `InvalidKernel` as `Wave` does, and if a rank would have fewer than two rows.

    >>> wave = WaveMpi(model="uniform", n=64, period=240.0, duration=600.0, device="cpu")
    >>> wave.advance(wave.total_steps)
    >>> wave.health_check().healthy, wave.pressure.box
    (True, (slice(0, 64, None), slice(0, 64, None)))
    """

    metadata = KernelMetadata(id="wave-mpi", version="1", domain="seismology",
                              description="sound through a section of the Earth")  # fmt: skip

    def __init__(
        self,
        *,
        comm: Any = None,
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
        self._ranks = Ranks(comm)
        rank, size = self._ranks.rank, self._ranks.size
        check_option("n", f"{n=} rows are too few for {size} ranks", valid=n >= HALO * size,
                     hint=f"use {HALO * size} or more, or fewer ranks")  # fmt: skip
        self._first, end = n * rank // size, n * (rank + 1) // size
        low, high = max(0, self._first - HALO), min(n, end + HALO)
        self._rows = slice(self._first - low, end - low)  # of the slab, without its halo

        self._model = wave_model(self.setup, slice(low, high), self._ranks.maximum)
        self.cell, self.time_step = self._model.cell, self._model.time_step
        self.distances: Float64 = self._model.distances
        self.total_steps = len(self._model.wavelet)
        self.step = 0

        from checkpointable.kernels.wave import programs

        self._programs = programs
        self._target = choose_target(device)
        place = self._target.place
        cells = np.concatenate([self._model.receivers, [self._model.source]])
        local = (self._first <= cells[:, 0]) & (cells[:, 0] < end)
        cells[:, 0] = np.where(local, cells[:, 0] - low, -1)
        self._receivers, self._source = place(cells[:-1]), place(cells[-1])
        self._force = self._model.force(int(cells[-1, 0]))  # unused where the source is not
        self._courant2 = place(self._model.courant2)
        self._down = place(self._model.sponge[low:high])
        self._across = place(self._model.sponge)
        self._now = place(np.zeros((high - low, n), np.float32))
        self._before = place(np.zeros((high - low, n), np.float32))
        self._traces = place(np.zeros((receivers, self.total_steps), np.float32))
        self.seismograms = np.zeros((receivers, self.total_steps), np.float32)

    @property
    def pressure(self) -> Shard[np.float32]:
        """The field, of which this rank has some rows."""
        return self._shard(self._now)

    @property
    def pressure_before(self) -> Shard[np.float32]:
        """The field one step ago, of which this rank has some rows."""
        return self._shard(self._before)

    def _shard(self, slab: Any) -> Shard[np.float32]:
        n = self.setup.n
        return Shard(slab[self._rows], shape=(n, n), offset=(self._first, 0))

    def advance(self, steps: int) -> None:
        """Do `steps` time steps of `time_step` seconds each, with all ranks."""
        launch, programs, begin = self._target.launch, self._programs, self.step
        for _ in range(steps):
            self._ranks.exchange(self._now, HALO, self._target)
            force = self._force[self.step] if self.step < self.total_steps else 0.0
            launch(
                programs.OBSERVE, self.setup.receivers, self._now, self._before,
                self._traces, self._receivers, self._source, np.float32(force), self.step,
            )  # fmt: skip
            launch(
                programs.UPDATE, self._now.size, self._now, self._before,
                self._courant2, self._down, self._across,
            )  # fmt: skip
            self._now, self._before = self._before, self._now
            self.step += 1
        self._target.wait()
        recorded = slice(begin, self.step)
        traces = self._target.fetch(self._traces[:, recorded])
        self.seismograms[:, recorded] = self._ranks.combined(traces)

    async def checkpoint(self) -> WaveMpiCheckpoint:
        """Return a snapshot of this rank's part of the state."""
        return await capture(WaveMpiCheckpoint, self)

    async def restore(self, checkpoint: WaveMpiCheckpoint) -> None:
        """Continue from `checkpoint`; raises `InvalidCheckpoint` if its setup is another."""
        check_checkpoint(checkpoint, WaveMpiCheckpoint, self, self.setup)
        await reinstate(checkpoint, self)

    def checkpoint_size_estimate(self) -> int:
        """Return the size in bytes of the arrays that this rank saves."""
        rows, n = self.pressure.local.shape
        return 4 * (2 * rows * n + self.seismograms.size)

    def health_check(self) -> HealthStatus:
        """Report whether this rank's part of the field is finite, now and one time step ago."""
        fetch = self._target.fetch
        return health_of(fetch(self.pressure.local), fetch(self.pressure_before.local))

    def first_arrivals(self) -> Float64:
        """Return when the wave first reached each receiver; see `Wave.first_arrivals`."""
        return self._model.first_arrivals(self.seismograms)

    def summary(self) -> dict[str, str]:
        """Return the first arrivals, one for each receiver."""
        return self._model.summary(self.seismograms)
