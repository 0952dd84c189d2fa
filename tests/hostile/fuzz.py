"""Read millions of hostile files: `python -m tests.hostile.fuzz --inputs 1000000 --jobs 2`.

Prints how many were accepted and refused, and how fast; writes one file for each kind of finding
to `found-*.bin` beside this module, and exits with 1 if there is any. With `--atheris`, which has
to be installed, the coverage of the package guides the choices, in one process, until the first.
"""

import argparse
import hashlib
import multiprocessing
import random
import signal
import sys
import time
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

CHUNK = 10_000
SLOW = 5.0
"""Seconds of the processor: who takes longer for one small file hangs."""

MEASURED = 500
"""One in so many is read once more, and its memory is measured."""

Tally = tuple[Counter[str], dict[str, bytes]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzz")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", action="store_true")
    options = parser.parse_args()
    if options.atheris:
        _guided(options.inputs, options.seed)
    chunks = [(options.seed, index) for index in range(-(-options.inputs // CHUNK))]
    total, found, begin = Counter[str](), dict[str, bytes](), time.perf_counter()
    said = begin
    with multiprocessing.Pool(options.jobs) as pool:
        for counts, findings in pool.imap_unordered(_chunk, chunks):
            total += counts
            for what in findings.keys() - found.keys():
                found[what] = findings[what]
                print(f"FOUND {what}: {_kept(findings[what])}", flush=True)
            if time.perf_counter() - said > 60 or total["inputs"] == len(chunks) * CHUNK:
                said = time.perf_counter()
                print(f"{total['inputs'] / (said - begin):.0f} inputs/s {_text(total)}", flush=True)
    sys.exit(bool(found))


def _text(total: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in total.most_common())


def _chunk(task: tuple[int, int]) -> Tally:
    """Judge the inputs of one chunk, which its number and the seed determine."""
    from tests.hostile import grammar, oracle

    chance = random.Random(f"{task[0]}-{task[1]}")
    counts, findings = Counter[str](), dict[str, bytes]()
    signal.signal(signal.SIGPROF, _hangs)
    for number in range(CHUNK):
        data = grammar.make(chance.randbytes(48))
        counts["inputs"] += 1
        signal.setitimer(signal.ITIMER_PROF, SLOW)
        try:
            counts[oracle.judge(data, thorough=number % 100 == 0)] += 1
            if number % MEASURED == 0:
                _sample(data, counts)
        except oracle.Finding as finding:
            findings.setdefault(str(finding), data)
            counts["findings"] += 1
    signal.setitimer(signal.ITIMER_PROF, 0)
    return counts, findings


def _sample(data: bytes, counts: Counter[str]) -> None:
    """Memory of one input, and how far the reader gets with it."""
    from checkpointable.errors import InvalidCheckpoint
    from checkpointable.format import reader
    from tests.hostile import oracle

    if oracle.peak(data) > oracle.bound(data):
        raise oracle.Finding("it takes too much memory")
    counts["sampled"] += 1
    try:
        reader.read_sealed(oracle.Bytes(data))
    except InvalidCheckpoint as error:
        early = ("not JSON", "not a checkpoint", "but not a checkpoint", "cut short")
        counts["sampled: behind the JSON"] += not any(part in error.what for part in early)
    else:
        counts["sampled: behind the JSON"] += 1
        counts["sampled: behind the seal"] += 1


def _hangs(*_: Any) -> None:
    from tests.hostile import oracle

    raise oracle.Finding(f"it takes more than {SLOW} seconds")


def _kept(data: bytes) -> Path:
    path = Path(__file__).parent / f"found-{hashlib.sha256(data).hexdigest()[:8]}.bin"
    path.write_bytes(data)
    return path


def _guided(inputs: int, seed: int) -> None:
    atheris = import_module("atheris")

    with atheris.instrument_imports(include=["checkpointable"]):
        from tests.hostile import grammar, oracle

    def one(choices: bytes) -> None:
        data = choices[1:] if choices[:1] == b"\xff" else grammar.make(choices)
        try:
            oracle.judge(data, thorough=False)
        except oracle.Finding as finding:
            print(f"FOUND {finding}: {_kept(data)}", flush=True)
            raise

    oracle.judge(grammar.make(b""))
    atheris.Setup([sys.argv[0], f"-runs={inputs}", f"-seed={seed + 1}", "-max_len=256"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
