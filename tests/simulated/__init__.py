"""Tests that need a CUDA device, or Numba's simulator: `tests/test_simulated.py` runs them there.

The simulator is chosen when Numba is imported, hence for a whole process: where
`NUMBA_ENABLE_CUDASIM=1` is not set, nothing here is collected.
"""
