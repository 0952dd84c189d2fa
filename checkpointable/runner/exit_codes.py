"""The exit codes of a run, and of what starts it again."""

from checkpointable.errors import (
    CorruptCheckpoint,
    InvalidCheckpoint,
    InvalidKernel,
    UnsupportedType,
)

EX_PREEMPTED = 75
"""Exit code after a signal that stops: the state is saved, start me again (EX_TEMPFAIL)."""


EX_GAVE_UP = 1
"""Exit code after too many failures without one new checkpoint."""


EX_USAGE = 64
"""Exit code for wrong usage: starting it again will not help."""


EX_CONFIG = 78
"""Exit code where kernel, checkpoint class or checkpoints do not fit: starting again won't help."""


def exit_code(error: BaseException) -> int:
    """78 where starting again cannot help unless something is mended or chosen otherwise, else 1.

    >>> exit_code(InvalidKernel("no advance")), exit_code(CorruptCheckpoint("cut short"))
    (78, 1)
    """
    to_mend = isinstance(error, InvalidKernel | UnsupportedType | InvalidCheckpoint)
    return EX_CONFIG if to_mend and not isinstance(error, CorruptCheckpoint) else 1
