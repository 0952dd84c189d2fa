"""A lock that the threads of one store object share."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from attrs import define, field

T = TypeVar("T")


@define(eq=False)
class SharedLock(Generic[T]):
    """Acquired by the first thread that holds it, and released by the last.

    >>> lock = SharedLock(lambda: print("acquired"), lambda resource: print("released"))
    >>> with lock.held(), lock.held():
    ...     print("held")
    acquired
    held
    released
    """

    _acquire: Callable[[], T]
    _release: Callable[[T], object]
    _acquired: list[T] = field(factory=list, init=False)
    _count: int = field(default=0, init=False)
    _guard: threading.Lock = field(factory=threading.Lock, init=False)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it within the context; raises what acquiring it raises."""
        with self._guard:
            if not self._count:
                self._acquired.append(self._acquire())
            self._count += 1
        try:
            yield
        finally:
            with self._guard:
                self._count -= 1
                if not self._count:
                    self._release(self._acquired.pop())
