"""The contract between a kernel and everything that saves it: structural, nothing to inherit.

A kernel is any object with the right methods. `check_kernel` says what is missing; the
functions `can_checkpoint`, `checkpoint_size_estimate`, `validate`, `health_check` and `shutdown`
ask a kernel for its own answer and give the contract's default where it has none.
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
    """Names a kernel, for tools and for the files that it writes.

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
    """A kernel's answer to "are you well?"; `reason` says why not.

    >>> HealthStatus(healthy=False, reason="NaN in field").healthy
    False
    """

    healthy: bool = True
    reason: str = ""


class GpuKernel(Protocol):
    """What tools need to name and probe a kernel. Only `metadata` has no default."""

    @property
    def metadata(self) -> KernelMetadata:
        """Who this kernel is."""
        ...

    def validate(self) -> None:
        """Raise `InvalidKernel` if the kernel cannot run as configured."""
        return None  # without it mypy takes the body for abstract

    def health_check(self) -> HealthStatus:
        """Say whether the state is sound, for instance free of NaN."""
        return HealthStatus()

    def shutdown(self) -> None:
        """Release what the kernel holds; the kernel is not used afterwards."""
        return None


class Checkpointable(Protocol[C]):
    """Everything that saves needs just this. `C`, an attrs class, goes out and comes in.

    A checkpoint never shares memory with the live state; taking one does not change the run;
    `restore` is all or nothing and raises `InvalidCheckpoint` on a checkpoint it cannot use.
    """

    async def checkpoint(self) -> C:
        """Return a snapshot of the state that the kernel's later work does not touch."""
        ...

    async def restore(self, checkpoint: C, /) -> None:
        """Continue from `checkpoint`, or raise and stay as before."""
        ...


class CheckpointableKernel(GpuKernel, Checkpointable[C], Protocol[C]):
    """The full contract, after the Rust trait of the same name."""

    def can_checkpoint(self) -> bool:
        """Return False in the middle of what cannot be interrupted."""
        return True

    def checkpoint_size_estimate(self) -> int:
        """Return the expected size of a checkpoint in bytes; 0 means unknown."""
        return 0


@runtime_checkable
class SteppableKernel(Checkpointable[C], Protocol[C]):
    """What `run` drives: a kernel that counts its steps and can be told to go on.

    `advance(a); advance(b)` gives the same state, bit for bit, as `advance(a + b)`.
    """

    @property
    def step(self) -> int:
        """Steps done since the beginning, restored ones included."""
        ...

    def advance(self, steps: int, /) -> None:
        """Do `steps` more steps, and return when they are done."""
        ...


def can_checkpoint(kernel: object) -> bool:
    """Ask the kernel whether it may be checkpointed now; True if it has no opinion.

    >>> can_checkpoint(object())
    True
    """
    ask = getattr(kernel, "can_checkpoint", None)
    return True if ask is None else bool(ask())


def checkpoint_size_estimate(kernel: object) -> int:
    """Ask the kernel for the expected size of a checkpoint in bytes; 0 if unknown.

    >>> checkpoint_size_estimate(object())
    0
    """
    ask = getattr(kernel, "checkpoint_size_estimate", None)
    return 0 if ask is None else int(ask())


def validate(kernel: object) -> None:
    """Let the kernel raise `InvalidKernel` if it cannot run; nothing happens if it has no check."""
    ask = getattr(kernel, "validate", None)
    if ask is not None:
        ask()


def health_check(kernel: object) -> HealthStatus:
    """Ask the kernel whether it is well; a kernel that cannot say is.

    >>> health_check(object())
    HealthStatus(healthy=True, reason='')
    """
    ask = getattr(kernel, "health_check", None)
    answer = HealthStatus() if ask is None else ask()
    if not isinstance(answer, HealthStatus):
        raise InvalidKernel(
            f"health_check() returned {type(answer).__name__}, not HealthStatus",
            where=type(kernel).__qualname__,
            hint="return checkpointable.HealthStatus(healthy=..., reason=...)",
        )
    return answer


def shutdown(kernel: object) -> None:
    """Let the kernel release what it holds; nothing happens if it has no `shutdown`."""
    ask = getattr(kernel, "shutdown", None)
    if ask is not None:
        ask()


