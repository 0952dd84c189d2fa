"""XXH3-128 of blocks of device memory, computed where they are. Importing it imports Numba."""

from collections.abc import Sequence

import numpy as np

from checkpointable.device import memory
from checkpointable.device._xxh3 import FINISH, LANES
from checkpointable.device.lazy import Region
from checkpointable.device.programs import launch


def digests_of(device: int, blocks: Sequence[Region]) -> bytes:
    """The digests of blocks that lie on a device, 16 bytes each, big endian; all in one launch.

    What writes the blocks has to be done before; returns when the digests are there.
    """
    if not blocks:
        return b""
    with memory.on_device(device):
        stream = memory.side_stream()
        at = np.array([block.address - memory.BASE for block in blocks], np.uint64)
        sizes = np.array([block.size for block in blocks], np.uint64)
        place, size = memory.to_device(at, stream), memory.to_device(sizes, stream)
        lanes = memory.empty((8 * len(blocks),), np.uint64, stream)
        out = memory.empty((len(blocks), 2), np.uint64, stream)
        launch(LANES, len(lanes), stream, memory.words(), place, size, lanes)
        launch(FINISH, len(blocks), stream, memory.words(), place, size, lanes, out)
        return memory.to_host(out, stream).astype(">u8").tobytes()
