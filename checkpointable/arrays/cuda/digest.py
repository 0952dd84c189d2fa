"""XXH3-128 of blocks of device memory, computed where they are. Importing it imports Numba."""

import threading
from collections.abc import Sequence

import numpy as np

from checkpointable.arrays.cuda import memory
from checkpointable.arrays.cuda.programs import launch
from checkpointable.arrays.cuda.xxh3 import FINISH, LANES
from checkpointable.arrays.lazy import Region

_LANES = 8
_LOCK = threading.Lock()
_scratch: dict[int, memory.Array] = {}  # kept, since to free memory waits for the device


def digests_of(device: int, regions: Sequence[Region], block: int) -> bytes:
    """The digests of all blocks of regions of a device, 16 bytes each, big endian; in one launch.

    Each region is cut into blocks of `block` bytes, the last of them shorter. What writes there has
    to be done before; returns when the digests are there.
    """
    counts = [-(-region.size // block) for region in regions]
    begins = [np.arange(count, dtype=np.uint64) * np.uint64(block) for count in counts]
    if not sum(counts):
        return b""
    at = np.concatenate(
        [
            begin + np.uint64(r.address - memory.BASE)
            for r, begin in zip(regions, begins, strict=True)
        ]
    )
    sizes = np.concatenate(
        [
            np.minimum(np.uint64(r.size) - begin, np.uint64(block))
            for r, begin in zip(regions, begins, strict=True)
        ]
    )
    n = len(at)
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
