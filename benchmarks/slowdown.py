"""How much slower `wave` steps while a checkpoint of it is being written.

A round times steps of a large `wave` on the CPU, then begins a save and times those steps that end
before the checkpoint is durable. Once with one thread of the kernel's, so that a core is free for
the save, and once with as many as there are cores: then the two have to share.

    python -m benchmarks.slowdown --n 6000 --rounds 5 --dir PATH
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numba

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks._measure import Goal, options, report, write
from checkpointable import Checkpointer, LocalStore, last
from checkpointable.archive.prune import prune
from checkpointable.kernels.wave import Wave

STEPS = 4
"""Steps of a round without a save."""


def stepping(kernel: Wave, store: LocalStore, rounds: int) -> dict[str, list[float]]:
    checkpointer = Checkpointer(kernel, store)
    seconds: dict[str, list[float]] = {"a step": [], "a step beside a save": []}
    for turn in range(rounds + 1):
        alone = [step(kernel) for _ in range(STEPS)]
        beside = []
        saving = asyncio.run(checkpointer.save())
        while True:
            taken = step(kernel)
            if saving.done():
                break
            beside.append(taken)
        saved = saving.result()
        prune(store, last(1), valid=saved.name)
        if not beside:
            sys.exit("no step ended before the save: use a smaller --n")
        if turn:
            seconds["a step"].append(statistics.mean(alone))
            seconds["a step beside a save"].append(statistics.mean(beside))
    return seconds


def step(kernel: Wave) -> float:
    begin = time.perf_counter()
    kernel.advance(1)
    return time.perf_counter() - begin


def main() -> None:
    parser = options(__doc__, rounds=9, least=5)
    parser.add_argument("--n", type=int, default=6000, help="cells along a side, default 6000")
    parser.add_argument("--dir", type=Path, help="where to write; default: for temporary files")
    args = parser.parse_args()
    cores = os.cpu_count() or 1
    found: dict[str, Any] = {"n": args.n}
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        folder = Path(name).resolve()
        for threads in dict.fromkeys((max(cores - 1, 1), cores)):
            numba.set_num_threads(threads)
            kernel = Wave(n=args.n, duration=3000.0, device="cpu")
            goals = [Goal("a step beside a save", "a step", 1.05)] if threads < cores else []
            found[f"{threads} of {cores} cores"] = report(
                f"wave, n={args.n}, on {threads} of {cores} cores",
                stepping(kernel, LocalStore(folder / str(threads)), args.rounds),
                goals,
                against="a step",
            )
        write("beside", args.device, folder, found)


if __name__ == "__main__":
    main()
