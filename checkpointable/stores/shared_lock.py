"""A lock that the threads of one store share."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from attrs import define, field

T = TypeVar("T")


@define(eq=False)
class SharedLock(Generic[T]):
    """What the first of those that hold it takes, and the last gives back.

    >>> holds = SharedLock(lambda: print("taken"), lambda taken: print("given back"))
    >>> with holds.held(), holds.held():
    ...     print("held")
    taken
    held
    given back
    """

    _take: Callable[[], T]
    _release: Callable[[T], object]
    _taken: list[T] = field(factory=list, init=False)
    _count: int = field(default=0, init=False)
    _guard: threading.Lock = field(factory=threading.Lock, init=False)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it; raises what taking it raises."""
        with self._guard:
            if not self._count:
                self._taken.append(self._take())
            self._count += 1
        try:
            yield
        finally:
            with self._guard:
                self._count -= 1
                if not self._count:
                    self._release(self._taken.pop())
