"""A run in a process that is started again when it fails.

`supervise` is the loop, `child` the process, `outcome` how each attempt ended. No CUDA here.
"""

from checkpointable.supervisor.outcome import Attempt, Outcome
from checkpointable.supervisor.supervise import Limits, exponential, supervise

__all__ = ["Attempt", "Limits", "Outcome", "exponential", "supervise"]
