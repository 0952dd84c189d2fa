"""What both kits share: obligations, and the report of one that is broken."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings

T = TypeVar("T")


class ObligationBroken(AssertionError):
    """An obligation of the contract does not hold: what happened, where, and the usual cause.

    >>> print(ObligationBroken("Restore is all or nothing", "it took a wrong field",
    ...                        where="Heat.field", cause="restore() does not check"))
    Restore is all or nothing
      broken: it took a wrong field
      where: Heat.field
      usual cause: restore() does not check
    """

    def __init__(self, obligation: str, what: str, *, where: str = "", cause: str = "") -> None:
        super().__init__(obligation, what)
        self.obligation = obligation
        self.what = what
        self.where = where
        self.cause = cause

    def __str__(self) -> str:
        lines = [self.obligation, f"  broken: {self.what}"]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.cause:
            lines.append(f"  usual cause: {self.cause}")
        return "\n".join(lines)


def broken(what: str, *, cause: str = "", where: str = "") -> ObligationBroken:
    """Return the error of the obligation that is being tested; `obligation` names it."""
    return ObligationBroken("", what, where=where, cause=cause)


def obligation(test: Callable[[T], None]) -> Callable[[T], None]:
    """Make a method of a kit the test of an obligation, whose name is its docstring's first line.

    The error of `broken` gets that name on its way out: the very same error, since Hypothesis
    has added the failing example to it.
    """

    @wraps(test)
    def run(tests: T) -> None:
        try:
            test(tests)
        except ObligationBroken as error:
            error.obligation = error.obligation or name_of(test)
            error.args = (error.obligation, error.what)
            raise

    return run


def name_of(test: Callable[..., None]) -> str:
    """Return the name of a kit's obligation: the first line of its test's docstring."""
    return str(test.__doc__).partition("\n")[0].rstrip(".")


def obligations_of(kit: type) -> list[Callable[[Any], None]]:
    """Return the tests of a kit in order: an earlier one shows the cause of later failures."""
    return [test for name, test in vars(kit).items() if name.startswith("test_")]


def small_settings(examples: int, steps: int) -> settings:
    """Settings for slow examples; `steps` is the length of a state machine's history."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
            HealthCheck.filter_too_much,
        ],
    )
