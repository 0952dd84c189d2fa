"""What the kits for kernels and for stores share."""

from collections.abc import Callable

from hypothesis import HealthCheck, settings


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
