"""Sound through a cross-section of the Earth: `kernel`, and `mpi` with the rows split over ranks.

`model` is the setup and the medium, `prem` the speeds of the Earth's shells, `programs` the device
code, `halo` the exchange of rows between ranks.
"""

from checkpointable.kernels.wave.kernel import Wave, WaveCheckpoint
from checkpointable.kernels.wave.model import UNIFORM_SPEED, WaveSetup

__all__ = ["UNIFORM_SPEED", "Wave", "WaveCheckpoint", "WaveSetup"]
