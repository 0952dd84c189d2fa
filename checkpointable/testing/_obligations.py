"""The obligations of a kernel that types cannot say, one function each.

The first line of a function's docstring is the obligation in words; its failures begin with it.
"""

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from checkpointable import archive
from checkpointable.annotations import fields_of
from checkpointable.checkpointer import Checkpointer
from checkpointable.errors import NotNow
from checkpointable.protocol import (
    can_checkpoint,
    check_kernel,
    checkpoint_size_estimate,
    shutdown,
)
from checkpointable.schema import schema_of
from checkpointable.store import Store
from checkpointable.stores import LocalStore, MemoryStore
from checkpointable.testing._machine import run_machine
from checkpointable.testing._states import copy_of, differing_attributes, field_of
from checkpointable.testing._subject import (
    Subject,
    advance,
    errors_blamed_on,
    expect_same,
    put,
    take,
    wait_for,
)
from checkpointable.testing._wrong import expect_refused, wrong_checkpoints
from checkpointable.testing.report import ObligationBroken

Obligation = Callable[[Subject], None]


def words(obligation: Callable[..., None]) -> str:
    """The obligation in words: the first line of its docstring."""
    return str(obligation.__doc__).partition("\n")[0].rstrip(".")


def is_a_kernel(subject: Subject) -> None:
    """It has a kernel's methods, and checkpoints that can be stored."""
    said = words(is_a_kernel)
    one, other = subject.make(), subject.make()
    with errors_blamed_on(said, "it does not", "a method that is missing, or not async"):
        check_kernel(one, steppable=True)
        shutdown(one)
        if one is other:
            cause = "make() returns a kernel that is kept"
            raise ObligationBroken(said, "make() gave the same object twice", cause=cause)
        shutdown(other)
        schema_of(subject.cls)
    with (
        errors_blamed_on(said, "its checkpoint cannot be stored", "a field of another type"),
        subject.kernel() as kernel,
    ):
        subject.state(kernel)


