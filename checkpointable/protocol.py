"""The contract between a kernel and everything that saves it: structural, nothing to inherit.

A kernel is any object with the right methods. `check_kernel` reports what is missing. The functions
`can_checkpoint`, `checkpoint_size_estimate`, `validate`, `health_check` and `shutdown` call the
kernel's method of that name, or fall back to the contract's default if it has none.
"""

import inspect
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any, Protocol, TypeVar, runtime_checkable

from attrs import field, frozen, validators

from checkpointable.errors import InvalidKernel, Unhealthy

C = TypeVar("C")


class KernelMode(Enum):
    """How a kernel works: launched batch by batch, or resident and fed through a ring."""

    BATCH = "batch"
    RING = "ring"


@frozen
class KernelMetadata:
    """What identifies a kernel, for tools and in the files that it writes.

    >>> KernelMetadata(id="heat", version="1.2").mode
    <KernelMode.BATCH: 'batch'>
    """

    id: str = field(validator=validators.and_(validators.instance_of(str), validators.min_len(1)))
    version: str = field(default="1", validator=validators.instance_of(str))
    mode: KernelMode = KernelMode.BATCH
    domain: str = ""
    description: str = ""
    requires_gpu: bool = False


@frozen
class HealthStatus:
    """Whether a kernel's state is valid, and the `reason` if not.

    >>> HealthStatus(healthy=False, reason="NaN in field").healthy
    False
    """

    healthy: bool = True
    reason: str = ""


class GpuKernel(Protocol):
    """What tools need to identify and probe a kernel. Only `metadata` has no default."""

    @property
    def metadata(self) -> KernelMetadata:
        """What identifies this kernel."""
        ...

    def validate(self) -> None:
        """Raise `InvalidKernel` if the kernel cannot run as configured."""
        return None  # without it, mypy takes the body for abstract

    def health_check(self) -> HealthStatus:
        """Report whether the state is valid, for instance free of NaN."""
        return HealthStatus()

    def shutdown(self) -> None:
        """Release what the kernel holds; the kernel is not used afterwards."""
        return None


class Checkpointable(Protocol[C]):
    """What everything that saves needs. `C` is the class of the checkpoints, an attrs class.

    A checkpoint never shares memory with the live state; taking one does not change the run;
    `restore` is all or nothing and raises `InvalidCheckpoint` on a checkpoint it cannot use.
    """

    async def checkpoint(self) -> C:
        """Return a snapshot of the state, which the kernel's later work does not change."""
        ...

    async def restore(self, checkpoint: C, /) -> None:
        """Continue from `checkpoint`, or raise and leave the state unchanged."""
        ...


class CheckpointableKernel(GpuKernel, Checkpointable[C], Protocol[C]):
    """The full contract, after the Rust trait of the same name."""

    def can_checkpoint(self) -> bool:
        """Return False during work that cannot be interrupted."""
        return True

    def checkpoint_size_estimate(self) -> int:
        """Return the expected size of a checkpoint in bytes; 0 means unknown."""
        return 0


@runtime_checkable
class SteppableKernel(Checkpointable[C], Protocol[C]):
    """What `run` drives: a kernel that counts its steps and does as many more as it is asked to.

    `advance(a); advance(b)` gives the same state, bit for bit, as `advance(a + b)`.
    """

    @property
    def step(self) -> int:
        """Steps done since the beginning, including those before a restore."""
        ...

    def advance(self, steps: int, /) -> None:
        """Do `steps` more steps, and return when they are done."""
        ...


def can_checkpoint(kernel: object) -> bool:
    """Return whether the kernel may be checkpointed now; True if it has no such method.

    >>> can_checkpoint(object())
    True
    """
    return bool(_call(kernel, "can_checkpoint", default=True))


def checkpoint_size_estimate(kernel: object) -> int:
    """Return the expected size of the kernel's checkpoint in bytes; 0 if unknown.

    >>> checkpoint_size_estimate(object())
    0
    """
    return int(_call(kernel, "checkpoint_size_estimate", default=0))


def validate(kernel: object) -> None:
    """Call the kernel's `validate`, if any, which raises `InvalidKernel` if it cannot run."""
    _call(kernel, "validate", default=None)


def health_check(kernel: object) -> HealthStatus:
    """Return the kernel's health; a kernel without `health_check` is healthy.

    >>> health_check(object())
    HealthStatus(healthy=True, reason='')
    """
    status = _call(kernel, "health_check", default=HealthStatus())
    if not isinstance(status, HealthStatus):
        raise InvalidKernel(
            f"health_check() must return HealthStatus, got {type(status).__name__}",
            where=type(kernel).__qualname__,
            hint="return checkpointable.HealthStatus(healthy=..., reason=...)",
        )
    return status


def shutdown(kernel: object) -> None:
    """Call the kernel's `shutdown`, if any, which releases what it holds."""
    _call(kernel, "shutdown", default=None)


def _call(kernel: object, name: str, *, default: object) -> Any:
    method = getattr(kernel, name, None)
    return default if method is None else method()


