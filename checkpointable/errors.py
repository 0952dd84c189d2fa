"""The error tree: one class for each way in which a handler would react.

```
CheckpointableError
├── InvalidKernel            correct the kernel's class
├── UnsupportedType          correct the checkpoint's class
├── NotNow                   try again later
├── Unhealthy                the kernel's state is not valid: restore a checkpoint
├── DeviceError              CUDA refused a copy or a launch
│   └── DeviceLost           every later call fails; restart the process
├── InvalidCheckpoint        use another checkpoint
│   ├── CorruptCheckpoint    the file is damaged, or not a checkpoint: fall back to an older one
│   └── SchemaMismatch       the file is valid, but of another class or version
└── StoreError               the store failed
    ├── NoCheckpoint         there is no such checkpoint
    ├── CheckpointExists     the name is taken; nothing is ever overwritten
    ├── StoreLocked          another process is writing to the store
    └── StoreFull            no space or no quota is left
```
"""

from collections.abc import Iterator
from contextlib import contextmanager


class CheckpointableError(Exception):
    """Root of every error that this package raises on purpose.

    `what` is what went wrong; `where` is the place (a path inside the checkpoint, a file, an array
    and block); `hint` is what to do next. `str(error)` has all three.

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
    """The kernel cannot be checkpointed now; nothing was saved and nothing changed."""


class Unhealthy(CheckpointableError):
    """The kernel reports that its state is not valid, such as NaN; it was not saved."""


class DeviceError(CheckpointableError):
    """CUDA refused an operation on a device; nothing was saved."""


class DeviceLost(DeviceError):
    """A CUDA error that the process cannot recover from; nothing can be saved any more."""


class InvalidCheckpoint(CheckpointableError):
    """A checkpoint cannot be used: its values break its class, or the kernel refuses it."""


class CorruptCheckpoint(InvalidCheckpoint):
    """The bytes are not a whole checkpoint: damaged, truncated, or of another format."""


class SchemaMismatch(InvalidCheckpoint):
    """A valid checkpoint of another class, or of another version of the class."""


class StoreError(CheckpointableError):
    """The store could not do an operation; what it held before is unchanged."""


class NoCheckpoint(StoreError):
    """The store has no such checkpoint, or no valid one at all."""


class CheckpointExists(StoreError):
    """The name is taken: a store never overwrites."""


class StoreLocked(StoreError):
    """Another writer holds the store's lock; the message names its pid and host."""


class StoreFull(StoreError):
    """No space or no quota is left; the unfinished file was deleted."""


def reason(error: BaseException) -> str:
    """Return the message of another library's error, without what attrs' validators add.

    >>> reason(ValueError("x must be positive", object()))
    'x must be positive'
    """
    return str(error.args[0]) if error.args else type(error).__name__


@contextmanager
def errors_at(name: str) -> Iterator[None]:
    """Add the name of a checkpoint or file to the `where` of each error."""
    try:
        yield
    except CheckpointableError as error:
        if name not in error.where:
            error.where = f"{name}: {error.where}" if error.where else name
        raise


def in_one_line(error: BaseException, name: str = "") -> str:
    """An error on one line: what, and where inside the checkpoint of this name.

    >>> in_one_line(CorruptCheckpoint("it is cut short", where="step-7: array 'x'"), "step-7")
    "it is cut short (array 'x')"
    """
    if not isinstance(error, CheckpointableError):
        return f"{type(error).__name__}: {error}"
    what = " ".join(error.what.split())
    where = error.where.removeprefix(name).removeprefix(": ")
    return f"{what} ({where})" if where else what
