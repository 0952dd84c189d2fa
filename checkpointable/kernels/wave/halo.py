"""What the ranks of a job tell each other while they compute, over MPI."""

from typing import Any

import numpy as np
from attrs import field, frozen

from checkpointable.kernels._target import Target


@frozen
class Ranks:
    """The ranks of an mpi4py communicator, or one without MPI; all call each method together.

    >>> alone = Ranks()
    >>> alone.rank, alone.size, alone.greatest(2.5)
    (0, 1, 2.5)
    """

    comm: Any = field(default=None)

    @property
    def rank(self) -> int:
        """The number of this one, from 0."""
        return 0 if self.comm is None else int(self.comm.Get_rank())

    @property
    def size(self) -> int:
        """How many there are."""
        return 1 if self.comm is None else int(self.comm.Get_size())

    def greatest(self, value: float) -> float:
        """Return the greatest value of all ranks."""
        return value if self.comm is None else max(self.comm.allgather(value))

    def united(self, part: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return what the ranks have together, of float32; each element is 0.0 on all but one."""
        whole = np.ascontiguousarray(part)
        if self.comm is not None and whole.size:
            from mpi4py import MPI as mpi

            # Of bits, not a sum of numbers: that would make 0.0 of -0.0.
            self.comm.Allreduce(mpi.IN_PLACE, whole.view(np.uint32), mpi.BOR)
        return whole

    def exchange(self, slab: Any, halo: int, target: Target) -> None:
        """Get the outer rows of this slab from the neighbours, whose own rows they are.

        The first rank's slab has no halo above its own rows, and the last's none below.
        """
        if self.size == 1:
            return
        from mpi4py import MPI as mpi

        above = self.rank - 1 if self.rank else mpi.PROC_NULL
        below = self.rank + 1 if self.rank + 1 < self.size else mpi.PROC_NULL
        first, last = slab[halo : 2 * halo], slab[-2 * halo : -halo]
        for own, to, rows, source in (
            (first, above, slab[-halo:], below),
            (last, below, slab[:halo], above),
        ):
            received = np.empty(rows.shape, rows.dtype)
            self.comm.Sendrecv(target.fetch(own), to, 0, received, source, 0)
            if source != mpi.PROC_NULL:
                target.overwrite(rows, received)
