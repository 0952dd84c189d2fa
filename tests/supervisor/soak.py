"""The soak: kernels under supervision, harmed at random until they are done all the same.

`python -m tests.supervisor.soak --minutes 10 [--seed N]`. A child is killed, stopped for ever,
made unhealthy, or killed and its newest checkpoint damaged. In the end its state has the bits of a
run that nothing happened to, no checkpoint that was said to be durable is lost but those damaged
here, and the log of events explains each restart.
"""

import argparse
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil
from attrs import define, field

from checkpointable import LocalStore
from checkpointable.archive import entries, verify
from checkpointable.events import FILE, GaveUp, Quarantined, Restarted, Stalled, from_json
from checkpointable.supervisor.child import ended
from checkpointable.supervisor.supervise import Limits, exponential, supervise
from tests.crash.test_random_kills import final_arrays
from tests.helpers.equality import same

KERNELS = ("wave", "ising", "sketch")
STEPS = 400
PACE = 0.005
HARMS = ("kill", "kill", "stop", "poison", "damage")
CAUSES = {
    "kill": "signal SIGKILL",
    "damage": "signal SIGKILL",
    "stop": "hang",
    "poison": "Unhealthy",
    "": "hang",  # of this machine, under load
}
LIMITS = Limits(start=20, factor=3, minimum=1.5, grace=0.3)


def command(kernel: str, store: Path, steps: int, pace: float) -> list[str]:
    run = ["run", f"tests.supervisor.kernels:{kernel}", "--store", str(store), "--json"]
    run += ["--until", str(steps), "--every", "20", "--keep", "1000000"]
    stream = ["--path", str(store.parent / "stream")] if kernel == "sketch" else []
    own = ["--pace", str(pace), "--poison", str(store.parent / "poison"), *stream]
    return [sys.executable, "-m", "checkpointable", *run, "--", *own]


def supervised(kernel: str, store: str, steps: str) -> int:
    """The process of the supervisor."""
    words = command(kernel, Path(store), int(steps), PACE)
    delay = exponential(first=0.0, jitter=0.05)
    return supervise(words, store, limits=LIMITS, failures=1000, backoff=delay).code


