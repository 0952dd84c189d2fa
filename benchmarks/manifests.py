"""How the head of a sharded checkpoint grows with ranks, arrays and blocks; no rank is real.

What the ranks would have told rank 0 is made up: three arrays of float32, of `--blocks` blocks of
1 MiB in all, lie on a grid of ranks that is as square as can be; some fields and a small array are
the same on all, and in rank 0's file. All else is the code of `distributed.save` and of a restore.

- told: what each rank sends to rank 0, and how long that takes to be made out of bytes again.
- check, make, create: that the shards make the whole; the head in memory; on the disk, durable.
- open: read, parsed, its seal checked, as every rank does when it restores.
- deltas: each rank's file continues 16 others, the most that one may.
- plan: for each rank of a restore by other ranks, on another grid, which files it opens, and which
  blocks of these it reads; nothing is opened, and no data is there.
- files: listing a store with the files of many ranks, and pruning one checkpoint of several.

Times are medians of CPU seconds, all computing; those of create, list and prune are as the clock
goes, since they wait for the disk.

    python -m benchmarks.manifests --rounds 5 --dir PATH
"""

import hashlib
import math
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import pairwise, product
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from attrs import evolve
from rich.console import Console
from rich.table import Table

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks._measure import options, write
from checkpointable import LocalStore, archive
from checkpointable.archive.keep import last
from checkpointable.archive.prune import prune
from checkpointable.arrays.boxes import Box
from checkpointable.distributed.checkpoints import Written, check_together, manifest_from
from checkpointable.format import selection
from checkpointable.format.layout import BLOCK, Header, Meta, Parent, Spec, StoredArray, plan_layout
from checkpointable.format.read_arrays import parts_of

RANKS = (1, 4, 16, 64, 256, 1024, 4096)
ARRAYS = ("position.local", "velocity.local", "stress.local")
FLOATS: np.dtype[Any] = np.dtype(np.float32)
SMALL: tuple[str, Spec] = ("table", (np.dtype(np.float64), (1000,)))  # the same on all ranks
TREE = {
    "step": 1000, "seed": 42, "dt": 0.001, "table": {"$array": "table"},
    **{name.removesuffix(".local"): {"local": {"$array": name}} for name in ARRAYS},
}  # fmt: skip
META = Meta(
    schema={"name": "Wave", "version": 1}, kernel={"id": "wave", "version": "1"}, step=1000,
    created="2026-11-26T00:00:00.000+00:00", nonce="0" * 32, tree=TREE,
)  # fmt: skip
MOST_PARENTS = 16

Grid: TypeAlias = tuple[int, int]


def square_grid(ranks: int) -> Grid:
    """Two factors that are as near to each other as can be."""
    rows = max(n for n in range(1, math.isqrt(ranks) + 1) if not ranks % n)
    return rows, ranks // rows


