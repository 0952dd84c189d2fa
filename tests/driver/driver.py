"""The calls of the CUDA driver, on memory of the process. See the package for what that means."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
# The functions are called by C, with the types that `call` is given.

import collections
import ctypes as c
import mmap
import os
import random
import re
import threading
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, field

from tests.driver import ptx

MODE = os.environ.get("DRIVER_MODE", "lazy")
DEVICES = int(os.environ.get("DRIVER_DEVICES", "1"))
TOTAL = 8 << 30  # bytes of each device
PAGEABLE = 1 << 16  # bytes; copies from pageable memory return at once up to here
PTR, U64, INT, UINT, SIZE = c.c_void_p, c.c_uint64, c.c_int, c.c_uint, c.c_size_t
INVALID, NO_MEMORY, NO_CONTEXT, NO_HANDLE, NOT_READY, UNSUPPORTED = 1, 2, 201, 400, 600, 801
CAPTURE_UNSUPPORTED = 900
CONTEXT = 0x1000  # that of device 0
UNTOUCHED = {"cuGetErrorName", "cuGetErrorString", "cuCtxGetCurrent", "cuCtxPushCurrent",
             "cuCtxPopCurrent", "cuCtxSetCurrent", "cuCtxGetDevice", "cuDeviceGetCount",
             "cuDeviceGetAttribute", "cuInit", "cuPointerGetAttribute"}  # fmt: skip
"""Calls that succeed after an error that the context does not survive, as on an H100."""

ATTRIBUTES = {75: 9, 76: 0, 16: 132, 1: 1024, 2: 1024, 3: 1024, 4: 64, 5: 2**31 - 1, 6: 65535,
              7: 65535, 10: 32, 33: 0, 34: 0, 50: 0, 95: 1}  # fmt: skip


class AccessError(Exception):
    """A kernel or a copy touched memory that is not a device's."""


@define(eq=False)
class Stream:
    blocking: bool
    device: int
    work: collections.deque[tuple[Callable[[], object], list[tuple["Stream", int]]]] = field(
        factory=collections.deque
    )
    begun: int = 0
    sent: int = 0


@define(eq=False)
class Event:
    place: tuple[Stream, int] | None = None
    queries: int = 0


