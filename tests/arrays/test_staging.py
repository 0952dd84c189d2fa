"""The memory of snapshots and files."""

import mmap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpointable.arrays import staging
from checkpointable.arrays.interop import owned
from checkpointable.arrays.staging import Staging, fill, fresh

MIB = 1 << 20


def resident() -> int:
    """The bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.parametrize("advice", [mmap.MADV_HUGEPAGE, 9999], ids=["", "without huge pages"])
@pytest.mark.parametrize("size", [1, 4096, 5 * MIB + 1])
def test_fresh_memory_is_aligned_and_separate(
    size: int, advice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", advice)
    one, other = fresh(size), fresh(size)
    assert one.ctypes.data % (2 * MIB if size > 2 * MIB else mmap.PAGESIZE) == 0
    one[:] = 1
    assert (len(one), len(other), one.sum(), other.sum()) == (size, size, size, 0)


def test_too_much_memory_is_a_memory_error() -> None:
    with pytest.raises(MemoryError, match=str(1 << 60)):
        fresh(1 << 60)


def test_fresh_memory_is_freed_with_its_last_view() -> None:
    before = resident()
    slabs = [fresh(8 * MIB) for _ in range(16)]
    for number in range(16):
        slabs[number][:] = 1
    view = slabs[0].view(np.float64)[::7]
    assert resident() - before > 120 * MIB
    del slabs
    assert resident() - before < 24 * MIB
    assert view.sum() > 0


def test_memory_is_reused_only_when_no_array_uses_it() -> None:
    memory, array = Staging(), np.arange(3 * MIB, dtype=np.uint8)
    with memory.in_use():
        first = owned(array)
    kept = first[5:7]
    del first
    with memory.in_use():
        second = owned(array[::-1])
    assert not np.shares_memory(kept, second)
    assert kept.tolist() == [5, 6]
    del second, kept
    with memory.in_use():
        third = owned(array)
    address = third.ctypes.data
    del third
    with memory.in_use():
        assert owned(array).ctypes.data == address


def test_memory_that_is_not_reused_is_freed() -> None:
    arrays = [np.ones(8 * MIB, np.uint8) for _ in range(16)]
    memory, before = Staging(), resident()
    for _ in range(2):
        with memory.in_use():
            copies = [owned(array) for array in arrays]
        del copies
        assert 120 * MIB < resident() - before < 136 * MIB
    with memory.in_use():
        pass
    assert resident() - before < 8 * MIB
    with memory.in_use():
        copies = [owned(array) for array in arrays]
    del copies, memory
    assert resident() - before < 8 * MIB


def refuse(*args: Any) -> Any:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("submit", [ThreadPoolExecutor.submit, refuse], ids=["two threads", "one"])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(7, dtype=np.int64),
        np.array(3.0),
        np.zeros((3, 0)),
        np.arange(60, dtype=np.uint16).reshape(3, 4, 5),
        np.arange(0, 6, dtype="M8[s]").reshape(6, 1),
        np.frombuffer(bytes(range(1, 65)), np.dtype("u1, f8", align=True)),
    ],
    ids=str,
)
def test_all_bytes_are_copied_by_one_thread_or_two(
    array: Any, submit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
    for many in (0, 1 << 20):
        monkeypatch.setattr(staging, "_MANY", many)
        copy = np.zeros_like(array)
        fill(copy, array)
        assert copy.tobytes() == array.tobytes()


def test_an_error_in_the_second_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(staging, "_MANY", 0)
    monkeypatch.setattr(np, "copyto", fails)
    with pytest.raises(MemoryError):
        owned(np.arange(9))
