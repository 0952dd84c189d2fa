"""Arrays on CUDA devices. Import its modules themselves: they, but for `lost`, import Numba.

`memory` is all that is asked of the driver and of Numba but kernels: addresses, streams, events.
`views` describes the arrays of every library. `snapshot` copies a kernel's arrays with the shortest
stall, `transfer` moves bytes between a device and the host through pinned buffers, and `digest`
computes the digests of blocks where they lie. `xxh3` and `strided` hold the kernels for that,
compiled by `programs`; `lost` tells errors of CUDA apart.
"""
