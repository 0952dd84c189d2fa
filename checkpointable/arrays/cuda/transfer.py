"""Transfers between device memory and the host through a few pinned buffers.

In both directions one buffer is copied to or from the device while the host uses another.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import numpy as np
from attrs import field, frozen

from checkpointable.arrays.cuda import memory, strided
from checkpointable.arrays.cuda.memory import Wait
from checkpointable.arrays.kinds import HostArray
from checkpointable.arrays.lazy import Region

BUFFER = 16 << 20
"""The bytes of one buffer."""

_BUFFERS = 3
_MOST = 4096  # pieces in a buffer
_ALIGN = 256  # bytes, of each piece in a buffer, as of arrays in a snapshot
_MANY = 64 << 20  # bytes; below, threads begin too late to help
_THREADS = min(8, os.cpu_count() or 1)
_spare: list["_Buffer"] = []  # kept: pinning memory takes longer than copying to it

Bytes: TypeAlias = bytes | bytearray | memoryview
Piece: TypeAlias = Bytes | Region
"""Bytes on the host; or on a device, and then no more than a buffer holds."""


class _Buffer:
    """Pinned memory, and memory of the same size on each device where pieces are gathered.

    It is made while a device is current.
    """

    def __init__(self) -> None:
        self.host = memory.pinned_if_possible(BUFFER)
        self._scratch: dict[int, tuple[memory.Array, strided.Tables]] = {}

    def scratch(self, device: int) -> tuple[memory.Array, strided.Tables]:
        """Memory of the current device for a buffer, and for a table of pieces."""
        if device not in self._scratch:
            self._scratch[device] = memory.empty(BUFFER), strided.Tables()
        return self._scratch[device]


class _Streams(dict[int, Any]):
    """A stream for each device, made on first use, while that device is current."""

    def __missing__(self, device: int) -> memory.Stream:
        self[device] = memory.side_stream()
        return self[device]


@frozen(eq=False)
class _Batch:
    """Pieces of one device, in a buffer that is being filled; or one piece on the host."""

    pieces: list[Piece]
    places: list[int] = field(factory=list)
    buffer: _Buffer | None = None
    done: Wait = lambda: None


def download(pieces: Iterable[Piece]) -> Iterator[Bytes]:
    """Yield the bytes of each piece, in order; each is valid until the next is requested.

    All writes to the pieces must be complete. Pieces that are not adjacent are gathered on the
    device, so that few copies cross the bus.
    """
    streams = _Streams()
    started: deque[_Batch] = deque()
    try:
        for batch in _batches(pieces):
            started.append(_start(batch, streams))
            if len(started) == _BUFFERS:
                yield from _finish_first(started)
        while started:
            yield from _finish_first(started)
    finally:
        for unused in started:
            _release(unused)


def _batches(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Group consecutive pieces that fit into one buffer."""
    batch: list[Piece] = []
    size, batch_device = 0, None
    for piece in pieces:
        device, room = (piece.device, _room(piece)) if isinstance(piece, Region) else (None, 0)
        full = size + room > BUFFER or len(batch) >= _MOST
        if batch and (device is None or device != batch_device or full):
            yield batch
            batch, size = [], 0
        batch.append(piece)
        size, batch_device = size + room, device
    if batch:
        yield batch


def _room(region: Region) -> int:
    """Bytes that it takes in a buffer, up to where the next piece may begin."""
    return -(-region.size // _ALIGN) * _ALIGN


def _start(pieces: list[Piece], streams: _Streams) -> _Batch:
    regions = [piece for piece in pieces if isinstance(piece, Region)]
    if not regions:
        return _Batch(pieces)
    places, end, adjacent = [], 0, True
    for region in regions:
        places.append(end)
        adjacent = adjacent and region.address == regions[0].address + end
        end += _room(region)
    end = places[-1] + regions[-1].size
    with memory.on_device(regions[0].device):
        stream = streams[regions[0].device]
        buffer = _take_buffer()
        try:
            source = regions[0].address
            if not adjacent:
                scratch, tables = buffer.scratch(regions[0].device)
                source = memory.address_of(scratch)
                strided.copy_pieces(tables, [source + place for place in places],
                                    [r.address for r in regions], [r.size for r in regions],
                                    stream)  # fmt: skip
            memory.to_host(buffer.host[:end], source, stream)
            return _Batch(pieces, places, buffer, memory.done(stream, regions))
        except BaseException:
            with suppress(Exception):
                memory.done(stream)()
            raise


def _finish_first(started: deque[_Batch]) -> Iterator[Bytes]:
    batch = started[0]
    if batch.buffer is None:
        for piece in batch.pieces:
            assert not isinstance(piece, Region)
            yield piece
    else:
        batch.done()
        for piece, place in zip(batch.pieces, batch.places, strict=True):
            assert isinstance(piece, Region)
            yield batch.buffer.host.data[place : place + piece.size]
    started.popleft()
    _release(batch)


def fetch(region: Region, into: HostArray) -> None:
    """Copy a region to the host; a large one with several threads, since one copies too slowly."""
    begins = range(0, region.size, BUFFER)
    parts = (region.part(begin, min(BUFFER, region.size - begin)) for begin in begins)
    with _copying(region.size) as copy:
        for begin, data in zip(begins, download(parts), strict=False):
            copy(into[begin : begin + len(data)], np.frombuffer(data, np.uint8))


@contextmanager
def _copying(size: int) -> Iterator[Callable[[HostArray, HostArray], None]]:
    """Yield a function that copies within host memory, with threads if `size` is worth it."""
    if size < _MANY:
        yield np.copyto
        return
    from concurrent.futures import ThreadPoolExecutor  # here, since it takes a while

    with ThreadPoolExecutor(_THREADS, "checkpointable-fetch") as pool:

        def copy(target: HostArray, source: HostArray) -> None:
            step = -(-len(source) // _THREADS)
            shares = range(0, len(source), step)
            parts = [(target[b : b + step], source[b : b + step]) for b in shares]
            list(pool.map(np.copyto, *zip(*parts, strict=True)))

        yield copy


def release() -> None:
    """Let go of the buffers that are not in use."""
    _spare.clear()


Fill: TypeAlias = Callable[[int, memoryview], None]
"""Fills a buffer with the bytes of an array from one of them on."""


@contextmanager
def uploading() -> Iterator[Callable[[Region, Fill], None]]:
    """Yield a function that fills a region from a `Fill`; all is done when the context ends."""
    copies: deque[_Batch] = deque()
    streams = _Streams()

    def upload(region: Region, fill: Fill) -> None:
        for begin in range(0, region.size, BUFFER):
            if len(copies) == _BUFFERS:
                _release(copies.popleft())
            part = region.part(begin, min(BUFFER, region.size - begin))
            with memory.on_device(region.device):
                buffer = _take_buffer()
            try:
                fill(begin, buffer.host.data[: part.size])
            except BaseException:
                _spare.append(buffer)
                raise
            with memory.on_device(region.device):
                stream = streams[region.device]
                memory.to_device(part.address, buffer.host[: part.size], stream)
                copies.append(_Batch([part], [0], buffer, memory.done(stream, part)))

    try:
        yield upload
    finally:
        while copies:
            _release(copies.popleft())


def _take_buffer() -> _Buffer:
    try:
        return _spare.pop()
    except IndexError:
        return _Buffer()


def _release(batch: _Batch) -> None:
    """Keep a buffer for reuse, when the copies to or from it are done."""
    if batch.buffer is not None:
        batch.done()
        _spare.append(batch.buffer)
        del _spare[2 * _BUFFERS :]
