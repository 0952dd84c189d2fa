"""The obligations of a kernel that types cannot say, one function each.

The first line of a function's docstring is the obligation in words; its failures begin with it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from checkpointable.protocol import check_kernel, shutdown
from checkpointable.schema import fields_of, schema_of
from checkpointable.testing.kernels._machine import run_machine
from checkpointable.testing.kernels._saving import not_now, size_is_estimated, stored_and_back
from checkpointable.testing.kernels._states import copy_of, differing_attributes, field_of
from checkpointable.testing.kernels._subject import (
    Subject,
    advance,
    errors_blamed_on,
    expect_same,
    put,
    take,
)
from checkpointable.testing.kernels._wrong import expect_refused, wrong_checkpoints
from checkpointable.testing.report import ObligationBroken, words

Obligation = Callable[[Subject], None]


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
