"""The command line: `checkpointable run`, and what looks at what it saved, or changes it.

Results go to stdout, as text or with `--json` as one JSON object a line; errors and warnings to
stderr. Exit codes: 0 done; 1 failed; 64 wrong usage; 75 a run was preempted with its state saved,
start it again; 78 kernel, checkpoint class or checkpoints do not fit together, starting it again
won't help; 130 interrupted. `run --supervise` starts it again itself, after all but 0, 64 and 78.

`app` puts the commands together, each a module of its name or, where it is large, a folder: `run/`
and `report/`. `view/` has what several of them show, and `_shared` how they print and fail.
"""

from checkpointable.cli.app import app, main

__all__ = ["app", "main"]
