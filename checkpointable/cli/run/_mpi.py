"""`checkpointable run --mpi`: as one of the ranks of a job."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from checkpointable.cli._shared import usage_error
from checkpointable.kernels import KERNELS
from checkpointable.runner import EX_USAGE


def mpi_variant(name: str) -> str:
    """The name of the MPI variant of a kernel of the gallery, if it has one.

    >>> mpi_variant("wave"), mpi_variant("ising")
    ('wave-mpi', 'ising')
    """
    return f"{name}-mpi" if f"{name}-mpi" in KERNELS else name


def world() -> Any:
    """The communicator of all ranks; a usage error without mpi4py."""
    try:
        from mpi4py import MPI as mpi
    except ImportError as error:
        what = f"--mpi needs mpi4py and an MPI: {error}"
        raise usage_error(f"{what}\n  hint: pip install 'checkpointable[mpi]'") from error
    return mpi.COMM_WORLD


@contextmanager
def aborting_all_ranks() -> Iterator[None]:
    """Abort all ranks when this one fails, or they would wait for it."""
    from mpi4py.run import set_abort_status

    try:
        yield
    except BaseException as error:
        wrong = isinstance(error, usage_error)
        set_abort_status(EX_USAGE if wrong else getattr(error, "exit_code", 1))
        raise
