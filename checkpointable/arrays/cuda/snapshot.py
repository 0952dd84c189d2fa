"""Copies of device arrays, with the shortest possible stall of the kernel.

There are three ways, and the first that has room is taken:

device  to one region of the same device, in the order of the kernel's stream;
pinned  to pinned host memory, likewise;
sliced  to any host memory, through a few pinned buffers.
"""

import math
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from attrs import define, field

from checkpointable.arrays.boxes import Box
from checkpointable.arrays.cuda import digest, memory, strided, transfer
from checkpointable.arrays.cuda.memory import Wait
from checkpointable.arrays.cuda.views import DEFAULT, View, view_of
from checkpointable.arrays.kinds import HostArray
from checkpointable.arrays.lazy import LazyArray, Region
from checkpointable.arrays.staging import Snapshot, Staging, Way, empty

_ALIGN = 256  # bytes, as memory from CUDA is
_PINNED_SHARE = 0.5  # of the host's available memory

Views: TypeAlias = Mapping[str, View]


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
        self._tables: dict[tuple[int, bool], strided.Tables] = {}
        self._dropped: set[int] = set()
        self.pinned: Staging | None = None

    def take(self, wanted: Mapping[int, int], reserve: int) -> dict[int, Region] | None:
        """A region of the wanted size on each device; None unless `reserve` bytes stay free there.

        Memory that is neither in use nor wanted now is let go, and freed by `collect`.
        """
        free = [slab for slab in self._slabs if slab.used() is None]
        self._slabs = [slab for slab in self._slabs if slab.used() is not None]
        slabs: dict[int, _Slab] = {}
        for device, size in wanted.items():
            fits = (s for s in free if s.device == device and size <= s.size <= 2 * size + _ALIGN)
            slab = min(fits, key=lambda slab: slab.size, default=None)
            if slab is not None:
                slabs[device] = slab
                free.remove(slab)
        self._slabs += slabs.values()
        self._dropped |= {slab.device for slab in free}
        free.clear()
        for device, size in wanted.items():
            if device not in slabs:
                slab = _new(device, size, reserve)
                if slab is None:
                    return None
                slabs[device] = slab
                self._slabs.append(slab)
        return {device: slab.region(wanted[device]) for device, slab in slabs.items()}

    def collect(self) -> None:
        """Free the memory that was let go; that waits for all that runs on its device."""
        while self._dropped:
            with memory.on_device(self._dropped.pop()):
                memory.collect()

    def tables(self, device: int, *, strided_: bool) -> strided.Tables:
        """Where the tables of a snapshot's copies lie."""
        return self._tables.setdefault((device, strided_), strided.Tables())

    def release(self) -> None:
        """Let go of all memory that is not in use."""
        self._slabs = [slab for slab in self._slabs if slab.used() is not None]
        self._tables.clear()
        self.pinned = None


def prepare(arrays: Iterable[Any]) -> None:
    """Compile, or load, what copies and digests such arrays."""
    views = [view_of(array) for array in arrays]
    for device in {view.device for view in views if view.nbytes}:
        with memory.on_device(device):
            stream = memory.side_stream()
            strided.prepare([v for v in views if v.device == device], stream)
            digest.prepare(stream)
            memory.done(stream)()


def release(staging: Staging) -> None:
    """Give back the memory that snapshots were copied to, and that digests and transfers used."""
    if staging.arena is not None:
        staging.arena.release()
    transfer.release()
    digest.release()
    for device in range(memory.devices()):
        if memory.has_context(device):
            with memory.on_device(device):
                memory.collect()


