"""Arrays on CUDA devices: memory, snapshots, transfers, digests. Its modules import Numba."""
