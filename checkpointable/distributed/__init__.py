"""Many ranks, one commit.

`coordinator` is the ranks' collective operations (MPI, or a single process), `agreement` makes an
error of one rank the error of all. `checkpoints` saves and restores shards; it is imported when
there are several ranks.
"""

from checkpointable.distributed.agreement import leave_together, on_all, on_root
from checkpointable.distributed.coordinator import (
    Coordinator,
    MpiCoordinator,
    SingleProcess,
    allreduce,
)

__all__ = [
    "Coordinator",
    "MpiCoordinator",
    "SingleProcess",
    "allreduce",
    "leave_together",
    "on_all",
    "on_root",
]  # fmt: skip
