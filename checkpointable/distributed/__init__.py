"""Many ranks, one commit.

`coordinator` is the ranks' collective operations (MPI, or a single process), `agreement` makes an
error of one rank the error of all. `checkpoints` saves and restores shards; it is imported when
there are several ranks.
"""

from checkpointable.distributed.agreement import by_first, ending_together, on_all
from checkpointable.distributed.coordinator import Alone, Coordinator, MpiCoordinator, combined

__all__ = [
    "Alone", "Coordinator", "MpiCoordinator", "by_first", "combined", "ending_together", "on_all",
]  # fmt: skip
