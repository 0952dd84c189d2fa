"""How the conformance kit says what is wrong."""

from collections.abc import Callable

from hypothesis import HealthCheck, settings


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


def words(obligation: Callable[..., None]) -> str:
    """The obligation in words: the first line of its docstring."""
    return str(obligation.__doc__).partition("\n")[0].rstrip(".")


def few(examples: int, steps: int) -> settings:
    """Settings for slow examples; `steps` is how long the histories of state machines are."""
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