def _new(device: int, size: int, reserve: int) -> _Slab | None:
    """Memory of a device; None unless `reserve` bytes stay free there."""
    room = -(-size // _ALIGN) * _ALIGN
    try:
        with memory.on_device(device):
            if size + reserve > memory.free():
                memory.collect()
            if size + reserve > memory.free():
                return None
            return _Slab(device, memory.empty(room), room)
    except MemoryError:  # less is free than it seemed
        return None


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
    views = {name: view_of(array) for name, array in arrays.items()}
    return _on_devices(views, staging) or {}


@define(eq=False)
class Copies:
    """Copies of device arrays to be made: `arrays` by name, in memory that was found for them."""

    way: Way
    arrays: dict[str, Any]
    _views: Views
    _staging: Staging | None

    def begin(self, stream: object) -> Wait:
        """Begin to copy, in the order of the kernel's stream, or streams; return a wait.

        Before, the devices that `unsettled` names are to be synchronized.
        """
        started, total = time.perf_counter(), sum(view.nbytes for view in self._views.values())
        staging, waits, streams = self._staging, list[Wait](), _streams(stream)
        with _waiting_on_error(waits):
            for device, names in _by_device(self._views).items():
                with memory.on_device(device):
                    views = [self._views[name] for name in names]
                    ordered = _ordered(views, streams.get(device))
                    self._begin_on(device, names, ordered, waits)
        rate = None if staging is None else staging.rates.get(self.way)

        def wait() -> None:
            for done in waits:
                done()
            if staging is not None:
                seconds = time.perf_counter() - started
                predicted = None if rate is None else total / rate
                staging.snapshot = Snapshot(self.way, total, predicted, seconds)
                if total:
                    staging.rates[self.way] = total / seconds
                staging.arena.collect()

        return wait

    def _begin_on(
        self, device: int, names: Sequence[str], stream: memory.Stream, waits: list[Wait]
    ) -> None:
        views = [self._views[name] for name in names]
        targets = [self.arrays[name] for name in names]
        if self.way == "device":
            assert self._staging is not None
            addresses = [target.region.address for target in targets]
            try:
                _copy(self._staging.arena, device, views, addresses, stream)
            finally:  # whatever has begun is waited for
                waits.append(memory.done(stream, views))
            return
        data = [target.reshape(-1).view(np.uint8) for target in targets]
        direct = [self.way == "pinned" and view.strides is None for view in views]
        try:
            for view, into, now in zip(views, data, direct, strict=True):
                if now:
                    memory.to_host(into, view.address, stream)
        finally:
            waits.append(memory.done(stream, views))
        for view, into, now in zip(views, data, direct, strict=True):
            if not now:
                waits.append(partial(_fetch, view, into))


def _copy(
    arena: Arena, device: int, views: Sequence[View], addresses: Sequence[int],
    stream: memory.Stream, *, back: bool = False,
) -> None:  # fmt: skip
    """Copy arrays to addresses on their device, or `back` from there, in the order of a stream."""
    pairs = [*zip(views, addresses, strict=True)]
    packed = [(view, at) for view, at in pairs if view.strides is None]
    ours, theirs = [at for _, at in packed], [view.address for view, _ in packed]
    targets, sources = (theirs, ours) if back else (ours, theirs)
    sizes = [view.nbytes for view, _ in packed]
    tables = arena.tables(device, strided_=False)
    strided.copy_pieces(tables, targets, sources, sizes, stream)
    other = [(view, at) for view, at in pairs if view.strides is not None]
    if other:
        tables = arena.tables(device, strided_=True)
        moved, places = [view for view, _ in other], [at for _, at in other]
        strided.move_arrays(tables, moved, places, stream, back=back)


def allocate(views: Views, staging: Staging | None) -> Copies | None:
    """Memory on the devices for copies of all arrays; None if there is not enough room."""
    arrays = None if staging is None else _on_devices(views, staging)
    return None if arrays is None else Copies("device", _in_order(views, arrays), views, staging)


def allocate_on_host(views: Views, staging: Staging | None) -> Copies:
    """Memory on the host for copies of all arrays, pinned if there is enough. To pin takes long."""
    arrays: Mapping[str, Any] | None = None if staging is None else _in_pinned(views, staging)
    way: Way = "sliced" if arrays is None else "pinned"
    if arrays is None:
        arrays = {name: empty(view.shape, view.dtype) for name, view in views.items()}
    return Copies(way, _in_order(views, arrays), views, staging)


def begin(
    arrays: Mapping[str, Any], stream: object, staging: Staging | None
) -> tuple[dict[str, Any], Wait]:
    """Begin to copy device arrays; return the copies, and a wait.

    `stream` is the one that computes them, or there are several; without it, an array has its own,
    or is waited for. With a `staging` the copies may stay on the devices; without it they are on
    the host.
    """
    views = {name: view_of(array) for name, array in arrays.items()}
    for device in unsettled(views.values(), stream):
        memory.synchronize(device)
    copies = allocate(views, staging) or allocate_on_host(views, staging)
    return copies.arrays, copies.begin(stream)


def unsettled(views: Iterable[View], stream: object) -> list[int]:
    """The devices to synchronize, since no known stream orders some of their arrays."""
    waiting = {view.device for view in views if view.stream is None and view.nbytes}
    return sorted(waiting - {*_streams(stream)}) if waiting else []


def _streams(stream: object) -> dict[int, memory.Stream]:
    """The kernel's streams by device: it has one, or several in a list or tuple, or none."""
    given = stream if isinstance(stream, list | tuple) else [stream]
    by_device: dict[int, memory.Stream] = {}
    for one in (memory.stream_of(one) for one in given if memory.is_stream(one)):
        device = memory.device_of_stream(one)
        for number in range(memory.devices()) if device is None else [device]:
            by_device.setdefault(number, one)
    return by_device


def _ordered(views: Sequence[View], ordered: memory.Stream | None) -> memory.Stream:
    """The stream to copy arrays of a device on: the kernel's, if any, after what others do."""
    own = {id(view.stream): view.stream for view in views if view.stream not in (None, DEFAULT)}
    for one in map(memory.stream_of, own.values()):
        if ordered is None:
            ordered = one
        else:
            memory.follow(ordered, one)
    return memory.stream_of(None) if ordered is None else ordered


def _by_device(views: Views) -> dict[int, list[str]]:
    """The names of the arrays that are not empty, by device."""
    names: dict[int, list[str]] = {}
    for name, view in views.items():
        if view.nbytes:
            names.setdefault(view.device, []).append(name)
    return names


def _in_order(views: Views, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """All copies in the order of the arrays; those without bytes are on the host."""
    return {n: arrays[n] if n in arrays else empty(v.shape, v.dtype) for n, v in views.items()}


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


def _on_devices(views: Views, staging: Staging) -> dict[str, LazyArray] | None:
    """Arrays for the copies, in one region of each device; None if there is not enough room."""
    staging.arena = staging.arena or Arena()
    by_device = _by_device(views)
    places = {d: _places([views[name] for name in names]) for d, names in by_device.items()}
    wanted = {d: places[d][-1] + views[names[-1]].nbytes for d, names in by_device.items()}
    regions = staging.arena.take(wanted, staging.reserve)
    if regions is None:
        return None
    arrays: dict[str, LazyArray] = {}
    for device, names in by_device.items():
        region = regions[device]
        for name, begin in zip(names, places[device], strict=True):
            view = views[name]
            part = Region(device, region.address + begin, view.nbytes, region)
            arrays[name] = array_in(part, view.dtype, view.shape)
    return arrays


def _places(views: Sequence[View]) -> list[int]:
    """Where in one piece of memory the copy of each array begins."""
    sizes = (-(-view.nbytes // _ALIGN) * _ALIGN for view in views)
    return [*accumulate(sizes, initial=0)][:-1]


def _in_pinned(views: Views, staging: Staging) -> dict[str, HostArray] | None:
    """Arrays for the copies in one piece of pinned memory; None if there is not enough room."""
    staging.arena = staging.arena or Arena()
    if staging.arena.pinned is None:
        staging.arena.pinned = Staging(make=memory.pinned)
    places, last = _places([*views.values()]), [*views.values()][-1]
    held, total = staging.arena.pinned.held(), places[-1] + last.nbytes
    with staging.arena.pinned.in_use():
        if sum(view.nbytes for view in views.values()) > _PINNED_SHARE * (_available() + held):
            return None
        try:
            with memory.on_device(last.device):
                room = staging.arena.pinned.take(total)
        except MemoryError:
            return None
    return {
        name: room[begin : begin + view.nbytes].view(view.dtype).reshape(view.shape)
        for (name, view), begin in zip(views.items(), places, strict=True)
        if view.nbytes
    }


def _available() -> float:
    """Bytes of memory that are available on the host."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * float(line.split()[1])
    return 0.0


def _fetch(view: View, data: HostArray) -> None:
    """Copy an array to the host; if it is not in C order, pack it first, slice by slice."""
    if view.strides is None:
        transfer.fetch(Region(view.device, view.address, view.nbytes, view), data)
        return
    size = view.dtype.itemsize
    for part, first, count, move in _slices(view):
        move(back=False)
        transfer.fetch(part, data[first * size : (first + count) * size])


def write_back(pairs: Iterable[tuple[Any, Any]], stream: object, staging: Staging | None) -> Wait:
    """Copy (target, source) pairs; targets are device arrays, sources on the host or in a region.

    Copies on a device are in the order of the stream, as in `begin`; those from the host happen in
    the wait.
    """
    uploads: list[tuple[View, Any]] = []
    here: dict[int, list[tuple[View, Region]]] = {}
    for target, source in pairs:
        view, region = view_of(target), getattr(source, "region", None)
        if not view.nbytes:
            continue
        if region is not None and region.device == view.device:
            here.setdefault(view.device, []).append((view, region))
        else:
            uploads.append((view, source))
    targets = [view for view, _ in (*uploads, *chain.from_iterable(here.values()))]
    for device in unsettled(targets, stream):
        memory.synchronize(device)
    arena, waits = (staging and staging.arena) or Arena(), list[Wait]()
    streams = _streams(stream)
    with _waiting_on_error(waits):
        for device, moves in here.items():
            with memory.on_device(device):
                ordered = _ordered([view for view, _ in moves], streams.get(device))
                addresses = [region.address for _, region in moves]
                try:
                    _copy(arena, device, [v for v, _ in moves], addresses, ordered, back=True)
                finally:
                    waits.append(memory.done(ordered, moves, arena))
        for device in {view.device for view, _ in uploads}:
            with memory.on_device(device):
                views = [view for view, _ in uploads if view.device == device]
                waits.append(memory.done(_ordered(views, streams.get(device))))

    def wait() -> None:
        for done in waits:
            done()
        for view, source in uploads:
            _from_host(view, source)

    return wait


def _from_host(view: View, source: Any) -> None:
    """Copy a host array to a device; if the target is not in C order, unpack it slice by slice."""
    data = np.ascontiguousarray(source).reshape(-1).view(np.uint8)

    def upload(region: Region, first: int) -> None:
        def fill(begin: int, buffer: memoryview) -> None:
            buffer[:] = data.data[first + begin : first + begin + len(buffer)]

        with transfer.uploading() as begin:
            begin(region, fill)

    if view.strides is None:
        upload(Region(view.device, view.address, view.nbytes, view), 0)
    else:
        for part, first, _, move in _slices(view):
            upload(part, first * view.dtype.itemsize)
            move(back=True)


def _slices(view: View) -> Iterator[tuple[Region, int, int, Callable[..., None]]]:
    """Cut an array into slices: memory to pack each into, its first element, and their number.

    With each comes a function that packs the slice, or unpacks it `back`, and waits for it.
    """
    size, total = view.dtype.itemsize, math.prod(view.shape)
    step = min(total, max(1, transfer.BUFFER // size))
    with memory.on_device(view.device):
        scratch, stream, tables = memory.empty(step * size), memory.side_stream(), strided.Tables()
    packed = Region(view.device, memory.address_of(scratch), step * size, scratch)
    for first in range(0, total, step):
        count = min(step, total - first)

        def move(*, back: bool, first: int = first, count: int = count) -> None:
            with memory.on_device(view.device):
                address = packed.address
                strided.move_part(tables, view, address, first, count, stream, back=back)
                memory.done(stream, view, scratch)()

        yield packed.part(0, count * size), first, count, move
