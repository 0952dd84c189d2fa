"""SIGTERM at random moments of real runs: is the state saved, and the process gone, in time?

    python -m tests.supervisor.grace --times 100

Each time `wave` runs on a grid of random size, in slices of random length, saving at random
intervals. It is ended as a batch system ends it: SIGTERM, and SIGKILL after the grace time.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

from checkpointable import LocalStore, archive
from checkpointable.kernels.wave import WaveCheckpoint

GRACE = 10.0


def stopped(store: Path, rng: random.Random) -> tuple[int, float, str]:
    """Run and stop; give the exit code, the seconds from the signal on, and what the log says."""
    latency, every = rng.uniform(0.1, 8), rng.uniform(0.05, 3)
    command = [
        sys.executable, "-m", "checkpointable", "run", "wave", "--store", str(store), "--json",
        "--until", "100000000", "--grace", f"{GRACE:g}s", "--latency", f"{latency:.2f}s",
        "--every", f"{every:.2f}s", *(["--delta"] if rng.random() < 0.5 else []),
        "--device", "cpu", "--", "--n", str(rng.choice([50, 200, 500, 1000])), "--period", "500",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if orjson.loads(line)["event"] in ("Started", "Restored"):
                break
        time.sleep(rng.uniform(0, 4))  # the moment, and not to wait for something
        begin = time.monotonic()
        child.send_signal(signal.SIGTERM)
        try:
            child.communicate(timeout=GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
        seconds = time.monotonic() - begin
    last = orjson.loads((store / "events.jsonl").read_bytes().splitlines()[-1])
    return child.returncode, seconds, f"{last['event']} {last.get('step', '')}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    given = parser.parse_args()
    rng, worst, late = random.Random(given.seed), 0.0, 0
    for number in range(given.times):
        with tempfile.TemporaryDirectory() as folder:
            code, seconds, output = stopped(Path(folder), rng)
            result = archive.latest(LocalStore(folder), WaveCheckpoint)
            assert code in (75, -signal.SIGKILL), f"{number}: exit code {code}, {output}"
            saved = result is not None and output == f"Stopped {result.entry.step}"
            late += not (code == 75 and saved)
            worst = max(worst, seconds)
    print(f"seed {given.seed}: {given.times - late} of {given.times} saved and gone in time")
    print(f"the slowest took {worst:.2f} of {GRACE:g} s")
    sys.exit(late > 0)


if __name__ == "__main__":
    main()
