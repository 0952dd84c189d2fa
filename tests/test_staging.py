"""The memory that snapshots and files go through."""

import mmap
from pathlib import Path

import numpy as np
import pytest

from checkpointable.device.staging import fresh

MIB = 1 << 20


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.parametrize("advice", [mmap.MADV_HUGEPAGE, 9999], ids=["", "without huge pages"])
@pytest.mark.parametrize("size", [1, 4096, 5 * MIB + 1])
def test_fresh_memory_is_aligned_and_apart(
    size: int, advice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", advice)
    one, other = fresh(size), fresh(size)
    assert one.ctypes.data % (2 * MIB) == 0
    one[:] = 1
    assert (len(one), len(other), one.sum(), other.sum()) == (size, size, size, 0)


def test_fresh_memory_goes_back_with_its_last_view() -> None:
    before = resident()
    slabs = [fresh(8 * MIB) for _ in range(16)]
    for slab in slabs:
        slab[:] = 1
    view = slabs[0].view(np.float64)[::7]
    assert resident() - before > 120 * MIB
    del slab, slabs
    assert resident() - before < 24 * MIB
    assert view.sum() > 0
