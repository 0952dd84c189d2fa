"""Five kernels that do real work, written against the public contract and nothing else.

| name | what it does | one step is |
|---|---|---|
| `wave` | sound through a cross-section of the Earth, recorded at its surface | one time step |
| `wave-mpi` | the same, its rows split among the ranks of an MPI job | one time step |
| `ising` | the two-dimensional Ising model by Metropolis' algorithm | one sweep |
| `sketch` | counts, exact sums, a histogram and distinct values of a file of numbers | one batch |
| `nbody` | a star cluster, its bodies under their own gravity | one time step |
| `pagerank` | the ranks of the nodes of a graph, by power iteration | one iteration |

Each has a folder: `kernel` is a class that inherits nothing, with an attrs class as its checkpoint,
and `programs` its device code. Each runs on the CPU and on CUDA from the same element functions,
and continues from a checkpoint bit for bit. They share `checks`, `target` (CPU or CUDA) and
`decorators` (Numba's). Importing this package does not import Numba; making a kernel does.

>>> sorted(KERNELS)
['ising', 'nbody', 'pagerank', 'sketch', 'wave', 'wave-mpi']
"""

KERNELS: dict[str, str] = {
    "wave": "checkpointable.kernels.wave:Wave",
    "wave-mpi": "checkpointable.kernels.wave.mpi:WaveMpi",
    "ising": "checkpointable.kernels.ising:Ising",
    "sketch": "checkpointable.kernels.sketch:Sketch",
    "nbody": "checkpointable.kernels.nbody:NBody",
    "pagerank": "checkpointable.kernels.pagerank:PageRank",
}
"""The gallery: name -> "module:class". The class's keyword arguments are the kernel's options."""
