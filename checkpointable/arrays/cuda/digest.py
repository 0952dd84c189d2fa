"""XXH3-128 of blocks of device memory, computed where they lie."""

import threading
from collections.abc import Sequence

import numpy as np

from checkpointable.arrays.cuda import memory
from checkpointable.arrays.cuda.programs import launch
from checkpointable.arrays.cuda.xxh3 import FINISH, LANES
from checkpointable.arrays.lazy import Region

_LANES = 8
_LOCK = threading.Lock()
_scratch: dict[int, memory.Array] = {}  # kept: freeing memory waits for the device


def digests_of(device: int, regions: Sequence[Region], block: int) -> bytes:
    """Return the digests of all blocks of regions of a device, in one launch; 16 bytes big endian.

    Each region is cut into blocks of `block` bytes, the last of them shorter. All writes to the
    regions must be complete.
    """
    begins = [np.arange(0, region.size, block, dtype=np.uint64) for region in regions]
    n = sum(map(len, begins))
    if not n:
        return b""
    pairs = [*zip(regions, begins, strict=True)]
    at = np.concatenate([begin + np.uint64(r.address - memory.BASE) for r, begin in pairs])
    sizes = np.concatenate(
        [np.minimum(np.uint64(r.size) - begin, np.uint64(block)) for r, begin in pairs]
    )
    with _LOCK, memory.on_device(device):
        stream = memory.side_stream()
        scratch = _scratch.get(device)
        if scratch is None or len(scratch) < (_LANES + 4) * n:
            scratch = _scratch[device] = memory.empty(((_LANES + 4) * n,), np.uint64, stream)
        table = np.concatenate([at, sizes])
        scratch[: 2 * n].copy_to_device(table, stream=stream)
        lanes, out = scratch[4 * n : (_LANES + 4) * n], scratch[2 * n : 4 * n].reshape(n, 2)
        parts = (memory.words(), scratch[:n], scratch[n : 2 * n], lanes)
        launch(LANES, _LANES * n, stream, *parts)
        launch(FINISH, n, stream, *parts, out)
        return memory.to_host(out, stream).astype(">u8").tobytes()
