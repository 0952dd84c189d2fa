"""What a delta costs, by how much has changed and where, beside a full save of the same state.

One float32 array of `--mib`, of which 0.1, 1, 10 and 100 percent of the bytes change before each
save: in one run ("clustered"), or as pages of 4 KiB that lie evenly over it ("scattered"), so that
more blocks of 1 MiB are touched than bytes have changed. All are durable; a delta has to digest the
whole state to know what has changed, so reading it once is the limit. In one process, in
interleaved rounds; times are medians, ratios the medians of the rounds'.

    python -m benchmarks.delta --mib 1024 --rounds 5 --dir PATH
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import _limits, _plot
from benchmarks._measure import RESULTS, Goal, Timed, measure, options, report, write
from checkpointable import Array, LocalStore, archive
from checkpointable.format import digests, layout

FULL, DIGEST = "checkpointable, full", "digests of the state, 2 threads"
SHARES = (0.001, 0.01, 0.1, 1.0)
PATTERNS = ("clustered", "scattered")


@frozen
class State:
    field: Array[np.float32]


def name_of(share: float, pattern: str) -> str:
    return f"checkpointable, delta {share:.1%} {pattern}"


def touched(size: int, share: float, pattern: str) -> list[slice]:
    """What changes: slices of the state's bytes."""
    pages = max(1, round(size * share / _limits.PAGE))
    if pattern == "clustered":
        begin = (size // 3 if share < 0.5 else 0) // _limits.PAGE * _limits.PAGE
        return [slice(begin, min(begin + pages * _limits.PAGE, size))]
    places = np.linspace(0, size // _limits.PAGE, pages, endpoint=False).astype(int)
    return [slice(at, at + _limits.PAGE) for at in (places * _limits.PAGE).tolist()]


def variants(
    store: LocalStore, size: int, sizes: dict[str, int]
) -> dict[str, Callable[[], object]]:
    field = _limits.random_floats(size // 4)
    before = field.copy()
    data, state = field.view(np.uint8), State(field)
    base = archive.save(store, State(before), 0).name

    def save(name: str, places: list[slice], against: str | None) -> Timed:
        for place in places:
            data[place] ^= 1
        begin = time.perf_counter()
        entry = archive.save(store, state, 1, base=against)
        taken = time.perf_counter() - begin
        sizes[name] = entry.size
        store.delete(entry.name)
        for place in places:
            data[place] ^= 1
        return Timed(taken)

    header = archive.read_header(store, base)
    found: dict[str, Callable[[], object]] = {
        FULL: partial(save, FULL, touched(size, 0.01, "clustered"), None),
        DIGEST: lambda: digests.digests_of(
            header.arrays.values(), lambda placed, i: layout.gather(field, i), signed=False
        ),
    }
    for share in SHARES:
        for pattern in PATTERNS[: 1 if share == 1 else 2]:
            name = name_of(share, pattern)
            found[name] = partial(save, name, touched(size, share, pattern), base)
    return found


def main() -> None:
    parser = options(__doc__, rounds=5, least=5)
    parser.add_argument("--mib", type=int, default=1024, help="size of the state, default 1024")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where JSON and PNG go")
    parser.add_argument("--dir", type=Path, help="where to write; default: for temporary files")
    given: argparse.Namespace = parser.parse_args()
    size, sizes = given.mib << 20, dict[str, int]()
    with tempfile.TemporaryDirectory(dir=given.dir) as folder:
        root = Path(folder).resolve()
        store = LocalStore(root)
        seconds = measure(
            variants(store, size, sizes), given.rounds, after=lambda: _limits.back(size)
        )
        goals = [Goal(name_of(0.01, "clustered"), FULL, 0.2)]
        title = f"Deltas of {given.mib} MiB"
        found: dict[str, Any] = report(title, seconds, goals, against=FULL)
        found["bytes"] = {name: [count, round(count / size, 4)] for name, count in sizes.items()}
        for name, (count, share) in found["bytes"].items():
            print(f"{name}: {count:,} bytes, {share:.2%} of the state")
        write("delta", given.device, root, found, results=given.results)
        _plot.bars(given.results / "delta.png", title, found, (DIGEST,))


if __name__ == "__main__":
    main()
