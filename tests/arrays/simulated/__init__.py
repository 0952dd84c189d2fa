"""Tests that need a CUDA device, or Numba's simulator, where `test_simulated.py` runs them.

The simulator is chosen when Numba is imported, hence for a whole process: where
`NUMBA_ENABLE_CUDASIM=1` is not set, nothing here is collected.
"""
