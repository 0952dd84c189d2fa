"""A star cluster under its own gravity: `kernel`, and `programs`, its device code."""

from checkpointable.kernels.nbody.kernel import (
    SCALE,
    NBody,
    NBodyCheckpoint,
    NBodySetup,
    plummer_sphere,
)

__all__ = ["SCALE", "NBody", "NBodyCheckpoint", "NBodySetup", "plummer_sphere"]
