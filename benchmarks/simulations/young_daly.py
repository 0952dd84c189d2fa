"""What saving and failures cost a run, by the interval between saves; and where `young_daly` lies.

    python -m benchmarks.simulations.young_daly

Simulated, as in `tests/runner/test_when.py`: the loop of `run`, on a clock that advances by the
work done. Each run does 40 h of steps; saves stall it for 3 s, and slow its steps by a fifth for
10 s, so that they cost 5 s; failures come at random.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._plot import losses
from checkpointable import every, young_daly
from checkpointable.runner.when import When, optimum_interval
from tests.helpers.simulated_run import World

RESULTS = Path(__file__).parents[1] / "results"
STEPS = 144_000  # of a second
SEEDS = 12
RESTORE = 30.0
FACTORS = (0.25, 0.5, 0.71, 0.85, 1.0, 1.19, 1.41, 2.0, 4.0)  # times the optimum
MTBFS = {"30 min": 1800.0, "1 h": 3600.0, "6 h": 21_600.0}


def lost(when: When, mtbf: float, seed: int) -> float:
    """The share of the run that is not steps that count."""
    world = World(1.0, 3.0, 0.2, partial(float, 10), restore=RESTORE)
    world.run_through_failures(STEPS, when, mtbf, seed)
    return 1 - STEPS / world.clock.now


def mean(when: When, mtbf: float) -> float:
    return sum(lost(when, mtbf, seed) for seed in range(SEEDS)) / SEEDS


def main() -> None:
    found: dict[str, Any] = {}
    for name, mtbf in MTBFS.items():
        best = optimum_interval(5.0, mtbf)
        fixed = {round(best * f, 1): mean(every(seconds=best * f), mtbf) for f in FACTORS}
        ours = mean(young_daly(mtbf=mtbf), mtbf)
        lowest = min(fixed.values())
        found[name] = {"optimum_s": best, "fixed": fixed, "young_daly": ours}
        found[name]["times_the_lowest_loss"] = ours / lowest
        found[name]["times_the_shortest_run"] = (1 - lowest) / (1 - ours)
        print(f"{name}: young_daly loses {ours:.2%}, the best fixed interval {lowest:.2%}")
    (RESULTS / "young_daly.json").write_text(json.dumps(found, indent=2) + "\n")
    losses(RESULTS / "young_daly.png", found)


if __name__ == "__main__":
    main()
