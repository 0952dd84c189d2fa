"""`checkpointable run`: `run` is the command, `_factory` finds and makes the kernel.

`_policies` reads when to save and what to keep, `_output` prints the events, `_mpi` runs one rank
of many, and `_supervised` runs all of it in a child process.
"""
