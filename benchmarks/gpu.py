"""What saves and restores of device arrays cost, beside what the machine can do at best.

The state is float32 numbers on the device, saved and restored by a `Checkpointer`. In one process,
in interleaved rounds; times and rates are medians, shares the medians of the rounds' own.

- stall: how long the kernel stands still, beside copying as many bytes on the device; into a store
  that keeps nothing, on which the stall does not depend.
- digest: `digests_of` of all blocks of 1 MiB, beside reading on the device: what a kernel reads
  that does nothing else, or twice what a copy copies (it reads as much as it writes), if more.
- 1,000 arrays of 1 MiB, and the state without its last column: their stalls, likewise.
- first save: its stall beside that of the next one. Held: device memory after a save, and after
  `release()`, beside the state.
- kernels: digests of less than that, beside reading; slices packed and unpacked, and pieces
  gathered, beside a copy on the device.
- pinned, sliced: the stall where the device has no room for a copy, beside a pinned copy to the
  host.
- host memory: a full save to a store that keeps its memory, to its end, beside a pinned copy to the
  host. One thread copies into the store.
- file: a full save, durable, beside writing the same bytes durably, past the page cache where the
  file system lets us. Delta: after a change to 1% of the blocks, evenly spread, beside a full save.
- restore: verified, from a file in the page cache, beside the slower of a pinned copy to the device
  and reading that file by 4 threads.
- slowdown: steps of a stencil bound by memory, on a stream of its own, while a save of it to a file
  is under way, beside its steps alone.
- gallery: steps of `wave`, `ising` and `nbody` on the device beside the same on the host; and what
  `wave` moves, four numbers a cell, beside twice a copy on the device.
- torch.distributed.checkpoint: `async_save` of the same memory with pinned staging, its stager
  kept, beside ours: the stall, until the state may change again, and the time until durable.

    python -m benchmarks.gpu --rounds 5 --dir PATH
"""

import asyncio
import gc
import json
import re
import shutil
import statistics
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

from attrs import asdict, define, field, frozen
from rich.console import Console

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import _gpu, _limits
from benchmarks._gpu_table import Figure, table, text_of
from benchmarks._measure import RESULTS, options, write
from checkpointable import Checkpointer, LocalStore
from checkpointable.arrays.cuda import memory
from checkpointable.format import layout
from checkpointable.kernels.ising import Ising
from checkpointable.kernels.nbody import NBody
from checkpointable.kernels.wave import Wave

Samples: TypeAlias = defaultdict[str, list[float]]
Work: TypeAlias = Callable[[], float | dict[str, float]]
"""Gives one figure, or several by their names."""

PACKAGES = ("checkpointable", "numba", "numba-cuda", "cuda-core", "cuda-bindings", "torch")
SECONDS = 240  # that the rounds with files may take; with less speed they get less to write
EVERY = 100  # of the blocks one is changed for a delta
COPY, READ, DOWN, UP = "device copy", "device read", "pinned to host", "pinned to device"
WRITE, FILE = "file write", "file read"


@frozen
class Sizes:
    """In bytes: of states to stall, of a peak, of the state for files, of the stencil's."""

    stalls: tuple[int, ...]
    peak: int
    state: int
    stencil: int
    steps: int  # of the stencil, at a time
    times: int  # that so many are taken for its steps alone
    gallery: int  # a quarter of the rows of `wave` and `ising`, an eighth of the bodies
    grid: _gpu.Grid


REAL = Sizes((1 << 30, 8 << 30, 32 << 30), 2 << 30, 8 << 30, 2 << 30, 16, 32, 1024, (2112, 256))
SMOKE = Sizes((1 << 15, 1 << 16, 1 << 17), 1 << 15, 5 << 19, 1 << 15, 1, 2, 4, (1, 16))