def kernel_metadata(kernel: object) -> KernelMetadata:
    """Return the kernel's metadata, or one made from its class's name if it has none.

    >>> class Heat: ...
    >>> kernel_metadata(Heat()).id
    'Heat'
    """
    metadata = getattr(kernel, "metadata", None)
    if metadata is None:
        return KernelMetadata(id=type(kernel).__name__)
    if not isinstance(metadata, KernelMetadata):
        raise InvalidKernel(
            f"metadata is a {type(metadata).__name__}, not a KernelMetadata",
            where=f"{type(kernel).__qualname__}.metadata",
            hint="make it an attribute or property that holds checkpointable.KernelMetadata(...)",
        )
    return metadata


# method -> (is async, number of positional arguments that it is called with)
_CHECKPOINTABLE = {"checkpoint": (True, 0), "restore": (True, 1)}
_PROVIDED = {
    "can_checkpoint": (False, 0),
    "checkpoint_size_estimate": (False, 0),
    "validate": (False, 0),
    "health_check": (False, 0),
    "shutdown": (False, 0),
}


def check_kernel(kernel: object, *, steppable: bool = False) -> None:
    """Raise `InvalidKernel` unless the object fulfils the contract; the message lists every fault.

    Checked are `checkpoint` and `restore`, the provided methods and `metadata` where the kernel
    has them, and with `steppable=True` also `step` and `advance`.

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
    faults = list(_faults(kernel, steppable))
    if faults:
        name = type(kernel).__qualname__
        raise InvalidKernel(
            f"{name} is not a checkpointable kernel:\n"
            + "\n".join(f"  - {fault}" for fault in faults),
            where=name,
            hint="see checkpointable.protocol for the contract",
        )


def _faults(kernel: object, steppable: bool) -> Iterator[str]:
    required = dict(_CHECKPOINTABLE)
    if steppable:
        required["advance"] = (False, 1)
        step = inspect.getattr_static(kernel, "step", None)
        if step is None:
            yield "step is missing: count the steps done in an int attribute `step`"
        elif callable(step):
            yield "step is a method, but must be an int attribute or property"
    for name, (is_async, arguments) in {**_PROVIDED, **required}.items():
        if getattr(kernel, name, None) is not None:
            yield from _method_faults(getattr(kernel, name), name, is_async, arguments)
        elif name in required:
            signature = f"(self{', ' + _ARGUMENT[name] if arguments else ''})"
            yield f"{name} is missing: add `{_def(is_async)} {name}{signature}`"
    try:
        kernel_metadata(kernel)
    except InvalidKernel as error:
        yield error.what


_ARGUMENT = {"restore": "checkpoint", "advance": "steps"}


def _def(is_async: bool) -> str:
    return "async def" if is_async else "def"


def _method_faults(method: Any, name: str, is_async: bool, arguments: int) -> Iterator[str]:
    if not callable(method):
        yield f"{name} is an attribute ({type(method).__name__}), but must be a method"
        return
    function = method if inspect.isroutine(method) else type(method).__call__
    if inspect.iscoroutinefunction(function) != is_async:
        yield f"{name} is `{_def(not is_async)}`, but must be `{_def(is_async)}`"
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):  # a builtin that does not say
        return
    try:
        signature.bind(*range(arguments))
    except TypeError as error:
        called = f"{name}({_ARGUMENT[name] if arguments else ''})"
        yield f"{name} has the wrong parameters {signature}: it is called as {called} ({error})"


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
        found = typing.get_type_hints(kernel.checkpoint).get("return")
    except (NameError, AttributeError, TypeError) as error:
        raise InvalidKernel(
            f"the return annotation cannot be resolved: {error}",
            where=where,
            hint=f"{hint}, with the class at module level",
        ) from error
    if found is None or isinstance(found, TypeVar):
        raise InvalidKernel("no return annotation names the class", where=where, hint=hint)
    return typing.cast("type[C]", found)


def check_health(kernel: object) -> None:
    """Raise `Unhealthy` if the kernel says that its state is not sound."""
    status = health_check(kernel)
    if not status.healthy:
        raise Unhealthy(
            status.reason or "the kernel says that it is not healthy",
            where=f"{type(kernel).__qualname__}, at step {getattr(kernel, 'step', '?')}",
            hint="it is not saved; go on from the newest checkpoint, or look for the cause there",
        )
