"""Arrays on CUDA devices; its modules import Numba, so others import them only when needed.

`memory` allocates, `snapshot` copies a kernel's arrays, `transfer` moves blocks to and from the
host, `digest` computes the digests on the device (`xxh3`), and `strided` copies arrays that are not
contiguous. `programs` compiles the device code; `lost` notices that a device is gone for good.
"""
