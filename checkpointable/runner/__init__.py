"""The main job: `run` resumes a kernel, advances it, and saves it when a save is due.

`run` makes a `job`, which connects the pure `loop` to its surroundings: the store, other ranks, and
through the `link` a supervisor. `when` has the policies, `costs` what a save costs, `signals` those
that stop a run.
"""
# isort: skip_file
# fmt: off

from checkpointable.runner.exit_codes import (
    EX_CONFIG, EX_GAVE_UP, EX_PREEMPTED, EX_USAGE, exit_code,
)
from checkpointable.runner.job import Preempted
from checkpointable.runner.link import ENDED, VARIABLE, WHERE
from checkpointable.runner.loop import Progress, Report
from checkpointable.runner.run import run
from checkpointable.runner.signals import handled, safe_point
from checkpointable.runner.when import (
    Due, Moment, When, at, continuously, every, on_signal, overhead, young_daly,
)

__all__ = [
    "ENDED", "EX_CONFIG", "EX_GAVE_UP", "EX_PREEMPTED", "EX_USAGE", "VARIABLE", "WHERE", "Due",
    "Moment", "Preempted", "Progress", "Report", "When", "at", "continuously", "every",
    "exit_code", "handled", "on_signal", "overhead", "run", "safe_point", "young_daly",
]
