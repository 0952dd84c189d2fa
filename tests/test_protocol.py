"""The contract: what fulfils it, and the errors of what does not."""

import re
from typing import Any, ClassVar

import pytest

import checkpointable
from checkpointable import (
    CheckpointableKernel,
    HealthStatus,
    InvalidKernel,
    KernelMetadata,
    KernelMode,
    can_checkpoint,
    check_kernel,
    checkpoint_size_estimate,
    health_check,
)
from checkpointable.protocol import checkpoint_class, kernel_metadata, shutdown, validate


class Good:
    """Imports nothing of ours, inherits nothing."""

    step = 0

    async def checkpoint(self) -> int:
        return 1

    async def restore(self, checkpoint: int) -> None:
        pass

    def advance(self, steps: int) -> None:
        self.step += steps


class Provided(CheckpointableKernel[int]):
    """Inherits, and so has the provided methods."""

    @property
    def metadata(self) -> KernelMetadata:
        return KernelMetadata(id="p", mode=KernelMode.RING)

    async def checkpoint(self) -> int:
        return 1

    async def restore(self, checkpoint: int, /) -> None:
        pass


@pytest.mark.parametrize("kernel", [Good(), Provided()])
def test_provided_methods_have_their_defaults_inherited_or_not(kernel: Any) -> None:
    check_kernel(kernel)
    assert can_checkpoint(kernel) is True
    assert checkpoint_size_estimate(kernel) == 0
    assert health_check(kernel) == HealthStatus(healthy=True)
    validate(kernel)
    shutdown(kernel)


def test_a_kernel_with_opinions_is_asked() -> None:
    class Opinionated(Good):
        log: ClassVar[list[str]] = []

        def can_checkpoint(self) -> bool:
            return False

        def checkpoint_size_estimate(self) -> int:
            return 7

        def health_check(self) -> HealthStatus:
            return HealthStatus(healthy=False, reason="NaN")

        def validate(self) -> None:
            raise InvalidKernel("no grid")

        def shutdown(self) -> None:
            self.log.append("down")

        metadata = KernelMetadata(id="opinionated")

    kernel = Opinionated()
    check_kernel(kernel)
    assert can_checkpoint(kernel) is False
    assert checkpoint_size_estimate(kernel) == 7
    assert health_check(kernel).reason == "NaN"
    with pytest.raises(InvalidKernel, match="no grid"):
        validate(kernel)
    shutdown(kernel)
    assert kernel.log == ["down"]
    assert kernel_metadata(kernel).id == "opinionated"


def variant(**members: Any) -> Any:
    return type("Variant", (Good,), members)()


def sync_checkpoint(self: Any) -> int:
    return 1


async def async_advance(self: Any, steps: int) -> None: ...
async def two(self: Any, a: int, b: int) -> None: ...
async def none(self: Any) -> None: ...
async def optional(self: Any, checkpoint: int, strict: bool = True, *, why: str = "") -> None: ...
async def keyword_only(self: Any, *, checkpoint: int) -> None: ...


@pytest.mark.parametrize(
    ("kernel", "fault"),
    [
        (object(), "checkpoint is missing: add `async def checkpoint(self)`"),
        (object(), "restore is missing: add `async def restore(self, checkpoint)`"),
        (object(), "advance is missing: add `def advance(self, steps)`"),
        (object(), "step is missing"),
        (variant(checkpoint=sync_checkpoint), "checkpoint is `def`, but must be `async def`"),
        (variant(advance=async_advance), "advance is `async def`, but must be `def`"),
        (variant(checkpoint=3), "checkpoint is an attribute (int), but must be a method"),
        (variant(restore=two), "restore has the wrong parameters (a: int, b: int)"),
        (variant(restore=none), "restore has the wrong parameters ()"),
        (variant(restore=keyword_only), "restore has the wrong parameters"),
        (variant(step=lambda self: 1), "step is a method, but must be an int attribute"),
        (variant(can_checkpoint=True), "can_checkpoint is an attribute (bool)"),
        (variant(health_check=none), "health_check is `async def`, but must be `def`"),
        (variant(metadata="heat"), "metadata must be a KernelMetadata, got str"),
    ],
)
def test_the_error_names_what_is_wrong(kernel: object, fault: str) -> None:
    with pytest.raises(InvalidKernel, match=re.escape(fault)):
        check_kernel(kernel, steppable=True)


def test_more_parameters_with_defaults_are_fine() -> None:
    check_kernel(variant(restore=optional), steppable=True)


def test_step_may_be_a_property() -> None:
    check_kernel(variant(step=property(lambda self: 3)), steppable=True)


def test_a_class_is_not_a_kernel() -> None:
    with pytest.raises(InvalidKernel, match=r"Good is a class.*\n.*\n.*Good\(\.\.\.\)"):
        check_kernel(Good)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(InvalidKernel) as error:
        check_kernel(object(), steppable=True)
    assert error.value.what.count("missing") == 4


def test_the_checkpoint_class_is_read_from_the_annotation() -> None:
    assert checkpoint_class(Good()) is int


def test_a_kernel_without_annotation_is_told_to_add_one() -> None:
    async def untyped(self):  # type: ignore[no-untyped-def]
        return 1

    async def lost(self: Any) -> "Nowhere":  # type: ignore[name-defined]  # noqa: F821
        return 1

    for method in (untyped, lost):
        with pytest.raises(InvalidKernel, match="annotate it"):
            checkpoint_class(variant(checkpoint=method))


def test_a_health_check_must_answer_with_a_status() -> None:
    with pytest.raises(InvalidKernel, match="HealthStatus"):
        health_check(variant(health_check=lambda self: True))


def test_metadata_is_checked() -> None:
    with pytest.raises(ValueError, match="id"):
        KernelMetadata(id="")


def test_every_public_name_is_there_and_documented() -> None:
    for name in checkpointable.__all__:
        thing = getattr(checkpointable, name)
        assert isinstance(thing, int) or (thing.__doc__ or "").strip(), name
