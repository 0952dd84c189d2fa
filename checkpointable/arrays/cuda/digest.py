"""XXH3-128 of blocks of device memory, computed where they lie."""

import threading
from collections.abc import Sequence

import numpy as np

from checkpointable.arrays.cuda import memory
from checkpointable.arrays.cuda.programs import launch
from checkpointable.arrays.cuda.strided import Tables
from checkpointable.arrays.cuda.xxh3 import DIGEST
from checkpointable.arrays.lazy import Region


class _Scratch:
    """What digests of one device are computed with; kept, as freeing waits for the device."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stream = memory.side_stream()
        self.tables = Tables()
        self.host = memory.pinned_if_possible(1 << 12)
        self.out = memory.empty(1 << 12)


_scratch: dict[int, _Scratch] = {}
_LOCK = threading.Lock()


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
    with memory.on_device(device):
        with _LOCK:
            scratch = _scratch[device] = _scratch.get(device) or _Scratch()
        with scratch.lock:
            if len(scratch.host) < 16 * n:
                scratch.host = memory.pinned_if_possible(32 * n)
                scratch.out = memory.empty(32 * n)
            stream = scratch.stream
            table = scratch.tables.put(np.concatenate([at, sizes]), stream)
            out = memory.at(memory.address_of(scratch.out), 2 * n, np.uint64)
            launch(DIGEST, 32 * n, stream, memory.words(), table, n, out)
            digests = scratch.host[: 16 * n]
            memory.to_host(digests, memory.address_of(out), stream)
            memory.done(stream)()
            return digests.view(np.uint64).astype(">u8").tobytes()


def prepare(stream: memory.Stream) -> None:
    """Compile what computes digests, on the current device."""
    launch(DIGEST, 0, stream, memory.words(), memory.words(), 0, memory.words())


def release() -> None:
    """Give back the memory that digests were computed with."""
    with _LOCK:
        _scratch.clear()