def kernel_metadata(kernel: object) -> KernelMetadata:
    """Return the kernel's metadata, or metadata made from its class's name if it has none.

    >>> class Heat: ...
    >>> kernel_metadata(Heat()).id
    'Heat'
    """
    metadata = getattr(kernel, "metadata", None)
    if metadata is None:
        return KernelMetadata(id=type(kernel).__name__)
    if not isinstance(metadata, KernelMetadata):
        raise InvalidKernel(
            f"metadata must be a KernelMetadata, got {type(metadata).__name__}",
            where=f"{type(kernel).__qualname__}.metadata",
            hint="make it an attribute or property that holds checkpointable.KernelMetadata(...)",
        )
    return metadata


def check_kernel(kernel: object, *, steppable: bool = False) -> None:
    """Raise `InvalidKernel` unless the object fulfils the contract; the message lists every fault.

    It checks `checkpoint` and `restore`, the provided methods and `metadata` if the kernel has
    them, and with `steppable=True` also `step` and `advance`.

    >>> class Forgetful:
    ...     def checkpoint(self) -> int: ...
    >>> check_kernel(Forgetful())
    Traceback (most recent call last):
        ...
    checkpointable.errors.InvalidKernel: Forgetful is not a checkpointable kernel:
      - checkpoint is `def`, but must be `async def`
      - restore is missing: add `async def restore(self, checkpoint)`
      where: Forgetful
      hint: see checkpointable.protocol for the contract
    """
    if isinstance(kernel, type):
        raise InvalidKernel(
            f"{kernel.__name__} is a class, not a kernel object",
            where=kernel.__qualname__,
            hint=f"create one: {kernel.__name__}(...)",
        )
    faults = list(_faults(kernel, steppable=steppable))
    if faults:
        name = type(kernel).__qualname__
        raise InvalidKernel(
            f"{name} is not a checkpointable kernel:\n"
            + "\n".join(f"  - {fault}" for fault in faults),
            where=name,
            hint="see checkpointable.protocol for the contract",
        )


@frozen
class _Method:
    """How the contract defines a method, and the arguments that it is called with."""

    name: str
    keyword: str = "def"
    arguments: tuple[str, ...] = ()

    def faults(self, method: Any) -> Iterator[str]:
        if not callable(method):
            yield f"{self.name} is an attribute ({type(method).__name__}), but must be a method"
            return
        function = method if inspect.isroutine(method) else type(method).__call__
        keyword = "async def" if inspect.iscoroutinefunction(function) else "def"
        if keyword != self.keyword:
            yield f"{self.name} is `{keyword}`, but must be `{self.keyword}`"
        try:
            signature = inspect.signature(method)
        except (TypeError, ValueError):  # a builtin without a signature
            return
        try:
            signature.bind(*self.arguments)
        except TypeError as error:
            call = f"it is called as {self.name}({', '.join(self.arguments)})"
            yield f"{self.name} has the wrong parameters {signature}: {call} ({error})"


_PROVIDED = ("can_checkpoint", "checkpoint_size_estimate", "validate", "health_check", "shutdown")
_CHECKPOINT = _Method("checkpoint", "async def")
_RESTORE = _Method("restore", "async def", ("checkpoint",))
_ADVANCE = _Method("advance", arguments=("steps",))


def _faults(kernel: object, *, steppable: bool) -> Iterator[str]:
    required = [_CHECKPOINT, _RESTORE]
    if steppable:
        required.append(_ADVANCE)
        step = inspect.getattr_static(kernel, "step", None)
        if step is None:
            yield "step is missing: count the steps done in an int attribute `step`"
        elif callable(step):
            yield "step is a method, but must be an int attribute or property"
    for method in [*map(_Method, _PROVIDED), *required]:
        if getattr(kernel, method.name, None) is not None:
            yield from method.faults(getattr(kernel, method.name))
        elif method in required:
            signature = ", ".join(("self", *method.arguments))
            yield f"{method.name} is missing: add `{method.keyword} {method.name}({signature})`"
    try:
        kernel_metadata(kernel)
    except InvalidKernel as error:
        yield error.what


def checkpoint_class(kernel: Checkpointable[C]) -> type[C]:
    """Return `C`, read from the annotation of the `checkpoint` method of a kernel, or of its class.

    Raises `InvalidKernel` if the method has no return annotation that can be resolved.

    >>> class Counter:
    ...     async def checkpoint(self) -> int: ...
    ...     async def restore(self, checkpoint: int) -> None: ...
    >>> checkpoint_class(Counter())
    <class 'int'>
    """
    owner = kernel if isinstance(kernel, type) else type(kernel)
    where = f"{owner.__qualname__}.checkpoint"
    hint = "annotate it: `async def checkpoint(self) -> YourCheckpoint`"
    try:
        annotation = typing.get_type_hints(kernel.checkpoint).get("return")
    except (NameError, AttributeError, TypeError) as error:
        raise InvalidKernel(
            f"the return annotation cannot be resolved: {error}",
            where=where,
            hint=f"{hint}, with the class at module level",
        ) from error
    if annotation is None or isinstance(annotation, TypeVar):
        what = "the return annotation does not name the checkpoint's class"
        raise InvalidKernel(what, where=where, hint=hint)
    return typing.cast("type[C]", annotation)


def check_health(kernel: object) -> None:
    """Raise `Unhealthy` if the kernel reports that its state is not valid."""
    status = health_check(kernel)
    if not status.healthy:
        raise Unhealthy(
            status.reason or "the kernel reports that it is not healthy",
            where=f"{type(kernel).__qualname__}, at step {getattr(kernel, 'step', '?')}",
            hint="it was not saved; continue from the newest checkpoint, or debug from there",
        )