class Driver:
    """The state of all devices; tests read it, and make calls fail."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.random = random.Random(int(os.environ.get("DRIVER_SEED", "0")))
        self.thread = threading.local()
        self.calls: collections.Counter[str] = collections.Counter()
        self.complaints: list[str] = []
        self.contexts: set[int] = set()
        self.pageable: list[str] = []
        self.default = [Stream(True, device) for device in range(DEVICES)]
        self.streams: dict[int, Stream] = {}
        self.events: dict[int, Event] = {}
        self.memory: dict[int, tuple[int, int, mmap.mmap]] = {}  # size, device, itself
        self.pinned: dict[int, tuple[int, mmap.mmap]] = {}
        self.kernels: dict[int, str] = {}
        self.ptx: dict[str, str] = {}
        self.compiled: dict[str, ptx.Compiled] = {}
        self.room = [TOTAL] * DEVICES
        self.lost = 0
        self.capturing: int | None = None
        self._failures: dict[str, list[int]] = {}
        self._handles = iter(range(0x70000000, 2**40, 0x40))

    # --- for tests --------------------------------------------------------------------------------

    def fail(self, name: str, code: int, *, after: int = 0, times: int = 1) -> None:
        """Make so many calls of a function fail, after some that do not."""
        self._failures[name] = [0] * after + [code] * times

    def complain(self, text: str) -> None:
        self.complaints.append(f"{threading.current_thread().name}: {text}")

    def failure(self, name: str) -> int:
        return self._failures[name].pop(0) if self._failures.get(name) else 0

    # --- order ------------------------------------------------------------------------------------

    def send(
        self, to: Stream, work: Callable[[], object], after: Iterable[tuple[Stream, int]] = ()
    ) -> None:
        """Put work into a stream; it is done when it must be, or earlier, by the mode."""
        needed = [*after]
        if to is self.default[to.device]:
            needed += [
                (s, s.sent) for s in self.streams.values() if s.blocking and s.device == to.device
            ]
        elif to.blocking:
            needed.append((self.default[to.device], self.default[to.device].sent))
        to.work.append((work, needed))
        to.sent += 1
        if MODE == "eager":
            self.run(to, to.sent)
        elif MODE == "random":
            for stream in [*self.streams.values(), *self.default]:
                if stream.work and self.random.random() < 0.3:
                    self.run(stream, stream.begun + 1)

    def run(self, stream: Stream, upto: int) -> None:
        while stream.begun < upto:
            work, needed = stream.work.popleft()
            stream.begun += 1
            for other, count in needed:
                self.run(other, count)
            if self.lost:
                continue
            try:
                work()
            except AccessError as error:
                self.lost = 700
                self.complain(f"illegal access: {error}")
            except Exception:
                traceback.print_exc()
                self.lost = 719
                self.complain("a kernel failed in the stand-in")

    def drain(self, device: int) -> None:
        for stream in [self.default[device], *self.streams.values()]:
            if stream.device == device:
                self.run(stream, stream.sent)

    # --- what is there ----------------------------------------------------------------------------

    @property
    def stack(self) -> list[int]:
        if not hasattr(self.thread, "stack"):
            self.thread.stack = []
        found: list[int] = self.thread.stack
        return found

    def current(self) -> int:
        return self.stack[-1] if self.stack else 0

    def device(self) -> int:
        return self.current() - CONTEXT

    def stream(self, handle: int | None) -> Stream:
        return (
            self.streams[handle] if handle not in (None, 0, 1, 2) else self.default[self.device()]
        )

    def handle(self) -> int:
        return next(self._handles)

    def is_pinned(self, address: int, size: int) -> bool:
        return any(b <= address and address + size <= b + n for b, (n, _) in self.pinned.items())

    def check(self, address: int, size: int, what: str) -> None:
        inside = (b <= address and address + size <= b + n for b, (n, _, _) in self.memory.items())
        if size and not any(inside):
            raise AccessError(f"{what}: {size} bytes at {address:#x} are in no device's memory")


DRIVER = Driver()
CALLS: dict[str, Any] = {}


def put(address: int | None, kind: Any, value: int) -> None:
    if address:
        kind.from_address(address).value = value


def call(*types: Any, context: bool = False, capture: bool = False) -> Callable[[Any], Any]:
    """Make a function one of the driver's, of its name.

    `context` says that one must be current; `capture` that a thread may not call it while a graph
    is captured, unless it relaxed that.
    """

    def decorate(function: Any) -> Any:
        name = function.__name__

        def called(*arguments: Any) -> int:
            try:
                with DRIVER.lock:
                    DRIVER.calls[name] += 1
                    if code := DRIVER.failure(name):
                        if code > NOT_READY or code in (214, 220, 226):
                            DRIVER.lost = code
                        return code
                    if DRIVER.lost and name not in UNTOUCHED:
                        return DRIVER.lost
                    if context and not DRIVER.current():
                        DRIVER.complain(f"{name} without a current context")
                        return NO_CONTEXT
                    relaxed = getattr(DRIVER.thread, "mode", 0) == 2
                    if capture and DRIVER.capturing is not None and not relaxed:
                        DRIVER.complain(f"{name} breaks the capture of a graph")
                        return CAPTURE_UNSUPPORTED
                    return function(*arguments) or 0
            except Exception:
                traceback.print_exc()
                DRIVER.complain(f"{name} failed in the stand-in")
                return 999

        CALLS[name] = c.CFUNCTYPE(INT, *types)(called)
        return function

    return decorate


# --- devices and contexts -------------------------------------------------------------------------


@call(UINT)
def cuInit(flags):
    pass


@call(PTR)
def cuDriverGetVersion(version):
    put(version, INT, 13000)


@call(PTR)
def cuDeviceGetCount(count):
    put(count, INT, DEVICES)


@call(PTR, INT)
def cuDeviceGet(device, number):
    put(device, INT, number)


@call(PTR, INT, INT)
def cuDeviceGetName(name, room, device):
    c.memmove(name, b"Stand-in\0", 9)


@call(PTR, INT)
def cuDeviceGetUuid(uuid, device):
    c.memset(uuid, 7 + device, 16)


@call(PTR, INT)
def cuDeviceTotalMem(size, device):
    put(size, SIZE, TOTAL)


@call(PTR, INT, INT)
def cuDeviceGetAttribute(value, attribute, device):
    put(value, INT, ATTRIBUTES.get(attribute, 1))


@call(PTR, INT)
def cuDevicePrimaryCtxRetain(context, device):
    DRIVER.contexts.add(device)
    put(context, U64, CONTEXT + device)


@call(INT)
def cuDevicePrimaryCtxRelease(device):
    pass


@call(INT, PTR, PTR)
def cuDevicePrimaryCtxGetState(device, flags, active):
    put(flags, UINT, 0)
    put(active, INT, device in DRIVER.contexts)


@call(PTR)
def cuCtxGetCurrent(context):
    put(context, U64, DRIVER.current())


@call(PTR)
def cuCtxSetCurrent(context):
    if DRIVER.stack:
        DRIVER.stack.pop()
    if context:
        DRIVER.stack.append(context)


@call(PTR)
def cuCtxPushCurrent(context):
    DRIVER.stack.append(context)


@call(PTR)
def cuCtxPopCurrent(context):
    if not DRIVER.stack:
        return NO_CONTEXT
    put(context, U64, DRIVER.stack.pop())
    return 0


@call(PTR, context=True)
def cuCtxGetDevice(device):
    put(device, INT, DRIVER.device())


@call(context=True, capture=True)
def cuCtxSynchronize():
    DRIVER.drain(DRIVER.device())
    return DRIVER.lost


@call(PTR, PTR, context=True)
def cuCtxGetStreamPriorityRange(least, greatest):
    put(least, INT, 0)
    put(greatest, INT, -5)


@call(PTR)
def cuThreadExchangeStreamCaptureMode(mode):
    before = getattr(DRIVER.thread, "mode", 0)
    DRIVER.thread.mode = INT.from_address(mode).value
    put(mode, INT, before)


# --- memory ---------------------------------------------------------------------------------------


def room(device: int) -> int:
    used = sum(size for size, where, _ in DRIVER.memory.values() if where == device)
    return max(DRIVER.room[device] - used, 0)


def mapped(size: int) -> tuple[int, mmap.mmap]:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # not reserved
    memory = mmap.mmap(-1, max(size, 1), flags=flags)
    return c.addressof(c.c_char.from_buffer(memory)), memory


@call(PTR, PTR, context=True)
def cuMemGetInfo(free, total):
    put(free, SIZE, room(DRIVER.device()))
    put(total, SIZE, TOTAL)


@call(PTR, SIZE, context=True, capture=True)
def cuMemAlloc(address, size):
    if not size:
        return INVALID
    if size > room(DRIVER.device()):
        return NO_MEMORY
    begin, memory = mapped(-(-size // 512) * 512)
    c.memset(begin, 0xA5, min(size, 1 << 20))  # new memory is not zero
    DRIVER.memory[begin] = (size, DRIVER.device(), memory)
    put(address, U64, begin)
    return 0


@call(U64, capture=True)
def cuMemFree(address):
    if address not in DRIVER.memory:
        DRIVER.complain(f"free of {address:#x}, which is none")
        return INVALID
    DRIVER.drain(DRIVER.memory[address][1])
    del DRIVER.memory[address]
    return DRIVER.lost


@call(PTR, SIZE, UINT, context=True, capture=True)
def cuMemHostAlloc(address, size, flags):
    begin, memory = mapped(size)
    DRIVER.pinned[begin] = (size, memory)
    put(address, U64, begin)


@call(PTR, capture=True)
def cuMemFreeHost(address):
    for device in range(DEVICES):
        DRIVER.drain(device)
    del DRIVER.pinned[address]


@call(PTR, INT, U64)
def cuPointerGetAttribute(value, attribute, address):
    for begin, (size, device, _) in DRIVER.memory.items():
        if begin <= address < begin + size:
            found = {9: (INT, device), 3: (U64, address), 2: (INT, 2)}
            put(value, *found[attribute])
            return 0
    return INVALID


def to_device(target: int, source: int, size: int, stream: Stream, *, wait: bool) -> int:
    pinned = DRIVER.is_pinned(source, size)
    data = None if pinned else bytes((c.c_char * size).from_address(source))

    def copy() -> None:
        DRIVER.check(target, size, "to device")
        if pinned and not DRIVER.is_pinned(source, size):
            raise AccessError("to device, from pinned memory that was freed")
        c.memmove(target, source if data is None else data, size)

    DRIVER.send(stream, copy)
    if wait or (not pinned and size > PAGEABLE):
        DRIVER.run(stream, stream.sent)
    return DRIVER.lost


def to_host(target: int, source: int, size: int, stream: Stream, *, wait: bool) -> int:
    pinned = DRIVER.is_pinned(target, size)

    def copy() -> None:
        DRIVER.check(source, size, "to host")
        if pinned and not DRIVER.is_pinned(target, size):
            raise AccessError("to host, to pinned memory that was freed")
        c.memmove(target, source, size)

    DRIVER.send(stream, copy)
    if wait or not pinned:
        if not wait:
            DRIVER.pageable.append(threading.current_thread().name)
        DRIVER.run(stream, stream.sent)
    return DRIVER.lost


def within(target: int, source: int, size: int, stream: Stream) -> None:
    def copy() -> None:
        DRIVER.check(source, size, "copy from")
        DRIVER.check(target, size, "copy to")
        c.memmove(target, source, size)

    DRIVER.send(stream, copy)


@call(U64, PTR, SIZE, context=True)
def cuMemcpyHtoD(target, source, size):
    return to_device(target, source, size, DRIVER.stream(0), wait=True)


@call(PTR, U64, SIZE, context=True)
def cuMemcpyDtoH(target, source, size):
    return to_host(target, source, size, DRIVER.stream(0), wait=True)


@call(U64, PTR, SIZE, PTR, context=True)
def cuMemcpyHtoDAsync(target, source, size, stream):
    return to_device(target, source, size, DRIVER.stream(stream), wait=False)


@call(PTR, U64, SIZE, PTR, context=True)
def cuMemcpyDtoHAsync(target, source, size, stream):
    return to_host(target, source, size, DRIVER.stream(stream), wait=False)


@call(U64, U64, SIZE, context=True)
def cuMemcpyDtoD(target, source, size):
    within(target, source, size, DRIVER.stream(0))


@call(U64, U64, SIZE, PTR, context=True)
def cuMemcpyDtoDAsync(target, source, size, stream):
    within(target, source, size, DRIVER.stream(stream))


# --- streams and events ---------------------------------------------------------------------------


@call(PTR, UINT, context=True)
def cuStreamCreate(stream, flags):
    handle = DRIVER.handle()
    DRIVER.streams[handle] = Stream(not flags & 1, DRIVER.device())
    put(stream, U64, handle)


@call(PTR, UINT, INT, context=True)
def cuStreamCreateWithPriority(stream, flags, priority):
    cuStreamCreate(stream, flags)


@call(PTR)
def cuStreamDestroy(handle):
    if handle not in DRIVER.streams:
        DRIVER.complain("destroy of a stream that is none")
        return NO_HANDLE
    stream = DRIVER.streams[handle]
    DRIVER.run(stream, stream.sent)
    del DRIVER.streams[handle]
    return 0


@call(PTR)
def cuStreamSynchronize(handle):
    stream = DRIVER.stream(handle)
    DRIVER.run(stream, stream.sent)
    return DRIVER.lost


@call(PTR)
def cuStreamQuery(handle):
    return NOT_READY if DRIVER.stream(handle).work else 0


@call(PTR, PTR)
def cuStreamGetCtx(handle, context):
    put(context, U64, CONTEXT + DRIVER.stream(handle).device)


@call(PTR, PTR, UINT)
def cuStreamWaitEvent(handle, event, flags):
    place = DRIVER.events[event].place
    DRIVER.send(DRIVER.stream(handle), lambda: None, [place] if place else [])


@call(PTR, UINT, context=True)
def cuEventCreate(event, flags):
    handle = DRIVER.handle()
    DRIVER.events[handle] = Event()
    put(event, U64, handle)


@call(PTR)
def cuEventDestroy(event):
    if event not in DRIVER.events:
        DRIVER.complain("destroy of an event that is none")
        return NO_HANDLE
    del DRIVER.events[event]
    return 0


@call(PTR, PTR, context=True)
def cuEventRecord(event, handle):
    stream = DRIVER.stream(handle)
    if stream.device != DRIVER.device():
        DRIVER.complain("an event of another context than its stream")
        return NO_HANDLE
    DRIVER.send(stream, lambda: None)
    DRIVER.events[event].place = (stream, stream.sent)
    return 0


@call(PTR)
def cuEventQuery(event):
    found = DRIVER.events[event]
    if found.place is None or found.place[0].begun >= found.place[1]:
        return DRIVER.lost
    found.queries += 1
    if found.queries > 50:
        DRIVER.run(*found.place)
        return DRIVER.lost
    return NOT_READY


@call(PTR)
def cuEventSynchronize(event):
    if place := DRIVER.events[event].place:
        DRIVER.run(*place)
    return DRIVER.lost


@call(PTR, PTR, PTR)
def cuEventElapsedTime(milliseconds, first, last):
    put(milliseconds, c.c_float, 1)


# --- kernels --------------------------------------------------------------------------------------


@call(PTR, PTR, PTR, PTR, UINT, PTR, PTR, UINT)
def cuLibraryLoadData(library, *_):
    put(library, U64, DRIVER.handle())


@call(PTR)
def cuLibraryUnload(library):
    pass


@call(PTR, PTR, c.c_char_p)
def cuLibraryGetKernel(kernel, library, name):
    handle = DRIVER.handle()
    DRIVER.kernels[handle] = name.decode()
    put(kernel, U64, handle)


@call(PTR, INT, PTR, INT)
def cuKernelGetAttribute(value, attribute, kernel, device):
    put(value, INT, {0: 1024, 4: 32}.get(attribute, 0))


@call(PTR, PTR)
def cuKernelGetLibrary(library, kernel):
    put(library, U64, 1)


@call(PTR, PTR, PTR, PTR, context=True)
def cuLaunchKernelEx(config, kernel, parameters, extra):
    grid, *_, block = (UINT.from_address(config + 4 * i).value for i in range(4))
    stream = U64.from_address(config + 32).value
    name = DRIVER.kernels[kernel]
    if name not in DRIVER.compiled:
        DRIVER.compiled[name] = ptx.compiled(DRIVER.ptx[name])
    work = DRIVER.compiled[name].launch(parameters, grid, block)

    def launched() -> None:
        places = [(b, b + -(-size // 512) * 512) for b, (size, _, _) in DRIVER.memory.items()]
        if bad := work(places):
            raise AccessError(f"{name} touches {bad:#x}")

    DRIVER.send(DRIVER.stream(stream), launched)


# --- errors, and how all is found -----------------------------------------------------------------

_texts: dict[int, Any] = {}


def _text(code: int, text: str, into: int) -> None:
    _texts[code] = c.c_char_p(text.encode())
    put(into, U64, c.cast(_texts[code], PTR).value or 0)


@call(INT, PTR)
def cuGetErrorName(code, name):
    from cuda.bindings import driver  # pyright: ignore[reportMissingImports]

    _text(code, driver.CUresult(code).name, name)


@call(INT, PTR)
def cuGetErrorString(code, text):
    _text(-code, f"error {code}", text)


_missing: dict[str, Any] = {}


@c.CFUNCTYPE(PTR, c.c_char_p)
def _resolve(name: bytes) -> int | None:
    text = name.decode()
    found = CALLS.get(text) or CALLS.get(re.sub(r"_v\d$", "", text)) or _missing.get(text)
    if found is None:

        def missing(*_: int) -> int:
            DRIVER.complain(f"{text} is not in the stand-in")
            return UNSUPPORTED

        found = _missing[text] = c.CFUNCTYPE(INT, *[PTR] * 6)(missing)
    return c.cast(found, PTR).value


@call(c.c_char_p, PTR, INT, U64, PTR)
def cuGetProcAddress(name, function, version, flags, status):
    put(function, U64, _resolve(name))


def install(folder: Path) -> None:
    """Build the shim, and load it, so that it is found as libcuda.so.1 from then on."""
    library = c.CDLL(str(ptx.build(folder, Path(__file__).with_name("shim.c").read_text(),
                                   "-Wl,-soname,libcuda.so.1")), mode=c.RTLD_GLOBAL)  # fmt: skip
    library.set_resolver(_resolve)
    np.zeros(0)  # NumPy is loaded before any thread needs it