def decomposed(shape: tuple[int, int], grid: Grid) -> list[Box]:
    """The boxes of a grid of ranks, in their order; not all alike if they cannot be."""
    edges = [[n * i // k for i in range(k + 1)] for n, k in zip(shape, grid, strict=True)]
    rows, columns = (pairwise(axis) for axis in edges)
    return [((a, c), (b - a, d - c)) for (a, b), (c, d) in product(rows, columns)]


def shape_of(blocks: int) -> tuple[int, int]:
    """Of one of the arrays, if all have so many blocks together: nearly square."""
    elements = blocks * BLOCK // FLOATS.itemsize // len(ARRAYS)
    rows = math.isqrt(elements)
    return rows, elements // rows


def written_by(ranks: int, shape: tuple[int, int], parents: int = 0) -> list[Written]:
    """What the ranks would have told rank 0."""
    boxes = decomposed(shape, square_grid(ranks))
    same = dict.fromkeys([*TREE, "(schema)", *ARRAYS], bytes(16))
    specs: dict[str, Spec] = {SMALL[0]: SMALL[1]} | dict.fromkeys(ARRAYS, (FLOATS, shape))
    told = []
    for rank, box in enumerate(boxes):
        files = [_file(rank, 1000 - n) for n in range(parents + 1)]
        whole = {SMALL[0]: ((0,), SMALL[1][1])} if rank == 0 else {}
        own = dict.fromkeys(ARRAYS, box) | whole
        size = len(ARRAYS) * math.prod(box[1]) * FLOATS.itemsize
        first = specs if rank == 0 else {}
        told.append(Written(files[0], size, tuple(files[1:]), own, first, same))
    return told


def _file(rank: int, step: int) -> Parent:
    seal = hashlib.sha256(f"{rank} {step}".encode()).hexdigest()
    return Parent(archive.rank_file_name(step, rank, seal[:16]), seal)


def timed(
    work: Callable[[], object], rounds: int, clock: Callable[[], float] = time.process_time
) -> float:
    """The median, in seconds: of the CPU, which others may use as well, if it is all computing."""
    taken = []
    for _ in range(rounds):
        begin = clock()
        work()
        taken.append(clock() - begin)
    return statistics.median(taken)


def head(ranks: int, blocks: int, parents: int, store: LocalStore, rounds: int) -> dict[str, Any]:
    told = written_by(ranks, shape_of(blocks), parents)
    messages = [pickle.dumps(one) for one in told]
    packed = manifest_from(META, told)
    names: list[str] = []

    def create() -> None:
        names.append(archive.create(store, META.step, packed, len(names)).name)

    def read() -> None:
        with archive.opened(store, names[-1]):
            pass

    found = {
        "ranks": ranks,
        "continued": parents,
        "blocks": sum(-(-one.size // BLOCK) for one in told),
        "bytes": packed.size,
        "bytes_per_block": round(packed.size / blocks, 3),
        "bytes_per_rank": round(packed.size / ranks, 1),
        "told_bytes_per_rank": round(sum(map(len, messages)) / ranks),
        "told_ms": timed(lambda: [pickle.loads(one) for one in messages], rounds),
        "check_ms": timed(lambda: check_together(told, None), rounds),
        "make_ms": timed(lambda: manifest_from(META, told), rounds),
        "create_ms": timed(create, rounds, time.perf_counter),
        "open_ms": timed(read, rounds),
    }
    for name in names:
        store.delete(name)
    return {k: round(1e3 * v, 2) if k.endswith("_ms") else v for k, v in found.items()}


def planned(
    header: Header, boxes: Iterable[Box], own: dict[int, dict[str, StoredArray]]
) -> list[int]:
    """Plan to read these boxes of each array: how many files, pieces, ranges and bytes that is."""
    files = pieces = ranges = size = 0
    for box in boxes:
        opened: set[int] = set()
        for name in ARRAYS:
            for source, _, local in parts_of(header, header.arrays[name], box):
                opened.add(source)
                pieces += 1
                placed = own[source][name]
                for blocks in selection.blocks_of(placed, local):
                    ranges += 1
                    size += min(blocks.stop * BLOCK, placed.nbytes) - blocks.start * BLOCK
        files += len(opened)
    return [files, pieces, ranges, size]


def plan(saved: int, restored: int, blocks: int, rounds: int) -> dict[str, Any]:
    shape = shape_of(blocks)
    told = written_by(saved, shape)
    header = manifest_from(META, told).header
    # What each file would say of itself, had it been opened.
    own = {
        source: plan_layout(META, {name: (FLOATS, one.boxes[name][1]) for name in ARRAYS}).arrays
        for source, one in enumerate(told, 1)
    }
    rows, columns = square_grid(restored)
    boxes = decomposed(shape, (rows * 4, columns // 4) if columns % 4 == 0 else (rows, columns))
    files, pieces, ranges, size = planned(header, boxes, own)
    seconds = timed(lambda: planned(header, boxes, own), rounds)
    one = timed(lambda: planned(header, boxes[:1], own), 5 * rounds)
    return {
        "saved_by": saved,
        "restored_by": restored,
        "blocks": blocks,
        "all_s": round(seconds, 3),
        "one_ms": round(one * 1e3, 2),
        "files_per_rank": round(files / restored, 2),
        "boxes_per_rank": round(pieces / restored, 2),
        "ranges_per_rank": round(ranges / restored, 2),
        "read_times_the_state": round(size / (len(ARRAYS) * math.prod(shape) * 4), 3),
    }


def files(ranks: int, kept: int, store: LocalStore, rounds: int) -> dict[str, Any]:
    """Listing and pruning; the ranks' files are empty, which costs nothing here."""
    store.path.mkdir(exist_ok=True)
    for n in range(kept):
        told = written_by(ranks, shape_of(100 * ranks))
        named = [Parent(archive.rank_file_name(n, r, "0" * 16), "0" * 64) for r in range(ranks)]
        told = [evolve(one, file=file) for file, one in zip(named, told, strict=True)]
        for parent in named:
            (store.path / parent.name).touch()
        archive.create(store, n, manifest_from(evolve(META, step=n), told))
    listing = timed(lambda: archive.entries(store), rounds, time.perf_counter)
    begin = time.perf_counter()
    gone = prune(store, last(kept - 1), valid=archive.entries(store)[-1].name)
    seconds = time.perf_counter() - begin
    assert len(gone) == 1
    return {
        "ranks": ranks,
        "kept": kept,
        "files": (ranks + 1) * kept,
        "list_ms": round(1e3 * listing, 1),
        "prune_one_ms": round(1e3 * seconds, 1),
        "prune_ms_per_file": round(1e3 * seconds / (ranks + 1), 3),
    }


def main() -> None:
    parser = options(__doc__, rounds=5, least=3)
    parser.add_argument("--blocks", type=int, default=1_000_000, help="default 1,000,000")
    parser.add_argument("--dir", type=Path, help="where to write; default: for temporary files")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        folder = Path(name).resolve()
        store = LocalStore(folder / "heads")
        manifests = [
            head(ranks, args.blocks, parents, store, args.rounds)
            for parents in (0, MOST_PARENTS)
            for ranks in RANKS
        ]
        show(f"Heads of {args.blocks:,} blocks", manifests)
        plans = [plan(a, b, args.blocks, args.rounds) for a, b in ((1024, 4096), (4096, 1024))]
        show("Plans of restores", plans)
        many = [files(n, 4, LocalStore(folder / f"{n}"), args.rounds) for n in (256, 1024, 4096)]
        show("Files", many)
        goals = {
            "a head takes under 64 bytes a block": max(h["bytes_per_block"] for h in manifests)
            < 64,
            "4,096 plans from 1,024 ranks' files take under 2 s": plans[0]["all_s"] < 2,
        }
        for goal, met in goals.items():
            print(f"{'met' if met else 'MISSED'}: {goal}")
        found = {"heads": manifests, "plans": plans, "files": many, "goals": goals}
        write("heads", args.device, folder, found)


def show(title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(*(key.replace("_", " ") for key in rows[0]), title=title, title_justify="left")
    for row in rows:
        table.add_row(*(f"{value:,}" for value in row.values()))
    console = Console()
    (console if console.is_terminal else Console(width=170)).print(table)


if __name__ == "__main__":
    main()
