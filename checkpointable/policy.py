"""When to save and what to keep: pure functions of steps and seconds."""

from collections.abc import Callable, Collection, Sequence

from attrs import frozen

Keep = Callable[[Sequence[int]], Collection[int]]
"""From the steps in a store, oldest first, to those that stay."""


@frozen
class Every:
    """Save when `steps` steps or `seconds` seconds have passed, whichever comes first."""

    steps: int | None = None
    seconds: float | None = None

    def due(self, step: int, saved_step: int, seconds_since: float) -> bool:
        """Say whether to save at `step`, the last save being of `saved_step`, so long ago."""
        if self.steps is not None and step // self.steps > saved_step // self.steps:
            return True
        return self.seconds is not None and seconds_since >= self.seconds

    def steps_left(self, step: int) -> int | None:
        """How many steps until a save is due by steps alone; None if never."""
        return None if self.steps is None else self.steps - step % self.steps


def every(*, steps: int | None = None, seconds: float | None = None) -> Every:
    """Save at each multiple of `steps`, or when `seconds` have passed since the last save.

    >>> every(steps=100).due(step=200, saved_step=150, seconds_since=0.1)
    True
    """
    if steps is None and seconds is None:
        raise ValueError("every() needs steps=, seconds=, or both")
    if steps is not None and (type(steps) is not int or steps < 1):
        raise ValueError(f"steps is {steps!r}, but must be an int from 1")
    if seconds is not None and not seconds > 0:
        raise ValueError(f"seconds is {seconds!r}, but must be above 0")
    return Every(steps, seconds)


def last(n: int) -> Keep:
    """Keep the newest `n` steps.

    >>> last(2)([10, 20, 30])
    [20, 30]
    """
    if type(n) is not int or n < 1:
        raise ValueError(f"last({n!r}): keep at least 1")
    return lambda steps: list(steps)[-n:]
