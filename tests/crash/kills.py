"""SIGKILL at random moments of every workload: `python -m tests.crash.kills --kills 2000`."""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from attrs import define, field

from tests.crash import promises, workloads
from tests.crash.killed_process import Victims, acknowledged, lay, victims

WORKLOADS = [name for name in workloads.WORKLOADS if name != "two_processes_save"]
"""What a kill ends whole; the two processes of that one would live on."""

WAYS = ("", "no_tmpfile")


@define
class Killed:
    """How many kills came in time, how many too late, and what was broken after any of them.

    `states` are the different sets of files, each with its size, that they left.
    """

    kills: int = 0
    late: int = 0
    states: set[frozenset[tuple[str, int]]] = field(factory=set)
    wrong: list[str] = field(factory=list)


def kill(
    prey: Victims,
    workload: str,
    way: str,
    folder: Path,
    kills: int,
    seed: int,
    enough: int = 10**9,
) -> Killed:
    """Kill a workload so many times while it runs, and ask for every promise each time.

    Ends early when `enough` promises were broken.
    """
    result, chance = Killed(), random.Random(f"{seed} {workload} {way}")
    duration = median(_duration(prey, workload, way, folder) for _ in range(5))
    root = folder / "killed"
    while result.kills < kills and len(result.wrong) < enough:
        moment = chance.uniform(0, duration)
        lay(workload, root)
        code = _run(prey, workload, way, root, moment)
        where = f"seed {seed}, {workload}, {way or 'O_TMPFILE'}, after {moment * 1e6:.0f} µs"
        if code not in (0, -signal.SIGKILL):
            result.wrong.append(f"it ended with {code} ({where})")
        result.kills += code == -signal.SIGKILL
        result.late += code == 0
        left = [path for path in root.rglob("*") if path.is_file()]
        result.states.add(frozenset((str(p.relative_to(root)), p.stat().st_size) for p in left))
        for check in (promises.check, promises.write_check):
            if broken := check(root, acknowledged(root)):
                result.wrong.append(f"{broken} ({where})")
        shutil.rmtree(root)
    return result


def _duration(prey: Victims, workload: str, way: str, folder: Path) -> float:
    lay(workload, folder / "whole")
    prey.begin(workload, folder / "whole", way)
    begin = time.perf_counter()
    prey.go()
    assert prey.end() == 0
    end = time.perf_counter()
    shutil.rmtree(folder / "whole")
    return end - begin


def _run(prey: Victims, workload: str, way: str, root: Path, moment: float) -> int:
    """Let it run, and kill it so many seconds later; the exit code."""
    victim = os.pidfd_open(prey.begin(workload, root, way))  # its number may be another's by then
    end = time.perf_counter() + moment
    prey.go()
    while time.perf_counter() < end:
        pass
    try:
        signal.pidfd_send_signal(victim, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it came to its end
    finally:
        os.close(victim)
    return prey.end()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    share = -(-options.kills // (len(WORKLOADS) * len(WAYS)))
    begin, kills, late, wrong = time.perf_counter(), 0, 0, []
    with victims() as prey, tempfile.TemporaryDirectory() as folder:
        for workload in WORKLOADS:
            for way in WAYS:
                result = kill(prey, workload, way, Path(folder), share, options.seed)
                kills, late = kills + result.kills, late + result.late
                wrong += result.wrong
                print(
                    f"{workload}, {way or 'O_TMPFILE'}: {result.kills} kills while it ran, "
                    f"{result.late} too late, {len(result.states)} sets of files left"
                )
    seconds = time.perf_counter() - begin
    print(f"seed {options.seed}: {kills + late} kills in {seconds:.0f} s, {kills} of them while")
    print(f"the workload ran; {len(wrong)} broken promises", *wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
