"""Bytes from and to a device, through a few buffers."""

# What is seen of numba.cuda without its package are stubs with other parameters.
# pyright: reportCallIssue=false, reportArgumentType=false

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import cuda

from checkpointable.arrays.cuda import memory, transfer
from checkpointable.arrays.lazy import Region

BYTES = np.random.default_rng(1).integers(0, 256, 5000, np.uint8)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BUFFER", 512)
    monkeypatch.setattr(transfer, "_spare", [])


def region() -> Region:
    array = cuda.to_device(BYTES)
    return Region(0, memory.address_of(array), array.size, array)


places = st.tuples(st.booleans(), st.integers(0, 4488), st.integers(0, 512))


def pieces(drawn: list[tuple[bool, int, int]]) -> Iterator[transfer.Piece]:
    whole = region()
    for on_host, begin, size in drawn:
        yield BYTES.data[begin : begin + size] if on_host else whole.part(begin, size)


@given(st.lists(places, max_size=12))
def test_any_pieces_come_in_order(drawn: list[tuple[bool, int, int]]) -> None:
    downloaded = [bytes(piece) for piece in transfer.download(pieces(drawn))]
    assert downloaded == [BYTES[begin : begin + size].tobytes() for _, begin, size in drawn]


@given(st.integers(1, 5000), st.integers(1, 512))
def test_adjacent_pieces_arrive_as_they_are(size: int, step: int) -> None:
    sizes = [min(step, size - begin) for begin in range(0, size, step)]
    whole = region()
    parts = [whole.part(step * i, size_of_part) for i, size_of_part in enumerate(sizes)]
    assert b"".join(map(bytes, transfer.download(parts))) == BYTES[:size].tobytes()


@given(st.lists(places, min_size=1, max_size=12), st.data())
def test_a_download_that_stops_early_returns_its_buffers(
    drawn: list[tuple[bool, int, int]], data: st.DataObject
) -> None:
    transfer._spare.clear()
    download = transfer.download(pieces(drawn))
    for _ in range(data.draw(st.integers(0, len(drawn)))):
        next(download)
    made = transfer._BUFFERS
    download.close()  # type: ignore[attr-defined]
    assert len(transfer._spare) <= made
    assert len({id(buffer) for buffer in transfer._spare}) == len(transfer._spare)


def test_three_buffers_are_enough_for_any_size() -> None:
    whole = region()
    for begin in range(0, 4096, 512):
        list(transfer.download([whole.part(begin, 512)]))
    list(transfer.download(whole.part(begin, 512) for begin in range(0, 4608, 512)))
    assert len(transfer._spare) == transfer._BUFFERS


def test_the_next_pieces_are_copied_while_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, start = [], transfer._start

    def started(*batch: Any) -> Any:
        begun.append(batch)
        return start(*batch)

    monkeypatch.setattr(transfer, "_start", started)
    whole = region()
    download = transfer.download(whole.part(begin, 512) for begin in range(0, 4608, 512))
    next(download)
    assert len(begun) == transfer._BUFFERS


@given(st.integers(0, 3000), st.integers(0, 2000))
def test_a_region_is_fetched_whole(size: int, begin: int) -> None:
    into = np.zeros(size, np.uint8)
    transfer.fetch(region().part(begin, size), into)
    assert into.tobytes() == BYTES[begin : begin + size].tobytes()


@given(st.lists(st.integers(0, 3000), max_size=5))
def test_regions_are_filled_in_the_order_of_their_bytes(sizes: list[int]) -> None:
    arrays = [cuda.device_array(max(size, 1), np.uint8) for size in sizes]
    asked: list[tuple[int, int]] = []

    def fill(begin: int, buffer: memoryview) -> None:
        asked.append((begin, len(buffer)))
        buffer[:] = BYTES.data[begin : begin + len(buffer)]

    with transfer.uploading() as upload:
        for size, array in zip(sizes, arrays, strict=True):
            upload(Region(0, memory.address_of(array), size, array), fill)
    for size, array in zip(sizes, arrays, strict=True):
        assert array.copy_to_host()[:size].tobytes() == BYTES[:size].tobytes()
    assert asked == [
        (begin, min(512, size - begin)) for size in sizes for begin in range(0, size, 512)
    ]


def test_an_upload_that_fails_returns_its_buffers() -> None:
    array = cuda.device_array(5000, np.uint8)
    begun = []

    def fill(begin: int, buffer: memoryview) -> None:
        begun.append(begin)
        if begin == 2048:
            raise OSError("the file ends here")

    with pytest.raises(OSError, match="ends here"), transfer.uploading() as upload:
        upload(Region(0, memory.address_of(array), array.size, array), fill)
    assert begun == [0, 512, 1024, 1536, 2048]
    assert len(transfer._spare) == transfer._BUFFERS
