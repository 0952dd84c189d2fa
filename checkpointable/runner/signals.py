"""Signals that ask a run to stop, or to save; and the safe points at which it does.

A signal only leaves a note: Python takes it at any moment, also in the middle of a step. The run
looks at it between two calls of `advance`, and a kernel may look within one: `safe_point`.
"""

import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any

_CURRENT: ContextVar["Signals | None"] = ContextVar("checkpointable_signals", default=None)


class Signals:
    """The signals that have come in: one of `stop` ends the run, one of `save` has it saved.

    `stopped_by` is the first of `stop` that came, at `stopped_at` by the clock; `asked` those of
    `save` that came since it was emptied. `agree` says of many ranks whether any has one to wait
    for, the same to all.
    """

    def __init__(
        self, stop: Collection[int], save: Collection[int], clock: Callable[[], float]
    ) -> None:
        self.stop = frozenset(stop) - frozenset(save)
        self.save = frozenset(save)
        self.stopped_by: int | None = None
        self.stopped_at = 0.0
        self.asked: set[int] = set()
        self.told = False
        self.agree: Callable[[bool], bool] = bool
        self._clock = clock

    def came(self, number: int) -> None:
        """Note a signal; raises `KeyboardInterrupt` at a SIGINT after one that stops the run."""
        if number in self.save:
            self.asked.add(number)
        elif self.stopped_by is None:
            self.stopped_at = self._clock()
            self.stopped_by = number
        elif number == signal.SIGINT:
            raise KeyboardInterrupt

    def stopped_ago(self) -> float:
        """How many seconds ago the signal came that stops the run; 0 if none has."""
        return 0.0 if self.stopped_by is None else self._clock() - self.stopped_at

    def wanted(self) -> bool:
        """Say whether one waits for a safe point."""
        return self.stopped_by is not None or bool(self.asked)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take them while the context lasts, in the main thread, and let `safe_point` know."""
        token = _CURRENT.set(self)
        try:
            with handled(sorted(self.stop | self.save), self.came):
                yield
        finally:
            _CURRENT.reset(token)


@contextmanager
def handled(numbers: Collection[int], came: Callable[[int], object]) -> Iterator[None]:
    """Call `came` for each of these signals while the context lasts, in the main thread."""
    before: dict[int, Any] = {}

    def on_signal(number: int, frame: FrameType | None) -> None:
        came(number)

    try:
        try:
            for number in numbers:
                before[number] = signal.signal(number, on_signal)
        except ValueError:  # not the main thread: the application handles signals
            pass
        yield
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)


def safe_point() -> bool:
    """Say, within `advance`, whether the run wants to save now: then return, with fewer steps done.

    For a kernel whose steps are long, or that does many at once; where it asks, its state must be
    whole. `step` counts the steps that were done. Without a run it is False. In a run of many ranks
    all ask at the same places, and all are told the same.

    >>> safe_point()
    False
    """
    signals = _CURRENT.get()
    if signals is None or not signals.agree(signals.wanted()):
        return False
    signals.told = True
    return True
