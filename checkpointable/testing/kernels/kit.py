"""The kit for kernels: `KernelTests` has a test for each obligation, and `verify_kernel` runs them.

The obligations are those that types cannot express. The first line of a test's docstring is the
obligation in words; its failures begin with it.
"""

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import hypothesis

from checkpointable import archive
from checkpointable.checkpointer import Checkpointer
from checkpointable.errors import NotNow
from checkpointable.files import load_file, save_file
from checkpointable.protocol import (
    SteppableKernel,
    can_checkpoint,
    check_kernel,
    checkpoint_size_estimate,
    shutdown,
)
from checkpointable.schema import fields_of, schema_of
from checkpointable.stores import LocalStore, MemoryStore, Store
from checkpointable.testing.kernels.machine import run_machine
from checkpointable.testing.kernels.states import copy_of, differing_attributes, field_of
from checkpointable.testing.kernels.subject import (
    Subject,
    advance,
    errors_reported_as,
    expect_same,
    put,
    take,
)
from checkpointable.testing.kernels.wrong import expect_refused, wrong_checkpoints
from checkpointable.testing.report import broken, obligation, obligations_of, small_settings
from checkpointable.threads import complete

C = TypeVar("C")

SETTINGS = small_settings(examples=20, steps=15)
"""Few examples, since a kernel may take seconds for each; give your own for more."""


def scramble_by_advancing(kernel: SteppableKernel[C]) -> None:
    """Bring a kernel into another state by a few steps."""
    kernel.advance(3)