def runs_agree(subject: Subject) -> None:
    """Two runs are the same, and advance(a), advance(b) is the same as advance(a + b)."""
    said = words(runs_agree)
    for steps in (0, subject.steps):
        with subject.kernel(steps) as kernel:
            expect_same(
                said,
                subject.never_stopped(steps),
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
                        raise ObligationBroken(said, what, cause="the steps are not counted")
            expect_same(
                said,
                subject.never_stopped(subject.steps),
                subject.end(kernel),
                f"advanced in parts, to {stops} and on, it ends elsewhere",
                "work at the beginning or the end of each call of advance()",
            )

    subject.for_every(check, stops=subject.stops())


def resumed_fresh(subject: Subject) -> None:
    """Resume equals never stopped, restored into a fresh kernel."""
    _check_resuming(subject, words(resumed_fresh), subject.kernel)


def resumed_used(subject: Subject) -> None:
    """Resume equals never stopped, restored into a used kernel."""
    _check_resuming(subject, words(resumed_used), subject.used_kernel)


def _check_resuming(
    subject: Subject, said: str, target: Callable[[], AbstractContextManager[Any]]
) -> None:
    def go_on(kernel: Any, stops: list[int], left: list[int]) -> None:
        if not left:
            expect_same(
                said,
                subject.never_stopped(subject.steps),
                subject.end(kernel),
                f"stopped at {stops} and resumed, it ends elsewhere",
                lambda _: _forgotten(subject, target, stops),
            )
            return
        subject.reach(kernel, left[0])
        checkpoint = take(kernel)
        before = copy_of(checkpoint, subject.cls)
        with target() as resumed:
            with errors_blamed_on(said, "restore() refused a good checkpoint", ""):
                put(resumed, checkpoint)
            expect_same(
                said,
                before,
                subject.state(resumed),
                "what was restored is not what the checkpoint held",
                lambda where: f"restore() does not set {field_of(where)!r}: use reinstate()",
            )
            go_on(resumed, stops, left[1:])

    def check(stops: list[int]) -> None:
        with subject.kernel() as kernel:
            go_on(kernel, stops, stops)

    subject.for_every(check, stops=subject.stops())


def _forgotten(
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


def held_is_unchanged(subject: Subject) -> None:
    """A checkpoint shares nothing with the live state."""
    said = words(held_is_unchanged)
    alias = "{!r} aliases live state: copy it in checkpoint(), or use capture()"
    buffer = "checkpoint() fills the same {!r} each time: make a new one"
    adopted = "restore() keeps the checkpoint's own {!r}: copy it in, or use reinstate()"

    def check(place: int) -> None:
        with subject.kernel(place) as kernel, subject.kernel(3) as other:
            held = take(kernel)
            before = copy_of(held, subject.cls)

            def expect(what: str, cause: str) -> None:
                found = copy_of(held, subject.cls)
                expect_same(said, before, found, what, lambda at: cause.format(field_of(at)))

            advance(kernel, subject.steps)
            expect("a held checkpoint changed while the kernel advanced", alias)
            take(kernel)
            expect("a held checkpoint changed when another was taken", buffer)
            put(kernel, take(other))
            expect("a held checkpoint changed when another was restored", alias)
            put(kernel, held)
            advance(kernel, subject.steps)
            expect("a restored checkpoint changed while the kernel advanced", adopted)

    subject.for_every(check, place=subject.place())


def taking_changes_nothing(subject: Subject) -> None:
    """Taking a checkpoint does not change the run."""
    said = words(taking_changes_nothing)

    def check(stops: list[int]) -> None:
        with subject.kernel() as kernel:
            for stop in stops:
                subject.reach(kernel, stop)
                take(kernel)
            expect_same(
                said,
                subject.never_stopped(subject.steps),
                subject.end(kernel),
                f"with checkpoints taken at {stops}, it ends elsewhere",
                "checkpoint() draws from the RNG, swaps buffers, or changes what the run uses",
            )

    subject.for_every(check, stops=subject.stops())


def restoring_twice_is_once(subject: Subject) -> None:
    """Restoring twice is the same as once."""
    said = words(restoring_twice_is_once)

    def check(place: int) -> None:
        with subject.kernel(place) as kernel, subject.used_kernel() as other:
            checkpoint = take(kernel)
            put(other, checkpoint)
            once = subject.state(other)
            put(other, checkpoint)
            cause = "restore() adds to what is there, or changes the checkpoint"
            what = "restored a second time, it holds something else"
            expect_same(said, once, subject.state(other), what, cause)
            what = "restored a second time, it ends elsewhere"
            end = subject.never_stopped(subject.steps)
            expect_same(said, end, subject.end(other), what, cause)

    subject.for_every(check, place=subject.place())


def refuses_whole(subject: Subject) -> None:
    """Restore is all or nothing: a wrong checkpoint is refused, and nothing has changed."""
    said = words(refuses_whole)
    with subject.kernel() as kernel, subject.kernel(subject.steps) as later:
        good, other = take(later), take(kernel)
        for wrong in wrong_checkpoints(good, other, subject.cls):
            expect_refused(said, subject, kernel, wrong, subject.state(kernel))


def stored_and_back(subject: Subject) -> None:
    """A round trip through a file and through every store gives the same."""
    said = words(stored_and_back)

    def check(place: int) -> None:
        with tempfile.TemporaryDirectory() as folder, subject.kernel(place) as kernel:
            checkpoint = take(kernel)
            before = copy_of(checkpoint, subject.cls)
            path = Path(folder) / "checkpoint.safetensors"
            with errors_blamed_on(said, "it cannot be stored", ""):
                archive.save_file(checkpoint, path, cls=subject.cls)
                loaded = [("a file", archive.load_file(path, subject.cls))]
                for store in (MemoryStore(), LocalStore(Path(folder) / "store")):
                    name = archive.save(store, checkpoint, 0, cls=subject.cls).name
                    loaded.append((repr(store), archive.load(store, name, subject.cls)))
            for place_name, back in loaded:
                what = f"what came back from {place_name} is something else"
                cause = "a validator or property that changes values"
                expect_same(said, before, copy_of(back, subject.cls), what, cause)
            with subject.kernel() as resumed:
                put(resumed, loaded[0][1])
                end = subject.never_stopped(subject.steps)
                what, cause = "resumed from a file, it ends elsewhere", "as for resuming"
                expect_same(said, end, subject.end(resumed), what, cause)

    subject.for_every(check, place=subject.place())


def not_now(subject: Subject) -> None:
    """While can_checkpoint() is false, a save raises NotNow and does nothing."""
    said = words(not_now)
    with subject.kernel() as kernel:
        for _ in range(subject.steps):
            if not isinstance(getattr(kernel, "can_checkpoint", bool)(), bool):
                cause = "return True or False"
                raise ObligationBroken(said, "can_checkpoint() returned no bool", cause=cause)
            if not can_checkpoint(kernel):
                _expect_not_now(said, subject, kernel)
            kernel.advance(1)
        advance(kernel, 0)
        before = subject.state(kernel)
        _expect_not_now(said, subject, _Busy(kernel))
        what = "a save that was refused changed it"
        expect_same(said, before, subject.state(kernel), what, "checkpoint() was begun")


class _Busy:
    """A kernel at a moment at which it cannot be checkpointed."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernel, name)

    def can_checkpoint(self) -> bool:
        return False


def _expect_not_now(said: str, subject: Subject, kernel: Any) -> None:
    store: Store = MemoryStore()
    try:
        wait_for(Checkpointer(kernel, store, patience=0, cls=subject.cls).save())
    except NotNow:
        if not list(store.list()):
            return
        raise ObligationBroken(said, "a save raised NotNow, but stored something") from None
    except Exception as error:
        what = f"a save ended in {type(error).__name__}: {error}"
        raise ObligationBroken(said, what, cause="checkpoint() was begun all the same") from error
    raise ObligationBroken(said, "a save went through", cause="can_checkpoint() changes its mind")


def size_is_estimated(subject: Subject) -> None:
    """The size estimate, if it is not 0, is within a factor of two of the file.

    What the file's header takes is left out below, since a small state's file is mostly header.
    """
    said = words(size_is_estimated)
    for steps in (0, subject.steps):
        with subject.kernel(steps) as kernel:
            estimate, store = checkpoint_size_estimate(kernel), MemoryStore()
            entry = archive.save(store, take(kernel), 0, cls=subject.cls)
            header = archive.read_header(store, entry.name)
        offsets = [header.digests_offset, *(a.offset for a in header.arrays.values())]
        least = (entry.size - min(offsets)) // 2
        if estimate and not least <= estimate <= 2 * entry.size:
            what = f"it says {estimate} bytes, and the file has {entry.size}"
            cause = "bytes, not elements: count what checkpoint() returns, nbytes of each array"
            raise ObligationBroken(said, what, where=f"after {steps} steps", cause=cause)


def survives_anything(subject: Subject) -> None:
    """Any order of advance, checkpoint, restore, save, load and failure ends in the same bits."""
    run_machine(subject, words(survives_anything))


OBLIGATIONS: tuple[Obligation, ...] = (
    is_a_kernel,
    runs_agree,
    taking_changes_nothing,
    held_is_unchanged,
    resumed_fresh,
    resumed_used,
    restoring_twice_is_once,
    refuses_whole,
    stored_and_back,
    not_now,
    size_is_estimated,
    survives_anything,
)
"""All of them; an earlier one is the likelier cause of a failure that later ones show, too."""
