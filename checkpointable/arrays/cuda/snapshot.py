"""Copies of device arrays, with the shortest possible stall of the kernel.

There are three ways, and the first that has room is taken:

device  to other memory of the same device, in the order of the kernel's stream;
pinned  to pinned host memory, likewise;
sliced  to any host memory, through a few pinned buffers.
"""

import math
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from attrs import define, field

from checkpointable.arrays.boxes import Box
from checkpointable.arrays.cuda import memory, strided, transfer
from checkpointable.arrays.cuda.memory import Wait, device_array
from checkpointable.arrays.kinds import HostArray
from checkpointable.arrays.lazy import LazyArray, Region
from checkpointable.arrays.staging import Snapshot, Staging, Way, empty

_ALIGN = 256  # bytes, as memory from CUDA is
_PINNED_SHARE = 0.5  # of the host's available memory


@define(eq=False)
class _Slab:
    """Memory of a device; in use as long as the region that `used` refers to exists."""

    device: int
    memory: memory.Array
    size: int
    used: Any = field(default=lambda: None)

    def region(self, size: int) -> Region:
        region = Region(self.device, memory.address_of(self.memory), size, self)
        self.used = weakref.ref(region)
        return region


class Arena:
    """Device memory that is reused from one snapshot, or restore, to the next."""

    def __init__(self) -> None:
        self._slabs: list[_Slab] = []
        self.pinned: Staging | None = None

    def take(self, wanted: list[tuple[int, int]], reserve: int) -> list[Region] | None:
        """Regions of the wanted devices and sizes; None unless `reserve` bytes of each stay free.

        Memory that is neither in use nor wanted now is freed.
        """
        free = [slab for slab in self._slabs if slab.used() is None]
        kept = [slab for slab in self._slabs if slab.used() is not None]
        reused: list[_Slab | None] = []
        for device, size in wanted:
            fits = [s for s in free if s.device == device and size <= s.size <= 2 * size + _ALIGN]
            slab = min(fits, key=lambda slab: slab.size, default=None)
            if slab is not None:
                free.remove(slab)
            reused.append(slab)
        self._slabs = kept
        del free
        missing = [want for want, slab in zip(wanted, reused, strict=True) if slab is None]
        for device in {device for device, _ in missing}:
            need = sum(size for d, size in missing if d == device) + reserve
            with memory.on_device(device):
                if need > memory.free():
                    memory.collect()
                if need > memory.free():
                    return None
        try:
            slabs = [slab or _new(*want) for want, slab in zip(wanted, reused, strict=True)]
        except MemoryError:  # less is free than it seemed
            return None
        self._slabs += slabs
        return [slab.region(size) for slab, (_, size) in zip(slabs, wanted, strict=True)]


