"""Signals that ask a run to stop or to save, and the safe points at which it does.

The handler only records a signal, since Python may run it in the middle of a step. The run looks
at it between two calls of `advance`, and a kernel may look within one: `safe_point`.
"""

import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any

_CURRENT: ContextVar["Signals | None"] = ContextVar("checkpointable_signals", default=None)


class Signals:
    """The signals that a run has received: one of `stop` ends it, one of `save` has it saved.

    `stopped_by` is the first of `stop` that came, at `stopped_at` by the clock; `requested` holds
    those of `save` that came since it was emptied. `announced` is whether `safe_point` has returned
    True since it was set to False. `agree` gets whether this rank has a pending signal, and returns
    whether any rank has.
    """

    def __init__(
        self,
        stop: Collection[int],
        save: Collection[int],
        clock: Callable[[], float],
        agree: Callable[[bool], bool] = bool,
    ) -> None:
        self.stop = frozenset(stop) - frozenset(save)
        self.save = frozenset(save)
        self.stopped_by: int | None = None
        self.stopped_at = 0.0
        self.requested: set[int] = set()
        self.announced = False
        self.agree = agree
        self._clock = clock

    def receive(self, number: int) -> None:
        """Record a signal; raises `KeyboardInterrupt` at a SIGINT after one that stops the run."""
        if number in self.save:
            self.requested.add(number)
        elif self.stopped_by is None:
            self.stopped_at = self._clock()
            self.stopped_by = number
        elif number == signal.SIGINT:
            raise KeyboardInterrupt

    def stopped_ago(self) -> float:
        """How many seconds ago the signal that stops the run came; 0 if none has."""
        return 0.0 if self.stopped_by is None else self._clock() - self.stopped_at

    def pending(self) -> bool:
        """Whether a signal waits for a safe point."""
        return self.stopped_by is not None or bool(self.requested)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals within the context, in the main thread, for `safe_point` too."""
        token = _CURRENT.set(self)
        try:
            with handled(sorted(self.stop | self.save), self.receive):
                yield
        finally:
            _CURRENT.reset(token)


@contextmanager
def handled(numbers: Collection[int], receive: Callable[[int], object]) -> Iterator[None]:
    """Call `receive` with each of these signals within the context, in the main thread."""
    before: dict[int, Any] = {}

    def on_signal(number: int, frame: FrameType | None) -> None:
        receive(number)

    try:
        try:
            for number in numbers:
                before[number] = signal.signal(number, on_signal)
        except ValueError:  # not the main thread: the application handles signals
            pass
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def safe_point() -> bool:
    """Return, within `advance`, whether the run wants to save now; if so, return from `advance`.

    For a kernel whose steps are long, or that does many at once. Its state must be consistent
    where it calls this, and its `step` must count the steps that were done, which may be fewer than
    asked for. Outside a run this is False. In a run of many ranks all must call it at the same
    places, and all get the same answer.

    >>> safe_point()
    False
    """
    signals = _CURRENT.get()
    if signals is None or not signals.agree(signals.pending()):
        return False
    signals.announced = True
    return True
