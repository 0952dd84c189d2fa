"""Counts, exact sums and a histogram of a file of numbers: `kernel`, `layout`, `programs`."""

from checkpointable.kernels.sketch.kernel import END, Sketch, SketchCheckpoint, SketchSetup

__all__ = ["END", "Sketch", "SketchCheckpoint", "SketchSetup"]
