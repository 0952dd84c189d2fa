"""What a job of up to 10,000 GPUs loses to saves and failures, by interval and tiers: simulated.

    python -m benchmarks.simulations.cluster

No machine like that was at hand. The assumptions are in `Cluster`, each with where it is from; the
model is in `lost`. All in seconds and GiB. `tests/distributed/test_scale.py` compares it
with Daly's formula.

- slow: every save goes to the shared store; each failure restores from there.
- fast + slow: as `Tiered` does, to the node's own disk, and from there, in the background, to the
  shared store, the newest one as soon as the copy before has ended. If a process fails, all restore
  from the disks; if a node is lost, from the newest that the shared store has.
- delta: a full save, then as many deltas as together are no larger than it, and again.
"""

import json
import math
import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import asdict, evolve, frozen

if not __package__:
    sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks._plot import shares
from checkpointable.runner.when import optimum_interval

RESULTS = Path(__file__).parents[1] / "results"
YEAR = 365 * 86400.0
GPUS = (8, 32, 128, 512, 1024, 2048, 4096, 8192, 10_000)
FAILURES = 4000  # in each simulated run


@frozen
class Cluster:
    """What is assumed. "Assumed" is what nobody measured here; set your own."""

    gpus: int
    per_node: int = 8
    state: float = 20.0  # GiB a GPU; assumed: a quarter of 80 GiB
    stall: float = 1.0  # s; assumed: 20 GiB to pinned memory of the host, over PCIe 5
    slowed: float = 0.02  # of the steps' speed, while a save or a copy goes on beside; assumed
    disk: float = 6.0  # GiB/s a node, written; assumed: two NVMe drives
    disk_read: float = 12.0  # GiB/s a node; assumed
    link: float = 5.0  # GiB/s a node to the shared store; assumed: half of 100 Gb/s
    shared: float = 500.0  # GiB/s in all; assumed: a quarter of Meta's 2 TB/s, sustained (Llama 3)
    per_rank: float = 1e-4  # s of a save, for each rank, at rank 0; measured by `heads`, rounded up
    node_lost: float = 5 * YEAR  # between two of one node; assumed
    process_fails: float = 1 * YEAR  # the same; assumed. Together 0.83 years; 0.72 in Llama 3
    again: float = 300.0  # s from a failure to the beginning of the restore; assumed

    @property
    def nodes(self) -> float:
        return self.gpus / self.per_node

    @property
    def mtbf(self) -> float:
        """Between two failures of the job."""
        return 1 / (self.nodes * (1 / self.node_lost + 1 / self.process_fails))

    @property
    def share_lost(self) -> float:
        """Of the failures, those that lose a node."""
        return self.process_fails / (self.process_fails + self.node_lost)

    def to_disk(self, share: float = 1.0) -> float:
        return share * self.state * self.per_node / self.disk + self.per_rank * self.gpus

    def to_shared(self, share: float = 1.0) -> float:
        return share * self.from_shared() + self.per_rank * self.gpus

    def from_disk(self) -> float:
        return self.state * self.per_node / self.disk_read

    def from_shared(self) -> float:
        return self.state * self.gpus / min(self.link * self.nodes, self.shared)


@frozen
class Saves:
    """What a save does to a job: how long it stands still, how long it is slowed, how it restores.

    `copy` is how long the copy to the shared store takes, None if saves go there themselves.
    """

    stall: float
    flight: float
    slowed: float
    restore: float
    copy: float | None = None
    restore_lost: float = 0.0

    @property
    def cost(self) -> float:
        """What a save takes away from the steps, as a policy measures it."""
        return self.stall + self.slowed * self.flight


def saves_of(cluster: Cluster, *, tiered: bool, dirty: float = 1.0) -> Saves:
    """How jobs save on this cluster; `dirty` is the share of blocks that change between saves."""
    share = average_share(dirty)
    slow = cluster.from_shared()
    if not tiered:
        flight = cluster.to_shared(share)
        return Saves(cluster.stall, flight, cluster.slowed, slow)
    flight, copy = cluster.to_disk(share), cluster.to_shared(share)
    return Saves(cluster.stall, flight, cluster.slowed, cluster.from_disk(), copy, slow)


def average_share(dirty: float) -> float:
    """What a save writes of the state, on average: a full one, and deltas until they are as large.

    >>> average_share(1.0), round(average_share(0.2), 3)
    (1.0, 0.333)
    """
    deltas = int(1 / dirty + 1e-9) if dirty < 1 else 0
    return (1 + deltas * dirty) / (1 + deltas)


