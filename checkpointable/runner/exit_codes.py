"""The exit codes of a run and of its supervisor."""

from checkpointable.errors import (
    CorruptCheckpoint,
    InvalidCheckpoint,
    InvalidKernel,
    UnsupportedType,
)

EX_PREEMPTED = 75
"""After a signal that stops the run: the state is saved, start it again (EX_TEMPFAIL)."""

EX_GAVE_UP = 1
"""After too many failures without a new checkpoint."""

EX_USAGE = 64
"""Wrong usage: starting it again does not help."""

EX_CONFIG = 78
"""Kernel, checkpoint class or checkpoints do not fit: starting it again does not help."""


def exit_code(error: BaseException) -> int:
    """The exit code for an error: 78 if starting again cannot help, else 1.

    >>> exit_code(InvalidKernel("no advance")), exit_code(CorruptCheckpoint("cut short"))
    (78, 1)
    """
    permanent = isinstance(error, InvalidKernel | UnsupportedType | InvalidCheckpoint)
    return EX_CONFIG if permanent and not isinstance(error, CorruptCheckpoint) else 1