class KernelTests(Generic[C]):
    """Tests of a kernel's obligations: subclass it in a test module, and give `make`.

    ```python
    class TestHeat(KernelTests[HeatCheckpoint]):
        def make(self) -> Heat:
            return Heat(n=64)
    ```

    `steps` is how far the runs go; `settings` are Hypothesis's: more examples find more.
    """

    steps: ClassVar[int] = 12
    settings: ClassVar[hypothesis.settings] = SETTINGS

    def make(self) -> SteppableKernel[C]:
        """Make a fresh kernel, small, and each time the same."""
        raise NotImplementedError(f"{type(self).__name__} needs a method make(self)")

    def scramble(self, kernel: SteppableKernel[C]) -> None:
        """Bring a kernel into some other state, before something is restored into it."""
        scramble_by_advancing(kernel)

    @cached_property
    def _subject(self) -> Subject:
        return Subject(self.make, self.scramble, self.steps, self.settings)

    @obligation
    def test_is_a_kernel(self) -> None:
        """It has a kernel's methods, and checkpoints that can be stored."""
        subject = self._subject
        one, other = subject.make(), subject.make()
        with errors_reported_as("it does not", "a method that is missing, or not async"):
            check_kernel(one, steppable=True)
            shutdown(one)
            if one is other:
                cause = "make() returns a kernel that is kept"
                raise broken("make() gave the same object twice", cause=cause)
            shutdown(other)
            schema_of(subject.cls)
        with (
            errors_reported_as("its checkpoint cannot be stored", "a field of another type"),
            subject.kernel() as kernel,
        ):
            subject.state(kernel)

    @obligation
    def test_runs_agree(self) -> None:
        """Two runs are the same, and advance(a), advance(b) is the same as advance(a + b)."""
        subject = self._subject
        for steps in (0, subject.steps):
            with subject.kernel(steps) as kernel:
                expect_same(
                    subject.uninterrupted(steps),
                    subject.state(kernel),
                    f"two runs from make() differ after {steps} steps",
                    "an RNG without a seed, the time, or sums in an order that varies (atomics)",
                )

        def check(stops: list[int]) -> None:
            with subject.kernel() as kernel:
                for stop in [*stops, subject.steps]:
                    before, steps = kernel.step, subject.begin + stop - kernel.step
                    if steps > 0:
                        kernel.advance(steps)
                        if kernel.step != before + steps:
                            what = f"advance({steps}) at step {before} led to step {kernel.step}"
                            raise broken(what, cause="the steps are not counted")
                what = f"advanced in parts, to {stops} and to the end, it ends in another state"
                cause = "work at the beginning or the end of each call of advance()"
                subject.expect_end(kernel, what, cause)

        subject.for_every(check, stops=subject.stops())

    @obligation
    def test_taking_changes_nothing(self) -> None:
        """Taking a checkpoint does not change the run."""
        subject = self._subject

        def check(stops: list[int]) -> None:
            with subject.kernel() as kernel:
                for stop in stops:
                    subject.reach(kernel, stop)
                    take(kernel)
                what = f"with checkpoints taken at {stops}, it ends in another state"
                cause = (
                    "checkpoint() draws from the RNG, swaps buffers, or changes what the run uses"
                )
                subject.expect_end(kernel, what, cause)

        subject.for_every(check, stops=subject.stops())

    @obligation
    def test_held_is_unchanged(self) -> None:
        """A checkpoint shares nothing with the live state."""
        subject = self._subject
        alias = "{!r} aliases live state: copy it in checkpoint(), or use capture()"
        buffer = "checkpoint() fills the same {!r} each time: make a new one"
        adopted = "restore() keeps the checkpoint's own {!r}: copy it in, or use reinstate()"

        def check(stop: int) -> None:
            with subject.kernel(stop) as kernel, subject.kernel(3) as other:
                held = take(kernel)
                before = copy_of(held, subject.cls)

                def expect_unchanged(what: str, cause: str) -> None:
                    after = copy_of(held, subject.cls)
                    expect_same(before, after, what, lambda at: cause.format(field_of(at)))

                advance(kernel, subject.steps)
                expect_unchanged("a held checkpoint changed while the kernel advanced", alias)
                take(kernel)
                expect_unchanged("a held checkpoint changed when another was taken", buffer)
                put(kernel, take(other))
                expect_unchanged("a held checkpoint changed when another was restored", alias)
                put(kernel, held)
                advance(kernel, subject.steps)
                expect_unchanged("a restored checkpoint changed while the kernel advanced", adopted)

        subject.for_every(check, stop=subject.stop())

    @obligation
    def test_resumed_fresh(self) -> None:
        """Resume equals never stopped, restored into a fresh kernel."""
        _check_resuming(self._subject, self._subject.kernel)

    @obligation
    def test_resumed_used(self) -> None:
        """Resume equals never stopped, restored into a used kernel."""
        _check_resuming(self._subject, self._subject.used_kernel)

    @obligation
    def test_restoring_twice_is_once(self) -> None:
        """Restoring twice is the same as once."""
        subject = self._subject

        def check(stop: int) -> None:
            with subject.kernel(stop) as kernel, subject.used_kernel() as other:
                checkpoint = take(kernel)
                put(other, checkpoint)
                once = subject.state(other)
                put(other, checkpoint)
                cause = "restore() adds to what is there, or changes the checkpoint"
                what = "restored a second time, it holds something else"
                expect_same(once, subject.state(other), what, cause)
                what = "restored a second time, it ends in another state"
                subject.expect_end(other, what, cause)

        subject.for_every(check, stop=subject.stop())

    @obligation
    def test_refuses_whole(self) -> None:
        """Restore is all or nothing: a wrong checkpoint is refused, and nothing has changed."""
        subject = self._subject
        with subject.kernel() as kernel, subject.kernel(subject.steps) as later:
            good, other = take(later), take(kernel)
            for wrong in wrong_checkpoints(good, other, subject.cls):
                expect_refused(subject, kernel, wrong, subject.state(kernel))

    @obligation
    def test_stored_and_back(self) -> None:
        """A round trip through a file and through every store gives the same."""
        subject = self._subject

        def check(stop: int) -> None:
            with tempfile.TemporaryDirectory() as folder, subject.kernel(stop) as kernel:
                checkpoint = take(kernel)
                before = copy_of(checkpoint, subject.cls)
                path = Path(folder) / "checkpoint.safetensors"
                with errors_reported_as("it cannot be stored"):
                    save_file(checkpoint, path, cls=subject.cls)
                    loaded = [("a file", load_file(path, subject.cls))]
                    for store in (MemoryStore(), LocalStore(Path(folder) / "store")):
                        name = archive.save(store, checkpoint, 0, cls=subject.cls).name
                        loaded.append((repr(store), archive.load(store, name, subject.cls)))
                for medium, back in loaded:
                    what = f"what came back from {medium} is something else"
                    cause = "a validator or property that changes values"
                    expect_same(before, copy_of(back, subject.cls), what, cause)
                with subject.kernel() as resumed:
                    put(resumed, loaded[0][1])
                    what = "resumed from a file, it ends in another state"
                    subject.expect_end(resumed, what, "as for resuming")

        subject.for_every(check, stop=subject.stop())

    @obligation
    def test_not_now(self) -> None:
        """While can_checkpoint() is false, a save raises NotNow and does nothing."""
        subject = self._subject
        with subject.kernel() as kernel:
            for _ in range(subject.steps):
                if not isinstance(getattr(kernel, "can_checkpoint", bool)(), bool):
                    cause = "return True or False"
                    raise broken("can_checkpoint() did not return a bool", cause=cause)
                if not can_checkpoint(kernel):
                    _expect_not_now(subject, kernel)
                kernel.advance(1)
            advance(kernel, 0)
            before = subject.state(kernel)
            _expect_not_now(subject, _Busy(kernel))
            what = "a save that was refused changed it"
            expect_same(before, subject.state(kernel), what, "checkpoint() was begun")

    @obligation
    def test_size_is_estimated(self) -> None:
        """The size estimate, if it is not 0, is within a factor of two of the file.

        The lower bound leaves out the file's header, since a small state's file is mostly header.
        """
        subject = self._subject
        for steps in (0, subject.steps):
            with subject.kernel(steps) as kernel:
                estimate, store = checkpoint_size_estimate(kernel), MemoryStore()
                entry = archive.save(store, take(kernel), 0, cls=subject.cls)
                header = archive.read_header(store, entry.name)
            minimum = (entry.size - header.data_offset) // 2
            if estimate and not minimum <= estimate <= 2 * entry.size:
                what = f"the estimate is {estimate} bytes, and the file has {entry.size}"
                cause = "bytes, not elements: count what checkpoint() returns, nbytes of each array"
                raise broken(what, where=f"after {steps} steps", cause=cause)

    @obligation
    def test_survives_anything(self) -> None:
        """Any order of advance, checkpoint, restore, save, load and failure ends in the same bits.

        Random histories; after each call the state is compared with that of an uninterrupted run.
        """
        run_machine(self._subject)


