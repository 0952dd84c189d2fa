"""Durable saves, stalls and restores beside the other libraries and the machine's limits.

Every save ends with all of it on the disk: files, directories and names (`peers.py` says what each
library needs for that). Random float32 numbers; all in one process, in interleaved rounds; times
are medians, ratios the medians of the rounds'. Before each timing memory for two copies is touched
and given back, so that none waits by chance for a virtual machine's host to find some.

The scenarios, each with results of its own:

- save: two arrays, `--mib` in all, beside raw writes of the same bytes, a memcpy and XXH3.
- stall: how long the kernel stands still for a save that goes on beside it. Each save has ended
  before the next one begins. Where the others keep a copy of their own, that is warm memory as
  well if they keep it from save to save: torch's stager, if it is handed in.
- restore, restore-cold: the same two arrays loaded from a warm page cache, and from one that the
  files were put out of (which mincore confirms; what a disk or hypervisor caches, it does not).
  "In place", as torch.distributed.checkpoint always does, is into arrays that are there already.
  One number of each page is read afterwards, so that nothing is left for later. Ours verifies every
  block, numpy.savez a CRC-32; the others are as they come.
- small, small-restore: 10,000 arrays of 4 KiB each. Without zarr, which makes two directories and
  two files of each: minutes for every save.
- latency: one array of 4 KiB, `--repeats` times, beside the least that a durable file takes: write,
  fsync, rename, fsync of the directory.
- sizes: from 1 MiB to 4 GiB, `--sizes`, ours and safetensors beside raw writes.

    python -m benchmarks.save_restore --mib 1024 --rounds 5 --dir PATH --only save
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import _limits, _plot
from benchmarks._measure import RESULTS, Goal, Timed, measure, options, report, write
from benchmarks.peers import (
    ASYNC,
    DCP,
    DCP_ASYNC,
    ORBAX,
    ORBAX_ASYNC,
    OURS,
    PACKAGES,
    PEERS,
    SAFETENSORS,
    Arrays,
    Begin,
    Peer,
    State,
    checkpointable_in_place,
    quiet,
)
from checkpointable import save_file

Variants: TypeAlias = dict[str, Callable[[], object]]
Seconds: TypeAlias = dict[str, list[float]]

RAW, DIRECT = "raw write + fsync", "raw direct write + fsync"
MEMCPY, DIGEST = "memcpy, warm", "xxh3 of the bytes"
FRESH, WARM = "raw read, fresh memory", "raw read, warm memory"
MAPPED = "mmap and copy, warm memory"
BARE = "write, fsync, rename, fsync"
LIMITS = (RAW, DIRECT, MEMCPY, DIGEST, FRESH, WARM, MAPPED, BARE)
IN_PLACE = f"{OURS}, in place"
OTHERS = [name for name in PEERS if name != OURS]
SMALL, SMALL_COUNT = 1024, 10_000  # float32 numbers in an array, and arrays


# --- what the scenarios share ---------------------------------------------------------------------


def two_arrays(mib: int) -> Arrays:
    half = mib * _limits.BLOCK // 8
    both = _limits.random_floats(2 * half)
    return {"position": both[:half], "velocity": both[half:]}


def installed(names: Iterable[str], arrays: Arrays) -> dict[str, Peer]:
    """Ours and those that are there; of the others it says that they are left out."""
    found = {}
    for name in (OURS, *names):
        try:
            found[name] = PEERS[name](arrays)
        except ImportError as error:
            print(f"{name}: left out, {error}")
    return found


def place(root: Path, name: str) -> Path:
    """A directory for one variant, durable before anything is timed."""
    folder = root / name.replace(" ", "-")
    if not folder.exists():
        folder.mkdir()
        _limits.sync(root)
    return folder


def clear(root: Path, size: int) -> None:
    """Remove what was saved, and have file system and memory done with it; a lock file stays."""
    for folder in root.iterdir():
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif not path.name.startswith("."):
                path.unlink()
        _limits.sync(folder)
    _limits.back(2 * size)


def saves(root: Path, peers: Mapping[str, Peer]) -> Variants:
    def saver(name: str, peer: Peer) -> Callable[[], object]:
        folder = place(root, name)
        return lambda: peer.save(folder)

    return {name: saver(name, peer) for name, peer in peers.items()}


def raw_writes(root: Path, data: Sequence[memoryview]) -> Variants:
    raw, direct = place(root, RAW), place(root, DIRECT)
    return {
        RAW: lambda: _limits.write_raw(raw / "raw", data),
        DIRECT: lambda: _limits.write_direct(direct / "raw", data),
    }


def better(seconds: Seconds, *names: str) -> str:
    return min(names, key=lambda name: statistics.median(seconds[name]))


def faster(seconds: Seconds, goals: Mapping[str, float], name: str = OURS) -> list[Goal]:
    """Goals of speed: `name` is at least so many times as fast as each of those that are there."""
    return [Goal(name, them, 1 / times) for them, times in goals.items() if them in seconds]


# --- the scenarios --------------------------------------------------------------------------------


def save(given: argparse.Namespace, root: Path) -> dict[str, Any]:
    arrays = two_arrays(given.mib)
    data = _limits.views(arrays)
    variants = saves(root, installed(given.peers, arrays)) | raw_writes(root, data)
    variants |= {MEMCPY: _limits.copier(arrays), DIGEST: lambda: _limits.digest(data)}
    seconds = measure(variants, given.rounds, after=lambda: clear(root, given.mib << 20))
    raw = better(seconds, RAW, DIRECT)
    goals = faster(seconds, {raw: 0.95, DCP: 1.5, ORBAX: 2.5, SAFETENSORS: 1.0})
    return report(f"Saving {given.mib} MiB", seconds, goals, against=raw, mib=given.mib)


def stall(given: argparse.Namespace, root: Path) -> dict[str, Any]:
    arrays = two_arrays(given.mib)

    def timed(begin: Begin, folder: Path) -> Callable[[], object]:
        def once() -> Timed:
            start = time.perf_counter()
            wait = begin(folder)
            taken = time.perf_counter() - start
            wait()
            return Timed(taken)

        return once

    variants: Variants = {MEMCPY: _limits.copier(arrays)}
    for name, make in ASYNC.items():
        try:
            variants[name] = timed(make(arrays), place(root, name))
        except ImportError as error:
            print(f"{name}: left out, {error}")
    seconds = measure(variants, given.rounds, after=lambda: clear(root, given.mib << 20))
    goals = [Goal(OURS, MEMCPY, 1.15), *faster(seconds, {DCP_ASYNC: 2, ORBAX_ASYNC: 2})]
    title = f"Standing still for a save of {given.mib} MiB"
    return report(title, seconds, goals, against=MEMCPY, mib=given.mib)


def loads(root: Path, peers: Mapping[str, Peer], arrays: Arrays) -> Variants:
    """Save with each, see that it gives the same back, and give what loads it."""

    def loader(name: str, peer: Peer) -> Callable[[], object]:
        folder = place(root, name)
        peer.save(folder)
        found = peer.load(folder)
        same = (np.array_equal(found[key], array) for key, array in arrays.items())
        if found.keys() != arrays.keys() or not all(same):
            raise ValueError(f"{name} gives back something else")

        def load() -> None:
            for array in peer.load(folder).values():
                array[:: _limits.PAGE // array.itemsize].sum()

        return load

    return {name: loader(name, peer) for name, peer in peers.items()}


def restore(given: argparse.Namespace, root: Path, *, cold: bool = False) -> dict[str, Any]:
    arrays = two_arrays(given.mib)
    data = _limits.views(arrays)
    peers = installed(given.peers, arrays) | {IN_PLACE: checkpointable_in_place(arrays)}
    variants = loads(root, peers, arrays)
    size = given.mib << 20
    path, warm = place(root, FRESH) / "raw", np.ones(size, np.uint8)
    _limits.write_raw(path, data)
    variants |= {
        FRESH: lambda: _limits.read_raw(path, np.empty(size, np.uint8)),
        WARM: lambda: _limits.read_raw(path, warm),
        MAPPED: lambda: _limits.copy_mapped(path, warm),
        DIGEST: lambda: _limits.digest(data),
    }

    def prepare() -> None:
        if cold:
            _limits.forget(path for path in root.rglob("*") if path.is_file())
        _limits.back(2 * size)

    prepare()
    seconds = measure(variants, given.rounds, after=prepare)
    title = f"Restoring {given.mib} MiB, {'cold' if cold else 'warm'} page cache"
    raw = better(seconds, WARM, MAPPED)
    goals = faster(seconds, {raw: 0.95} if cold else {raw: 0.9, SAFETENSORS: 2.0}, IN_PLACE)
    return report(title, seconds, goals, against=raw, mib=given.mib)


def small(given: argparse.Namespace, root: Path, *, restoring: bool = False) -> dict[str, Any]:
    numbers = _limits.random_floats(SMALL_COUNT * SMALL)
    arrays = {f"array_{i:05}": numbers[i * SMALL :][:SMALL] for i in range(SMALL_COUNT)}
    names = [name for name in given.peers if name != "zarr"]
    peers, times = installed(names, arrays), {DCP: 3.0, ORBAX: 3.0}
    if restoring:
        peers[IN_PLACE] = checkpointable_in_place(arrays)
        variants, back = loads(root, peers, arrays), partial(_limits.back, 2 * numbers.nbytes)
        seconds = measure(variants, given.rounds, after=back)
        title = f"Restoring {SMALL_COUNT:,} arrays of 4 KiB, warm page cache"
        return report(title, seconds, faster(seconds, times), against=OURS)
    variants = saves(root, peers) | raw_writes(root, _limits.views({"all": numbers}))
    seconds = measure(variants, given.rounds, after=lambda: clear(root, numbers.nbytes))
    title = f"Saving {SMALL_COUNT:,} arrays of 4 KiB"
    return report(title, seconds, faster(seconds, times), against=OURS)


def latency(given: argparse.Namespace, root: Path) -> dict[str, Any]:
    arrays = {"array": _limits.random_floats(SMALL)}
    data, folder, own = _limits.views(arrays), place(root, BARE), place(root, "save_file")
    state, single = State(dict(arrays)), f"{OURS}, save_file"
    variants = saves(root, installed([SAFETENSORS], arrays))
    variants[single] = lambda: save_file(state, own / "single")
    variants[BARE] = lambda: _limits.replace_durably(folder / "bare", data)
    seconds = measure(variants, given.repeats, after=lambda: clear(root, 0))
    goals = [Goal(OURS, BARE, 1.3), Goal(single, BARE, 1.3)]
    return report("Saving one array of 4 KiB", seconds, goals, against=BARE)


def sizes(given: argparse.Namespace, root: Path) -> dict[str, Any]:
    found = {}
    for mib in given.sizes:
        arrays = two_arrays(mib)
        variants = saves(root, installed([SAFETENSORS], arrays))
        variants |= raw_writes(root, _limits.views(arrays))
        seconds = measure(variants, given.rounds, after=partial(clear, root, mib << 20))
        goals = faster(seconds, {better(seconds, RAW, DIRECT): 0.95})
        found[mib] = report(f"Saving {mib} MiB", seconds, goals, against=RAW, mib=mib)
    return {"sizes": found}


SCENARIOS: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
    "save": save,
    "stall": stall,
    "restore": restore,
    "restore-cold": lambda given, root: restore(given, root, cold=True),
    "small": small,
    "small-restore": lambda given, root: small(given, root, restoring=True),
    "latency": latency,
    "sizes": sizes,
}


def main() -> None:
    parser = options(__doc__, rounds=5, least=5)
    several = [1, 4, 16, 64, 256, 1024, 4096]
    parser.add_argument("--mib", type=int, default=1024, help="size of the state, default 1024")
    parser.add_argument("--repeats", type=int, default=200, help="of latency, default 200")
    parser.add_argument("--sizes", type=int, nargs="+", default=several, help="in MiB")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="default: all")
    parser.add_argument("--peers", nargs="+", choices=OTHERS, default=OTHERS, help="default: all")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where JSON and PNG go")
    parser.add_argument("--dir", type=Path, help="where to write; default: for temporary files")
    given = parser.parse_args()
    quiet()
    for name in given.only or SCENARIOS:
        with tempfile.TemporaryDirectory(dir=given.dir) as folder:
            root = Path(folder).resolve()
            found = SCENARIOS[name](given, root)
            called = f"durable_{name.replace('-', '_')}"
            write(called, given.device, root, found, results=given.results, packages=PACKAGES)
            picture = given.results / f"{called}.png"
            if "sizes" in found:
                _plot.lines(picture, "Saving two float32 arrays", found["sizes"])
            else:
                _plot.bars(picture, found["title"], found, LIMITS)


if __name__ == "__main__":
    main()
