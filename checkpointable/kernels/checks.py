"""What the kernels refuse: options that make no sense, and checkpoints of another kernel."""

from typing import Any

import attrs
import numpy as np

from checkpointable import InvalidCheckpoint, InvalidKernel, check_fit


def check_option(name: str, what: str, *, valid: bool, hint: str) -> None:
    """Raise `InvalidKernel` about a constructor's option unless it is valid.

    >>> check_option("n", "n=3 is odd", valid=False, hint="use an even number")
    Traceback (most recent call last):
        ...
    checkpointable.errors.InvalidKernel: n=3 is odd
      where: n
      hint: use an even number
    """
    if not valid:
        raise InvalidKernel(what, where=name, hint=hint)


def check_value(name: str, what: str, *, valid: bool) -> None:
    """Raise `InvalidCheckpoint` about a checkpoint's value unless it is valid."""
    if not valid:
        raise InvalidCheckpoint(what, where=name, hint="use another checkpoint")


def check_checkpoint(
    checkpoint: Any, cls: type[Any], kernel: object, setup: attrs.AttrsInstance
) -> None:
    """Raise `InvalidCheckpoint` unless it is a `cls` that fits, of an equal `setup`, step >= 0."""
    if not isinstance(checkpoint, cls):
        raise InvalidCheckpoint(
            f"expected {cls.__name__}, got {type(checkpoint).__name__}",
            hint="restore the kernel that this checkpoint was taken of",
        )
    other = getattr(checkpoint, "setup", setup)  # `check_fit` refuses a missing one
    for field in attrs.fields(type(setup)):
        theirs, ours = getattr(other, field.name, None), getattr(setup, field.name)
        if theirs != ours:
            raise InvalidCheckpoint(
                f"the checkpoint was taken with {field.name}={theirs!r}, "
                f"this kernel has {field.name}={ours!r}",
                where=f"setup.{field.name}",
                hint="make the kernel with the options of the run that it continues",
            )
    check_fit(checkpoint, kernel)
    check_value("step", "the step is negative", valid=checkpoint.step >= 0)


def on_host(array: Any) -> np.ndarray[Any, Any]:
    """Return the values of a checkpoint's array, which may still be on a device.

    >>> on_host(np.arange(3))
    array([0, 1, 2])
    """
    return np.asarray(array.copy_to_host() if hasattr(array, "copy_to_host") else array)
