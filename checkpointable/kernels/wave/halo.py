"""The messages that the ranks of a job exchange over MPI while they compute."""

from typing import Any

import numpy as np
from attrs import frozen

from checkpointable.kernels.target import Target


@frozen
class Ranks:
    """The ranks of an mpi4py communicator, or one without MPI; all call each method together.

    >>> single = Ranks()
    >>> single.rank, single.size, single.maximum(2.5)
    (0, 1, 2.5)
    """

    comm: Any = None

    @property
    def rank(self) -> int:
        """The number of this rank, from 0."""
        return 0 if self.comm is None else int(self.comm.Get_rank())

    @property
    def size(self) -> int:
        """The number of ranks."""
        return 1 if self.comm is None else int(self.comm.Get_size())

    def maximum(self, value: float) -> float:
        """Return the maximum of all ranks' values."""
        return value if self.comm is None else max(self.comm.allgather(value))

    def combined(self, part: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the ranks' float32 arrays as one; each element is 0.0 on all ranks but one."""
        whole = np.ascontiguousarray(part)
        if self.comm is not None and whole.size:
            from mpi4py import MPI as mpi

            # Of the bits: a sum would turn -0.0 into 0.0.
            self.comm.Allreduce(mpi.IN_PLACE, whole.view(np.uint32), mpi.BOR)
        return whole

    def exchange(self, slab: Any, halo: int, target: Target) -> None:
        """Receive the halo of this slab from the neighbours, and send them their halos.

        The first rank's slab has no halo above, and the last rank's has none below.
        """
        if self.size == 1:
            return
        from mpi4py import MPI as mpi

        above = self.rank - 1 if self.rank else mpi.PROC_NULL
        below = self.rank + 1 if self.rank + 1 < self.size else mpi.PROC_NULL
        first, last = slab[halo : 2 * halo], slab[-2 * halo : -halo]
        for outgoing, destination, rows, source in (
            (first, above, slab[-halo:], below),
            (last, below, slab[:halo], above),
        ):
            received = np.empty(rows.shape, rows.dtype)
            self.comm.Sendrecv(target.fetch(outgoing), destination, 0, received, source, 0)
            if source != mpi.PROC_NULL:
                target.overwrite(rows, received)