@define
class Bench:
    sizes: Sizes
    rounds: int
    folder: Path
    peaks: _gpu.Peaks
    say: Callable[[str], None]
    run: Callable[[Any], Any]
    log: Path | None = None
    figures: list[Figure] = field(factory=list)
    failed: list[str] = field(factory=list)
    order: Random = field(factory=lambda: Random(1))

    def interleaved(self, work: Mapping[str, Work]) -> Samples:
        """Do all of it once a round, in an order of its own; the first round does not count."""
        samples: Samples = defaultdict(list)
        for turn in range(self.rounds + 1):
            for name in self.order.sample(list(work), len(work)):
                found = work[name]()
                for part, value in (found if isinstance(found, dict) else {name: found}).items():
                    if turn:
                        samples[part].append(value)
        return samples

    def add(self, name: str, measured: Sequence[float], beside: str, against: Sequence[float],
            goal: float | None = None, sign: str = ">=", unit: str = "GB/s") -> None:  # fmt: skip
        """Add a figure, round by round; the share of steps a second is how many are missing."""
        shares = [a / b for a, b in zip(measured, against, strict=True)]
        if unit == "steps/s":
            shares = [1 - share for share in shares]
        medians = statistics.median(measured), statistics.median(against)
        share = statistics.median(shares)
        rounds = tuple(measured), tuple(shares)
        self.figures.append(
            Figure(name, medians[0], unit, beside, medians[1], share, goal, sign, *rounds)
        )
        one = self.figures[-1]
        if self.log is not None:  # as it comes: a machine that is lent may be taken back
            with self.log.open("a") as file:
                print(json.dumps(asdict(one) | {"verdict": one.verdict}), file=file)

    def attempt(self, what: Callable[..., object], *arguments: object) -> None:
        """Measure one part; if that fails, say so, and the others are measured all the same."""
        _collect()
        try:
            what(*arguments)
        except Exception as error:
            traceback.print_exc()
            self.failed.append(what.__name__)
            self.say(f"FAILED: {what.__name__}: {type(error).__name__}: {error}")

    # --- what is measured -------------------------------------------------------------------------

    def stalls(self) -> None:
        for size in self.sizes.stalls:
            _collect()
            if 2 * size + (256 << 20) > memory.free():
                self.say(
                    f"left out: {text_of(size)}, which does not fit twice into the "
                    f"{text_of(memory.free())} of memory that are free on the device"
                )
                continue
            held = _gpu.Held(size, self.sizes.grid)
            checkpointer = Checkpointer(held, _gpu.Nowhere())

            def stall(
                size: int = size, checkpointer: Checkpointer[_gpu.Field] = checkpointer
            ) -> float:
                return size / self._saved(checkpointer)[0]

            found = self.interleaved(
                {"stall": stall, "digest": held.digest, COPY: self.peaks.copy}
                | {READ: self.peaks.read}
            )
            most = [max(r, 2 * c) for r, c in zip(found[READ], found[COPY], strict=True)]
            self.add(f"stall, {text_of(size)}", found["stall"], COPY, found[COPY], 0.9)
            self.add(f"digest, {text_of(size)}", found["digest"], READ, most, 0.6)
            if size == self.sizes.stalls[0]:
                self.add("reading, by a kernel", found[READ], f"2 × {COPY}",
                         [2 * c for c in found[COPY]])  # fmt: skip
            del held, checkpointer, stall

    def shapes(self) -> None:
        """Stalls of many arrays, and of one with gaps; the first one; the memory that is held."""
        size = self.sizes.stalls[0]
        for name, kernel, goal in (
            (f"stall, 1,000 arrays of {text_of(size // 1000)}", _gpu.Many(size, 1000), 0.7),
            (f"stall, {text_of(size)} without a column", _gpu.Many(size, 1, gaps=True), None),
        ):
            checkpointer = Checkpointer(kernel, _gpu.Nowhere())

            def stall(
                checkpointer: Checkpointer[Any] = checkpointer, kernel: _gpu.Many = kernel
            ) -> float:
                return kernel.size / self._saved(checkpointer)[0]

            found = self.interleaved({"stall": stall, COPY: self.peaks.copy})
            self.add(name, found["stall"], COPY, found[COPY], goal)
        held = _gpu.Held(size, self.sizes.grid)

        def begun() -> dict[str, float]:
            _collect()
            before = memory.free()
            checkpointer = Checkpointer(held, _gpu.Nowhere())
            first, later = self._saved(checkpointer)[0], self._saved(checkpointer)[0]
            kept = before - memory.free()
            checkpointer.release()
            left = before - memory.free()
            return {"first": first, "later": later, "kept": kept, "left": left, "state": size}

        found = self.interleaved({"begun": begun})
        self.add("stall of the first save", found["first"], "the second", found["later"], None,
                 "<=", "s")  # fmt: skip
        for which, name in (("kept", "held after a save"), ("left", "held after a release")):
            self.add(name, found[which], "the state", found["state"], None, "<=", "bytes")

    def kernels(self) -> None:
        """Digests of little, slices, and many pieces: what the kernels of this package reach."""
        size = self.sizes.stalls[0]
        work: dict[str, Work] = {COPY: self.peaks.copy, READ: self.peaks.read}
        for part in (size >> 6, size >> 4, size >> 2):
            work[f"digest, {text_of(part)}"] = _gpu.Held(part, self.sizes.grid).digest
        moves = _gpu.Moves(size, self.sizes.grid)
        work |= {f"packed, {name}": partial(moves.pack, name) for name in moves.views}
        work |= {f"unpacked, {name}": partial(moves.pack, name, back=True) for name in moves.views}
        for count in (16, 4096):
            each = max(size // 64 // count, 1)
            work[f"{count:,} pieces of {text_of(each)}"] = partial(moves.gather, count, each)
        found = self.interleaved(work)
        for name in work:
            beside = READ if name.startswith("digest") else COPY
            if name not in (COPY, READ):
                self.add(name, found[name], beside, found[beside])

    def ways(self) -> None:
        """The stall where there is no room for a copy on the device."""
        held = _gpu.Held(self.sizes.stalls[0], self.sizes.grid)
        for way, available in (("pinned", 1e18), ("sliced", 0.0)):
            checkpointer = Checkpointer(held, _gpu.Nowhere(), reserve=1 << 60)

            def stall(
                checkpointer: Checkpointer[Any] = checkpointer,
                available: float = available,
                way: str = way,
            ) -> float:
                with _gpu.host_memory(available):
                    return held.size / self._saved(checkpointer, way=way)[0]

            found = self.interleaved({"stall": stall, DOWN: self.peaks.down})
            self.add(f"stall, {way}, {text_of(held.size)}", found["stall"], DOWN, found[DOWN])
            checkpointer.release()

    def stored(self) -> None:
        held = self.state()
        self.attempt(self.host, held)
        self.attempt(self.files, held)

    def host(self, held: _gpu.Held) -> None:
        store = _gpu.Kept()
        checkpointer = Checkpointer(held, store)

        def save() -> float:
            return held.size / self._saved(checkpointer)[1]

        found = self.interleaved({"save": save, DOWN: self.peaks.down})
        name = f"full save to host memory, {text_of(held.size)}"
        self.add(name, found["save"], DOWN, found[DOWN], 0.9)

    def files(self, held: _gpu.Held) -> None:
        data, size, torch = _gpu.on_host(held), held.size, self._torch(held)
        store = LocalStore(self.folder / "ours")
        checkpointer = Checkpointer(held, store, delta=True)

        def ours() -> dict[str, float]:
            stall, full, name = self._saved(checkpointer, full=True)
            path = store.path / name
            _gpu.read_file(path, data)  # into the page cache
            work: dict[str, Callable[[], float]] = {"restore": restore, UP: self.peaks.up}
            work[FILE] = lambda: _gpu.read_file(path, data)
            found = {what: work[what]() for what in self.order.sample(list(work), len(work))}
            held.change(EVERY)
            held.step += 1
            _, seconds, changed = self._saved(checkpointer)
            if not changed.endswith(".delta.safetensors"):
                raise RuntimeError(f"{changed} is no delta")
            store.delete(changed)
            store.delete(name)
            return found | {"stall": stall, "full": full, "delta": seconds}

        def restore() -> float:
            begin = time.perf_counter()
            self.run(checkpointer.restore_latest())
            return size / (time.perf_counter() - begin)

        work: dict[str, Work] = {
            "ours": ours,
            WRITE: lambda: _gpu.write_file(self.folder / "raw", data),
        }
        if torch is not None:
            work["torch"] = lambda: self._peer(torch)
        found = self.interleaved(work)
        text, rates = text_of(size), [size / seconds for seconds in found["full"]]
        self.add(f"full save to a file, {text}", rates, WRITE, found[WRITE], 0.9)
        self.add(f"delta, 1% of {text}", found["delta"], "full save", found["full"], 0.1, "<=", "s")
        slower = [min(pair) for pair in zip(found[FILE], found[UP], strict=True)]
        slow = min((FILE, UP), key=lambda name: statistics.median(found[name]))
        self.add(f"restore, verified, {text}", found["restore"], slow, slower, 0.85)
        if torch is not None:
            torch.close()
            for ours_, theirs in (("stall", "their stall"), ("full", "their seconds")):
                name = f"{'stall' if ours_ == 'stall' else 'until durable'}, {text}"
                self.add(name, found[ours_], "torch async_save", found[theirs], None, "<=", "s")

    def beside(self) -> None:
        kernel = _gpu.Stencil(self.sizes.stencil, self.sizes.grid)
        store = LocalStore(self.folder / "stencil")
        checkpointer, steps, times = Checkpointer(kernel, store), self.sizes.steps, self.sizes.times

        def during() -> float:
            saving, seconds, count = self.run(checkpointer.save()), 0.0, 0
            while True:
                taken = kernel.advance(steps)
                if count and saving.done():
                    break
                seconds, count = seconds + taken, count + steps
            store.delete(saving.result().name)
            return count / seconds

        def alone() -> float:
            return times * steps / sum(kernel.advance(steps) for _ in range(times))

        found = self.interleaved({"beside": during, "alone": alone})
        name = f"slowdown of a stencil, {text_of(self.sizes.stencil)}"
        self.add(name, found["beside"], "alone", found["alone"], 0.03, "<=", "steps/s")

    def gallery(self) -> None:
        n, steps = self.sizes.gallery, self.sizes.steps
        makers: dict[str, Callable[[Any], Any]] = {
            "wave": lambda device: Wave(n=4 * n, period=30_000 / n, device=device),
            "ising": lambda device: Ising(n=4 * n, device=device),
            "nbody": lambda device: NBody(n=8 * n, device=device),
        }
        for name, make in makers.items():
            kernels = {"device": make("cuda"), "host": make("cpu")}

            def rate(kernel: Any) -> float:
                begin = time.perf_counter()
                kernel.advance(steps)
                return steps / (time.perf_counter() - begin)

            work: dict[str, Work] = {w: partial(rate, k) for w, k in kernels.items()}
            found = self.interleaved(work | {COPY: self.peaks.copy})
            self.add(f"{name} on the device", found["device"], "on the host", found["host"],
                     unit="1/s")  # fmt: skip
            if name == "wave":
                moved = [one * 4 * 4 * (4 * n) ** 2 for one in found["device"]]
                self.add(f"wave, {4 * n} x {4 * n}", moved, f"2 × {COPY}",
                         [2 * c for c in found[COPY]], 0.6)  # fmt: skip

    # --- how --------------------------------------------------------------------------------------

    def _saved(
        self, checkpointer: Checkpointer[Any], *, full: bool = False, way: str = "device"
    ) -> tuple[float, float, str]:
        """Save; say how long it stalled, how long it took, and the name."""
        saving = self.run(checkpointer.save(full=full))
        saved = saving.result()
        if saving.snapshot is None or saving.snapshot.way != way:
            self.say(f"not copied in the way {way}: {saving.snapshot}")
        return saving.stall, saved.seconds, saved.name

    def _torch(self, held: _gpu.Held) -> _gpu.Torch | None:
        try:
            torch = _gpu.Torch(held.field)
            self._peer(torch)
        except Exception as error:  # another library's, of whatever version
            self.say(f"left out: torch.distributed.checkpoint async_save: {error}")
            return None
        return torch

    def _peer(self, torch: _gpu.Torch) -> dict[str, float]:
        folder = self.folder / "dcp"
        stall, seconds = torch.save(folder)
        shutil.rmtree(folder)
        return {"their stall": stall, "their seconds": seconds}

    def state(self) -> _gpu.Held:
        """The state for files: what fits, and what the disk takes in the time there is."""
        size, probe = self.sizes.state, _limits.random_floats(self.sizes.peak >> 4)
        rate = _gpu.write_file(self.folder / "probe", probe.view("u1"))
        writes = 4 * (self.rounds + 1)
        while size > layout.BLOCK:
            too_much = {
                "the device has too little memory": 2 * size + (256 << 20) > memory.free(),
                "the host has too little memory": 4 * size > _gpu.available(),
                "the disk has too little room": 3 * size > shutil.disk_usage(self.folder).free,
                f"the disk writes {rate / 1e9:.2g} GB/s": writes * size / rate > SECONDS,
            }
            reasons = [why for why, so in too_much.items() if so]
            if not reasons:
                break
            self.say(f"files and host memory: half of {text_of(size)}, for {reasons[0]}")
            size //= 2
        return _gpu.Held(size, self.sizes.grid)


def _collect() -> None:
    gc.collect()
    _gpu.release()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def main() -> None:
    parser = options(__doc__, rounds=5, least=5)
    parser.add_argument("--dir", type=Path, help="where to write; default: for temporary files")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where JSON and text go")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes; the figures mean nothing")
    given = parser.parse_args()
    if why := _gpu.why_not(given.smoke):
        sys.exit(f"nothing is measured: {why}")
    console = Console(width=120, record=True, highlight=False)
    name = given.device or _gpu.device_name()
    versions = ", ".join(f"{package} {_version(package)}" for package in PACKAGES)
    if given.smoke:
        console.print("A smoke test: the figures mean nothing, and are not kept.")
    console.print((__doc__ or "").rpartition("\n\n")[0], markup=False)
    console.print(f"\n{datetime.now(UTC).date()}, {name}, driver {_gpu.driver()}", markup=False)
    console.print(f"{versions}; {given.rounds} rounds\n", markup=False)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=given.dir) as folder, asyncio.Runner() as runner:
        sizes, place = SMOKE if given.smoke else REAL, Path(folder).resolve()
        peaks, say = _gpu.Peaks(sizes.peak, sizes.grid), partial(console.print, markup=False)
        slug = "gpu-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        log = None if given.smoke else given.results / f"{slug}.jsonl"
        bench = Bench(sizes, given.rounds, place, peaks, say, runner.run, log)
        parts = (bench.stalls, bench.shapes, bench.kernels, bench.ways, bench.stored, bench.beside)
        for part in (*parts, bench.gallery):
            bench.attempt(part)
        console.print(table(bench.figures))
        console.print(f"{time.perf_counter() - begin:.0f} s in all")
        if not given.smoke:
            figures = [asdict(one) | {"verdict": one.verdict} for one in bench.figures]
            found: dict[str, Any] = {"driver": _gpu.driver(), "rounds": given.rounds}
            found |= {"failed": bench.failed, "figures": figures}
            write(slug, name, place, found, results=given.results, packages=("numpy", *PACKAGES))
            (given.results / f"{slug}.txt").write_text(console.export_text())
    if bench.failed:
        sys.exit(f"failed: {', '.join(bench.failed)}")


if __name__ == "__main__":
    main()
