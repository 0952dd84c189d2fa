"""A stand-in for the CUDA driver, below the real numba-cuda, where there is no device.

`pytest -p tests.driver.plugin` puts it in place of libcuda.so.1: `shim.c` is built with gcc, and
hands each call of the driver to `driver.py`. Device memory is memory of the process. A stream does
its work as late as it may, or at random, so that a missing wait shows. Addresses, contexts, frees
and alignment are checked. Kernels run from their own PTX, which `ptx.py` turns into C.

It says nothing about hardware: neither about time, nor about races within a kernel, nor about what
the compiler of PTX does with it. A kernel's blocks run one after the other, and so do its threads
from one barrier to the next. Graphs, textures, managed memory and peer access are not there.

DRIVER_MODE     lazy (the default), random or eager
DRIVER_SEED     of the random mode
DRIVER_DEVICES  1 by default
"""