def lost(
    saves: Saves, interval: float, mtbf: float, share_lost: float, again: float,
    failures: int = FAILURES, seed: int = 1,
) -> float:  # fmt: skip
    """The share of a run that is not steps that count, through so many failures.

    Failures come at random, at any time, in a restart as well. A save begins `interval` after the
    one before has, and its stall, and no sooner than that is written.
    """
    chance = random.Random(seed)
    wait = max(interval, saves.flight)  # from the end of a stall to the next
    period = saves.stall + wait
    every_copy = 1 if saves.copy is None else max(1, math.ceil(saves.copy / period))
    busy = 0.0 if saves.copy is None else min(1.0, saves.copy / (every_copy * period))
    speed = 1 - saves.slowed * busy
    done = wait - saves.slowed * saves.flight  # by the steps of a period, but for the first
    clock = near = far = 0.0  # steps that count, as the disks have them, and the shared store
    after = 0.0  # how long the restart takes that goes on
    for _ in range(failures):
        until = chance.expovariate(1 / mtbf)
        clock += until
        node = chance.random() < share_lost
        begin = near  # the steps that this life began with
        durable = (until - after) - wait - saves.stall - saves.flight
        if durable >= 0:
            near = begin + speed * (wait + int(durable / period) * done)
            if saves.copy is None:
                far = near
            elif durable >= saves.copy:
                copies = int((durable - saves.copy) / (every_copy * period))
                far = begin + speed * (wait + copies * every_copy * done)
        if node:
            near = far
        restore = saves.restore_lost if node and saves.copy is not None else saves.restore
        after = again + restore
    return 1 - near / clock


# --- the comparison -------------------------------------------------------------------------------

INTERVALS: dict[str, Callable[[Saves, float], float]] = {
    "every 60 min": lambda saves, mtbf: 3600.0,
    "every 30 min": lambda saves, mtbf: 1800.0,
    "every 10 min": lambda saves, mtbf: 600.0,
    "overhead(max=0.01)": lambda saves, mtbf: saves.cost * (1 / 0.01 - 1),
    "young_daly": lambda saves, mtbf: optimum_interval(saves.cost, mtbf),
}
DIRTY = 0.2
TIERS: dict[str, dict[str, Any]] = {
    "slow, full": {"tiered": False},
    "slow, delta": {"tiered": False, "dirty": DIRTY},
    "fast + slow, full": {"tiered": True},
    "fast + slow, delta": {"tiered": True, "dirty": DIRTY},
}


def simulated(cluster: Cluster, tier: Mapping[str, Any], interval: str) -> tuple[float, float]:
    """The share that is lost, and the seconds from one save to the next."""
    saves = saves_of(cluster, **tier)
    wanted = INTERVALS[interval](saves, cluster.mtbf)
    share = lost(saves, wanted, cluster.mtbf, cluster.share_lost, cluster.again)
    return share, saves.stall + max(wanted, saves.flight)


def over_sizes(base: Cluster, tier: Mapping[str, Any], interval: str) -> dict[int, Any]:
    found = {n: simulated(evolve(base, gpus=n), tier, interval) for n in GPUS}
    return {n: {"lost": round(a, 5), "apart_s": round(b, 1)} for n, (a, b) in found.items()}


def main() -> None:
    base = Cluster(0)
    intervals = {
        tier: {name: over_sizes(base, TIERS[tier], name) for name in INTERVALS}
        for tier in ("slow, full", "fast + slow, full")
    }
    tiers = {name: over_sizes(base, tier, "young_daly") for name, tier in TIERS.items()}
    # The same at 10,000, if what is assumed is otherwise.
    largest = evolve(base, gpus=GPUS[-1])
    others = {
        "as assumed": largest,
        "half of the failures lose a node": evolve(
            largest, node_lost=5 / 3 * YEAR, process_fails=5 / 3 * YEAR
        ),
        "twice as many failures": evolve(
            largest, node_lost=base.node_lost / 2, process_fails=base.process_fails / 2
        ),
        "shared store of 2,000 GiB/s": evolve(largest, shared=2000.0),
        "shared store of 100 GiB/s": evolve(largest, shared=100.0),
        "4 GiB of state a GPU": evolve(largest, state=4.0),
        "restarts in 60 s": evolve(largest, again=60.0),
    }
    otherwise = {
        what: {name: round(simulated(c, tier, "young_daly")[0], 4) for name, tier in TIERS.items()}
        for what, c in others.items()
    }
    about = {name: value for name, value in asdict(base).items() if name != "gpus"}
    mtbfs = {n: round(evolve(base, gpus=n).mtbf / 3600, 2) for n in GPUS}
    found = {
        "simulated": True, "assumed": about, "failures_in_each_run": FAILURES, "dirty": DIRTY,
        "mtbf_h": mtbfs, "intervals": intervals, "tiers": tiers, "otherwise_at_10000": otherwise,
    }  # fmt: skip
    (RESULTS / "cluster.json").write_text(json.dumps(found, indent=2) + "\n")
    for what, said in otherwise.items():
        print(f"{what}: " + ", ".join(f"{name} {share:.1%}" for name, share in said.items()))
    shown = {f"Saves to: {tier}": said for tier, said in intervals.items()}
    shares(RESULTS / "cluster_intervals.png", shown)
    shares(RESULTS / "cluster_tiers.png", {"Saves by young_daly": tiers}, scale="linear")


if __name__ == "__main__":
    main()
