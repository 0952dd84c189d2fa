"""The two-dimensional Ising model: `kernel`, and `programs`, its device code."""

from checkpointable.kernels.ising.kernel import (
    CRITICAL_TEMPERATURE,
    STATE,
    STREAMS,
    Ising,
    IsingCheckpoint,
    IsingSetup,
)

__all__ = ["CRITICAL_TEMPERATURE", "STATE", "STREAMS", "Ising", "IsingCheckpoint", "IsingSetup"]
