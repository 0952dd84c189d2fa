"""Between device memory and the host, through a few pinned buffers, while both ends go on.

Either way one buffer is copied to or from the device while another is used. Importing this module
imports Numba.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
from attrs import field, frozen

from checkpointable.arrays.cuda import memory, strided
from checkpointable.arrays.cuda.memory import Wait
from checkpointable.arrays.lazy import Region
from checkpointable.arrays.staging import fresh

BUFFER = 16 << 20
"""Bytes of one buffer."""

_BUFFERS = 3
_MOST = 4096  # pieces in a buffer
_ALIGN = 64  # bytes, of what begins in a buffer
_spare: list["_Buffer"] = []  # to pin memory takes longer than to copy to it

Bytes: TypeAlias = bytes | bytearray | memoryview
Piece: TypeAlias = Bytes | Region
"""Bytes that are on the host already, or on a device; there at most as many as a buffer has."""


class _Buffer:
    """Pinned memory, and of devices where pieces are gathered, as much beside it."""

    def __init__(self) -> None:
        try:
            self.host = memory.pinned(BUFFER)
        except MemoryError:  # the copies are slower, then
            self.host = fresh(BUFFER)
        self._beside: dict[int, memory.Array] = {}

    def beside(self, device: int) -> memory.Array:
        """Words on the device in use, for as many bytes and a table of pieces."""
        if device not in self._beside:
            self._beside[device] = memory.empty((-(-BUFFER // 8) + 3 * _MOST,), np.uint64)
        return self._beside[device]


class _Streams(dict[int, Any]):
    """A stream for each device, made when that is in use."""

    def __missing__(self, device: int) -> memory.Stream:
        self[device] = memory.side_stream()
        return self[device]


@frozen(eq=False)
class _Batch:
    """Pieces of one device, side by side in a buffer that is being filled; or one of the host."""

    pieces: list[Piece]
    places: list[int] = field(factory=list)
    buffer: _Buffer | None = None
    done: Wait = lambda: None


def download(pieces: Iterable[Piece]) -> Iterator[Bytes]:
    """Yield the bytes of each piece, in order; each is valid until the next is asked for.

    What copies to the device memory has to be done before. Pieces that lie apart are brought
    together there, so that few copies cross the bus.
    """
    streams = _Streams()
    started: deque[_Batch] = deque()
    try:
        for batch in _batches(pieces):
            started.append(_started(batch, streams))
            if len(started) == _BUFFERS:
                yield from _finished(started)
        while started:
            yield from _finished(started)
    finally:
        for unused in started:
            _release(unused)


def _batches(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Pieces that follow one another and fit into a buffer."""
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        if isinstance(piece, Region):
            first = batch[0] if batch else None
            larger = size + _room(piece)
            fits = larger <= BUFFER and len(batch) < _MOST
            if fits and isinstance(first, Region) and first.device == piece.device:
                batch.append(piece)
                size = larger
                continue
        if batch:
            yield batch
        batch, size = [piece], 0
        if isinstance(piece, Region):
            size = _room(piece)
    if batch:
        yield batch


def _room(region: Region) -> int:
    """Bytes that it takes in a buffer, up to where the next may begin."""
    return -(-region.size // _ALIGN) * _ALIGN


def _started(pieces: list[Piece], streams: _Streams) -> _Batch:
    regions = [piece for piece in pieces if isinstance(piece, Region)]
    if not regions:
        return _Batch(pieces)
    places, end, whole = [], 0, True
    for region in regions:
        places.append(end)
        whole = whole and region.address == regions[0].address + end
        end += _room(region)
    end = places[-1] + regions[-1].size
    with memory.on_device(regions[0].device):
        stream = streams[regions[0].device]
        buffer = _taken()
        try:
            if whole:
                source = memory.at(regions[0].address, end)
            else:
                scratch = buffer.beside(regions[0].device)
                strided.gather([r.address for r in regions], [r.size for r in regions],
                              [place // 8 for place in places], scratch, stream)  # fmt: skip
                source = memory.at(memory.address_of(scratch), end)
            source.copy_to_host(buffer.host[:end], stream=stream)
            return _Batch(pieces, places, buffer, memory.done(stream, regions))
        except BaseException:
            stream.synchronize()
            raise


def _finished(started: deque[_Batch]) -> Iterator[Bytes]:
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


def fetch(region: Region, into: memory.HostArray) -> None:
    """Copy a region to the host, into bytes that follow one another."""
    begins = range(0, region.size, BUFFER)
    parts = (region.part(begin, min(BUFFER, region.size - begin)) for begin in begins)
    for begin, data in zip(begins, download(parts), strict=False):
        into.data[begin : begin + len(data)] = data


Fill: TypeAlias = Callable[[int, memoryview], None]
"""Gives bytes of an array, from one of them on."""


@contextmanager
def uploading() -> Iterator[Callable[[Region, Fill], None]]:
    """Give a function that fills a region with what another gives; done at the end."""
    copies: deque[_Batch] = deque()
    streams = _Streams()

    def upload(region: Region, fill: Fill) -> None:
        for begin in range(0, region.size, BUFFER):
            if len(copies) == _BUFFERS:
                _release(copies.popleft())
            part = region.part(begin, min(BUFFER, region.size - begin))
            buffer = _taken()
            try:
                fill(begin, buffer.host.data[: part.size])
            except BaseException:
                _spare.append(buffer)
                raise
            with memory.on_device(region.device):
                stream = streams[region.device]
                target = memory.at(part.address, part.size)
                target.copy_to_device(buffer.host[: part.size], stream=stream)
                copies.append(_Batch([part], [0], buffer, memory.done(stream, part)))

    try:
        yield upload
    finally:
        while copies:
            _release(copies.popleft())


def _taken() -> _Buffer:
    try:
        return _spare.pop()
    except IndexError:
        return _Buffer()


def _release(batch: _Batch) -> None:
    """Take a buffer back when nothing is copied to or from it any more."""
    if batch.buffer is not None:
        batch.done()
        _spare.append(batch.buffer)
        del _spare[2 * _BUFFERS :]
