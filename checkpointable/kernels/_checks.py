"""Refusals: constructor options that make no sense, checkpoints of another kernel's making."""

from typing import Any

import attrs
import numpy as np

from checkpointable import InvalidCheckpoint, InvalidKernel, check_fit


def require(condition: bool, what: str, *, option: str, hint: str) -> None:
    """Raise `InvalidKernel` about a constructor option unless the condition holds.

    >>> require(False, "n=3 is odd", option="n", hint="use an even number")
    Traceback (most recent call last):
        ...
    checkpointable.errors.InvalidKernel: n=3 is odd
      where: n
      hint: use an even number
    """
    if not condition:
        raise InvalidKernel(what, where=option, hint=hint)


def require_fit(checkpoint: object, cls: type, kernel: object, setup: attrs.AttrsInstance) -> None:
    """Raise `InvalidCheckpoint` unless it is a `cls` that fits, of an equal `setup`, step >= 0."""
    if not isinstance(checkpoint, cls):
        raise InvalidCheckpoint(
            f"a {type(checkpoint).__name__} is not a {cls.__name__}",
            hint="restore the kernel that this checkpoint was taken of",
        )
    found = getattr(checkpoint, "setup", setup)  # a missing one is refused below
    for field in attrs.fields(type(setup)):
        theirs, ours = getattr(found, field.name, None), getattr(setup, field.name)
        if theirs != ours:
            raise InvalidCheckpoint(
                f"the checkpoint was taken with {field.name}={theirs!r}, "
                f"this kernel has {field.name}={ours!r}",
                where=f"setup.{field.name}",
                hint="make the kernel with the options of the run it continues",
            )
    check_fit(checkpoint, kernel)
    require_sound(getattr(checkpoint, "step") >= 0, "the step is negative", "step")  # noqa: B009  (cls is known at run time only)


def require_sound(condition: bool, what: str, where: str) -> None:
    """Raise `InvalidCheckpoint` unless the condition on its values holds."""
    if not condition:
        raise InvalidCheckpoint(what, where=where, hint="use another checkpoint")


def on_host(array: Any) -> np.ndarray[Any, Any]:
    """Return the values of a checkpoint's array, which may be on a device still, to look at them.

    >>> on_host(np.arange(3))
    array([0, 1, 2])
    """
    return np.asarray(array.copy_to_host() if hasattr(array, "copy_to_host") else array)