def _new(device: int, size: int) -> _Slab:
    with memory.on_device(device):
        size = -(-size // _ALIGN) * _ALIGN
        return _Slab(device, memory.empty((size,), np.uint8), size)


def array_in(region: Region, dtype: np.dtype[Any], shape: tuple[int, ...]) -> LazyArray:
    """The array whose bytes are in a region, in C order; copied to the host when it is used."""
    row = region.size // max(shape[0], 1) if shape else region.size

    def read() -> HostArray:
        array: HostArray = np.ndarray(shape, dtype)
        transfer.fetch(region, array.reshape(-1).view(np.uint8))
        return array

    def part(box: Box) -> HostArray:
        (begin, *offset), (count, *lengths) = box
        rows: HostArray = np.ndarray((count, *shape[1:]), dtype)
        transfer.fetch(region.part(begin * row, count * row), rows.reshape(-1).view(np.uint8))
        inner = (slice(first, first + n) for first, n in zip(offset, lengths, strict=True))
        return rows[(slice(None), *inner)]

    return LazyArray(dtype, shape, read, part, region)


def allocate_like(arrays: Mapping[str, Any], staging: Staging) -> dict[str, LazyArray]:
    """Uninitialized arrays like these on the same devices; empty unless there is room for all."""
    views = {name: device_array(array) for name, array in arrays.items()}
    return _on_devices(views, _needs(views), staging) or {}


def begin(
    arrays: Mapping[str, memory.Array], stream: object, staging: Staging | None
) -> tuple[dict[str, Any], Wait]:
    """Begin to copy device arrays in the order of their streams; return the copies, and a wait.

    `stream` is the one that computes all of them; without it, each array has its own. With a
    `staging` the copies may stay on the devices; without it they are on the host.
    """
    started, needs = time.perf_counter(), _needs(arrays)
    total = sum(size for _, size in needs.values())
    way, allocated = _allocate(arrays, needs, staging)
    copies = {
        name: allocated[name] if name in allocated else empty(tuple(array.shape), array.dtype)
        for name, array in arrays.items()
    }
    waits: list[Wait] = []
    with _waiting_on_error(waits):
        for name, (device, _) in needs.items():
            waits.append(_begin_copy(arrays[name], copies[name], device, stream, way))
    rate = None if staging is None else staging.rates.get(way)
    predicted = None if rate is None else total / rate

    def wait() -> None:
        for done in waits:
            done()
        if staging is not None:
            seconds = time.perf_counter() - started
            staging.snapshot = Snapshot(way, total, predicted, seconds)
            if total:
                staging.rates[way] = total / seconds

    return copies, wait


Needs: TypeAlias = dict[str, tuple[int, int]]
"""The device and the size in bytes of each array that is not empty."""


def _needs(arrays: Mapping[str, memory.Array]) -> Needs:
    sizes = {name: math.prod(a.shape) * a.dtype.itemsize for name, a in arrays.items()}
    return {
        name: (memory.device_of(memory.address_of(arrays[name])), size)
        for name, size in sizes.items()
        if size
    }


@contextmanager
def _waiting_on_error(waits: list[Wait]) -> Iterator[None]:
    """Wait for the copies that began if another cannot: their memory may be reused."""
    try:
        yield
    except BaseException:
        for done in waits:
            with suppress(Exception):
                done()
        raise


def _allocate(
    arrays: Mapping[str, memory.Array], needs: Needs, staging: Staging | None
) -> tuple[Way, Mapping[str, Any]]:
    """Choose the first way that has room for the copies, and make their arrays."""
    if staging is not None:
        if (on_devices := _on_devices(arrays, needs, staging)) is not None:
            return "device", on_devices
        if (pinned := _in_pinned(arrays, needs, staging)) is not None:
            return "pinned", pinned
    return "sliced", {}


def _on_devices(
    arrays: Mapping[str, memory.Array], needs: Needs, staging: Staging
) -> dict[str, LazyArray] | None:
    """Arrays for the copies on the same devices; None if there is not enough room."""
    staging.arena = staging.arena or Arena()
    regions = staging.arena.take([*needs.values()], staging.reserve)
    if regions is None:
        return None
    return {
        name: array_in(region, arrays[name].dtype, tuple(arrays[name].shape))
        for name, region in zip(needs, regions, strict=True)
    }


def _in_pinned(
    arrays: Mapping[str, memory.Array], needs: Needs, staging: Staging
) -> dict[str, HostArray] | None:
    """Arrays for the copies in pinned memory; None if there is not enough room."""
    if staging.arena.pinned is None:
        staging.arena.pinned = Staging(make=memory.pinned)
    held = staging.arena.pinned.held()
    with staging.arena.pinned.in_use():
        if sum(size for _, size in needs.values()) > _PINNED_SHARE * (_available() + held):
            return None
        try:
            return {name: empty(tuple(a.shape), a.dtype) for name, a in arrays.items()}
        except MemoryError:
            return None


def _ordered(array: memory.Array, stream: object) -> memory.Stream:
    """The stream to copy on: the given one, after the array's own; or else the array's own."""
    array_stream = getattr(array, "stream", None) or None
    if not memory.is_stream(stream):
        return memory.stream_of(array_stream)
    given = memory.stream_of(stream)
    if array_stream is not None:
        memory.follow(given, memory.stream_of(array_stream))
    return given


def _available() -> float:
    """Bytes of memory that are available on the host."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * float(line.split()[1])
    return 0.0


def _begin_copy(array: memory.Array, target: Any, device: int, stream: object, way: Way) -> Wait:
    """Begin to copy an array to its target, in the way that was chosen."""
    with memory.on_device(device):
        ordered = _ordered(array, stream)
        direct = way == "pinned" and array.is_c_contiguous()
        kept: Any = ()
        if way == "device":
            kept = strided.copy(array, target.region.address, ordered)
        elif direct:
            source = memory.at(memory.address_of(array), target.nbytes, owner=array)
            source.copy_to_host(target.reshape(-1).view(np.uint8), stream=ordered)
        done = memory.done(ordered, array, kept)
    if way == "device" or direct:
        return done

    def wait() -> None:
        done()
        _fetch(array, device, target.reshape(-1).view(np.uint8))

    return wait


def _fetch(array: memory.Array, device: int, data: HostArray) -> None:
    """Copy an array to the host; if it is not in C order, pack it first, slice by slice."""
    if array.is_c_contiguous():
        transfer.fetch(Region(device, memory.address_of(array), len(data), array), data)
        return
    size = array.dtype.itemsize
    for part, first, count in _slices(array, device):
        _move(array, part, first, count)
        transfer.fetch(part, data[first * size : (first + count) * size])


def write_back(pairs: Iterable[tuple[memory.Array, Any]], stream: object) -> Wait:
    """Copy (target, source) pairs; targets are device arrays, sources on the host or in a region.

    Copies are in the order of the stream, as in `begin`; those from the host happen in the wait.
    """
    waits: list[Wait] = []
    uploads: list[Wait] = []
    with _waiting_on_error(waits):
        for target, source in pairs:
            if not target.size:
                continue
            home = memory.device_of(memory.address_of(target))
            region, kept = getattr(source, "region", None), None
            with memory.on_device(home):
                ordered = _ordered(target, stream)
                if region is not None and region.device == home:
                    kept = strided.copy(target, region.address, ordered, back=True)
                else:
                    uploads.append(partial(_from_host, target, home, source))
                waits.append(memory.done(ordered, region, kept))

    def wait() -> None:
        for done in (*waits, *uploads):
            done()

    return wait


def _from_host(array: memory.Array, device: int, source: Any) -> None:
    """Copy a host array to a device; if the target is not in C order, unpack it slice by slice."""
    data = np.ascontiguousarray(source).reshape(-1).view(np.uint8)

    def upload(region: Region, first: int) -> None:
        def fill(begin: int, buffer: memoryview) -> None:
            buffer[:] = data.data[first + begin : first + begin + len(buffer)]

        with transfer.uploading() as begin:
            begin(region, fill)

    if array.is_c_contiguous():
        upload(Region(device, memory.address_of(array), len(data), array), 0)
    else:
        for part, first, count in _slices(array, device):
            upload(part, first * array.dtype.itemsize)
            _move(array, part, first, count, back=True)


def _slices(array: memory.Array, device: int) -> Iterator[tuple[Region, int, int]]:
    """Cut an array into slices: memory to pack each into, its first element, and their number."""
    size, total = array.dtype.itemsize, math.prod(array.shape)
    step = min(total, max(1, transfer.BUFFER // size))
    with memory.on_device(device):
        scratch = memory.empty((step * size,), np.uint8)
        packed = Region(device, memory.address_of(scratch), step * size, scratch)
    for first in range(0, total, step):
        count = min(step, total - first)
        yield packed.part(0, count * size), first, count


def _move(array: memory.Array, part: Region, first: int, count: int, *, back: bool = False) -> None:
    """Pack some elements, or unpack them, and wait until it is done."""
    with memory.on_device(part.device):
        stream = memory.side_stream()
        kept = strided.copy(array, part.address, stream, back=back, first=first, count=count)
        memory.done(stream, kept)()
