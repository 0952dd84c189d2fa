"""The error tree: one class for each thing that a handler would do differently.

```
CheckpointableError
├── InvalidKernel            mend the kernel's class
├── UnsupportedType          mend the checkpoint's class
├── NotNow                   ask again later
├── Unhealthy                the kernel's state is not sound: go back to a checkpoint
├── DeviceError              CUDA refused a copy or a launch
│   └── DeviceLost           and will refuse all others: start the process again
├── InvalidCheckpoint        use another checkpoint
│   ├── CorruptCheckpoint    the file is damaged, or not a checkpoint: fall back to an older one
│   └── SchemaMismatch       the file is sound, but of another class or version
└── StoreError               the place where checkpoints are kept
    ├── NoCheckpoint         nothing is there
    ├── CheckpointExists     the name is taken; nothing is ever overwritten
    ├── StoreLocked          another process writes here
    └── StoreFull            no space, or no quota, left
```
"""

from collections.abc import Iterator
from contextlib import contextmanager


class CheckpointableError(Exception):
    """Root of every error that this package raises on purpose.

    `what` says what went wrong; `where` is the place (a path inside the checkpoint, a file, an
    array and block); `hint` is what to do next. `str(error)` gives all three.

    >>> print(CheckpointableError("the seal does not match", where="step-7", hint="use another"))
    the seal does not match
      where: step-7
      hint: use another
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


class InvalidKernel(CheckpointableError):
    """The object does not fulfil the kernel contract, or lacks what its checkpoint needs."""


class UnsupportedType(CheckpointableError):
    """A checkpoint class has a field whose type cannot be stored and restored without loss."""


class NotNow(CheckpointableError):
    """The kernel cannot be checkpointed at the moment; nothing was saved and nothing changed."""


class Unhealthy(CheckpointableError):
    """The kernel says that its state is not sound, as by NaN; it was not saved."""


class DeviceError(CheckpointableError):
    """CUDA refused what was asked of a device; nothing was saved."""


class DeviceLost(DeviceError):
    """A CUDA error that a process does not survive; nothing is saved any more."""


class InvalidCheckpoint(CheckpointableError):
    """A checkpoint cannot be used: its values break its class, or the kernel refuses them."""


class CorruptCheckpoint(InvalidCheckpoint):
    """The bytes are not a whole checkpoint: damaged, truncated, or something else entirely."""


class SchemaMismatch(InvalidCheckpoint):
    """A sound checkpoint of another class, or of another version of the class."""


class StoreError(CheckpointableError):
    """The store could not do what was asked; what it held before is untouched."""


class NoCheckpoint(StoreError):
    """The store holds no such checkpoint, or none at all that verifies."""


class CheckpointExists(StoreError):
    """The name is taken: a store never overwrites."""


class StoreLocked(StoreError):
    """Another writer holds the store; the message names its pid and host."""


class StoreFull(StoreError):
    """No space or no quota is left; the unfinished file was thrown away."""


def reason(error: BaseException) -> str:
    """Say why a foreign error was raised, without the arguments that attrs' validators add.

    >>> reason(ValueError("x must be positive", object()))
    'x must be positive'
    """
    return str(error.args[0]) if error.args else type(error).__name__


@contextmanager
def errors_at(name: str) -> Iterator[None]:
    """Say in every error which checkpoint it is about."""
    try:
        yield
    except CheckpointableError as error:
        if name not in error.where:
            error.where = f"{name}: {error.where}" if error.where else name
        raise


def in_one_line(error: CheckpointableError, about: str) -> str:
    """Say an error about a checkpoint, whose name is told beside it: what, and where inside of it.

    >>> in_one_line(CorruptCheckpoint("it is cut short", where="step-7: array 'x'"), "step-7")
    "it is cut short (array 'x')"
    """
    what = " ".join(error.what.split())
    where = error.where.removeprefix(about).removeprefix(": ")
    return f"{what} ({where})" if where else what
