"""Arrays wherever they live: with the gallery of kernels, the only part that knows Numba."""