def verify_kernel(
    make: Callable[[], SteppableKernel[C]],
    *,
    scramble: Callable[[SteppableKernel[C]], None] = scramble_by_advancing,
    steps: int = 12,
    settings: hypothesis.settings = SETTINGS,
) -> None:
    """Check every obligation of the kernels that `make()` gives; silent if all is well.

    `make` gives a fresh kernel each time, all of them alike, small enough for hundreds of runs of
    `steps` steps. `scramble` brings one into some other state before something is restored into it.

    Raises `ObligationBroken`, an `AssertionError`, for the first obligation that does not hold.

    >>> import attrs, numpy as np
    >>> @attrs.frozen
    ... class WalkCheckpoint:
    ...     step: int
    ...     at: np.ndarray
    >>> class Walk:
    ...     def __init__(self) -> None:
    ...         self.step, self.at = 0, np.zeros(2)
    ...     def advance(self, steps: int) -> None:
    ...         self.step += steps
    ...         self.at += steps
    ...     async def checkpoint(self) -> WalkCheckpoint:
    ...         return WalkCheckpoint(self.step, self.at)
    ...     async def restore(self, checkpoint: WalkCheckpoint) -> None:
    ...         self.step, self.at[:] = checkpoint.step, checkpoint.at
    >>> try:
    ...     verify_kernel(Walk)
    ... except AssertionError as broken:
    ...     print(broken)
    A checkpoint shares nothing with the live state
      broken: a held checkpoint changed while the kernel advanced
      where: WalkCheckpoint.at[0]: 12.0, not 0.0
      usual cause: 'at' aliases live state: copy it in checkpoint(), or use capture()
    """
    tests = KernelTests[C]()
    tests._subject = Subject(make, scramble, steps, settings)
    for test in obligations_of(KernelTests):
        test(tests)


def _check_resuming(subject: Subject, target: Callable[[], AbstractContextManager[Any]]) -> None:
    def resume(kernel: Any, stops: list[int], left: list[int]) -> None:
        if not left:
            what = f"stopped at {stops} and resumed, it ends in another state"
            subject.expect_end(kernel, what, lambda _: _what_is_forgotten(subject, target, stops))
            return
        subject.reach(kernel, left[0])
        checkpoint = take(kernel)
        before = copy_of(checkpoint, subject.cls)
        with target() as resumed:
            with errors_reported_as("restore() refused a good checkpoint"):
                put(resumed, checkpoint)
            expect_same(
                before,
                subject.state(resumed),
                "what was restored is not what the checkpoint held",
                lambda where: f"restore() does not set {field_of(where)!r}: use reinstate()",
            )
            resume(resumed, stops, left[1:])

    def check(stops: list[int]) -> None:
        with subject.kernel() as kernel:
            resume(kernel, stops, stops)

    subject.for_every(check, stops=subject.stops())


def _what_is_forgotten(
    subject: Subject, target: Callable[[], AbstractContextManager[Any]], stops: list[int]
) -> str:
    """Name the attributes in which a resumed kernel differs from one that was never stopped."""
    fields = {field.name for field in fields_of(subject.cls)}
    for stop in stops:
        with subject.kernel(stop) as kernel, target() as resumed:
            put(resumed, take(kernel))
            names = differing_attributes(kernel, resumed)
        forgotten = [name for name in names if name.partition(".")[0] not in fields]
        if forgotten:
            listed = ", ".join(map(repr, forgotten))
            return f"the run depends on {listed}, and the checkpoint does not hold it"
    return "the run depends on what the checkpoint does not hold: an RNG, a parity, a cache"


class _Busy:
    """A kernel at a moment at which it cannot be checkpointed."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernel, name)

    def can_checkpoint(self) -> bool:
        return False


def _expect_not_now(subject: Subject, kernel: Any) -> None:
    store: Store = MemoryStore()
    try:
        complete(Checkpointer(kernel, store, timeout=0, cls=subject.cls).save()).result()
    except NotNow:
        if not list(store.list()):
            return
        raise broken("a save raised NotNow, but stored something") from None
    except Exception as error:
        what = f"a save ended in {type(error).__name__}: {error}"
        raise broken(what, cause="checkpoint() was begun all the same") from error
    raise broken("a save succeeded", cause="can_checkpoint() changes its mind")