@define
class Soaked:
    """One run, what was done to it, and what is wrong in the end."""

    folder: Path
    chance: random.Random
    harms: list[str] = field(factory=list)
    """What was done to each child."""
    damaged: set[str] = field(factory=set)
    durable: set[str] = field(factory=set)

    @property
    def store(self) -> Path:
        return self.folder / "broken"

    def run(self, kernel: str, steps: int) -> list[str]:
        """Returns what is wrong."""
        numbers = np.random.default_rng(self.chance.randrange(2**32)).lognormal(size=100 * STEPS)
        numbers.tofile(self.folder / "stream")
        whole = command(kernel, self.folder / "whole", steps, 0.0)
        subprocess.run(whole, check=True, stdout=subprocess.DEVNULL)
        words = [sys.executable, "-m", "tests.supervisor.soak", "--run", kernel, str(self.store)]
        with subprocess.Popen(
            [*words, str(steps)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as running:
            reported: queue.SimpleQueue[Any] = queue.SimpleQueue()
            listener = threading.Thread(target=self.listen, args=(running.stdout, reported))
            listener.start()
            while (child := self.next_child(running)) is not None:
                self.harms.append(self.harm(child, reported))
            listener.join()
            code = running.wait()
        return [f"it ended with {code}"] if code else [*self.faults()]

    def listen(self, stream: Any, reported: "queue.SimpleQueue[Any]") -> None:
        """Note what is durable; a line may be cut short by a death."""
        for line in stream:
            if line.endswith(b"}\n"):
                try:
                    event = orjson.loads(line)
                except (
                    orjson.JSONDecodeError
                ):  # a killed child's last line, and the next one's first
                    continue
                if event["event"] == "Saved":
                    self.durable.add(event["name"])
                reported.put(event["event"])
        reported.put(None)

    def next_child(self, running: "subprocess.Popen[bytes]") -> psutil.Process | None:
        record, known = self.store / ".child.json", self._known
        while running.poll() is None:
            try:
                pid = orjson.loads(record.read_bytes())["pid"]
                if pid != known:
                    self._known = pid
                    return psutil.Process(pid)
            except (OSError, psutil.Error):
                pass
            time.sleep(0.01)
        return None

    _known: int = 0

    def harm(self, child: psutil.Process, reported: "queue.SimpleQueue[Any]") -> str:
        """Do something to the child, and wait for its end; returns what, "" if it was too late."""
        harm = self.chance.choice(HARMS)
        if harm == "kill" and self.chance.random() < 0.3:  # while it begins
            time.sleep(self.chance.uniform(0, 1))
        else:
            self.wait_for_saves(child, reported, self.chance.randint(1, 3))
            time.sleep(self.chance.uniform(0, 0.2))
        done = ""
        if not ended(child):
            try:
                self.do(harm, child)
                done = harm
            except psutil.NoSuchProcess:
                pass
        while not ended(child):
            time.sleep(0.01)
        (self.folder / "poison").unlink(missing_ok=True)  # if it came too late
        return done

    def do(self, harm: str, child: psutil.Process) -> None:
        if harm == "stop":
            child.send_signal(signal.SIGSTOP)
        elif harm == "poison":
            (self.folder / "poison").touch()
        else:
            child.kill()
        if harm == "damage":
            while not ended(child):
                time.sleep(0.001)
            name = entries(LocalStore(self.store))[-1].name
            with (self.store / name).open("r+b") as file:
                place = self.chance.randrange(os.fstat(file.fileno()).st_size)
                file.seek(place)
                (old,) = file.read(1)
                file.seek(place)
                file.write(bytes([old ^ 1 << self.chance.randrange(8)]))
            self.damaged.add(name)

    def wait_for_saves(
        self, child: psutil.Process, reported: "queue.SimpleQueue[Any]", saves: int
    ) -> None:
        while not reported.empty():  # of the child before
            reported.get()
        begun = False
        while saves and not ended(child):
            try:
                event = reported.get(timeout=0.05)
            except queue.Empty:
                continue
            begun |= event in ("Started", "Restored")
            saves -= begun and event == "Saved"

    def faults(self) -> list[str]:
        """What is wrong at the end of a run."""
        store, result = LocalStore(self.store), []
        lines = (self.store / FILE).read_bytes().splitlines() if self.harms[1:] else []
        events = [event for line in lines if (event := from_json(line)) is not None]
        moved = {event.name: event.new_name for event in events if isinstance(event, Quarantined)}
        there = {entry.name for entry in store.list()}
        for name in sorted(self.durable - self.damaged):
            at = name if name in there else moved.get(name, "")
            if at not in there:
                result.append(f"{name} is lost")
            elif at == name:
                verify(store, name)
        restarts = [event for event in events if isinstance(event, Restarted)]
        causes = [event.cause for event in restarts] + ["done"]
        if len(causes) != len(self.harms):
            result.append(f"{len(self.harms)} children, and {len(restarts)} restarts")
        for harm, cause in zip(self.harms, causes, strict=False):
            if not cause.startswith((CAUSES[harm], "hang", "done")):
                result.append(f"{harm or 'nothing'} was done, and the log says {cause}")
        hangs = sum(cause.startswith("hang") for cause in causes)
        if hangs != sum(isinstance(event, Stalled) for event in events):
            result.append("a hang without Stalled, or the other way round")
        if any(isinstance(event, GaveUp) for event in events):
            result.append("it gave up")
        whole, broken = final_arrays(self.folder / "whole"), final_arrays(self.store)
        if whole.keys() != broken.keys() or not all(same(whole[n], broken[n]) for n in whole):
            result.append("the final state is another")
        return result


def soak(kernel: str, seed: int, folder: Path, steps: int = STEPS) -> tuple[Soaked, list[str]]:
    """One run of a kernel; the second is what is wrong."""
    soaked = Soaked(folder, random.Random(f"{kernel} {seed}"))
    return soaked, soaked.run(kernel, steps)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--run", nargs=3)
    options = parser.parse_args()
    if options.run:
        return supervised(*options.run)
    print(f"seed {options.seed}", flush=True)
    end, rounds, done = time.monotonic() + 60 * options.minutes, 0, Counter[str]()
    while time.monotonic() < end:
        kernel, seed = KERNELS[rounds % 3], options.seed + rounds
        with tempfile.TemporaryDirectory() as folder:
            soaked, wrong = soak(kernel, seed, Path(folder))
        rounds += 1
        done.update(soaked.harms)
        done["durable"] += len(soaked.durable)
        print(f"{kernel}, seed {seed}: {soaked.harms} {wrong or 'sound'}", flush=True)
        if wrong:
            return 1
    print(f"{rounds} runs sound: {dict(done)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
