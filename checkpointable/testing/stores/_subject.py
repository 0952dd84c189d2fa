"""A store under test: how to make it, look into it, and say what is wrong."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attrs import define
from hypothesis import settings

from checkpointable.stores import Store
from checkpointable.testing.report import ObligationBroken, words


@define(eq=False)
class StoreSubject:
    """What is tested: `make` gives new, empty stores; `again` opens the same place once more."""

    make: Callable[[], Store]
    again: Callable[[Any], Store | None]
    settings: settings


def read(store: Store, name: str) -> bytes:
    """All bytes of a blob."""
    with store.open(name) as reader:
        buffer = bytearray(reader.size)
        reader.read_into(0, memoryview(buffer))
    return bytes(buffer)


def listed(store: Store) -> dict[str, int]:
    """The sizes of all blobs, by name."""
    return {entry.name: entry.size for entry in store.list()}


def expect(
    promise: Callable[..., None], good: bool, what: str, cause: str, where: str = ""
) -> None:
    """Raise `ObligationBroken` unless it is good."""
    if not good:
        raise ObligationBroken(words(promise), what, where=where, cause=cause)


@contextmanager
def expect_raises(
    promise: Callable[..., None], error: type[Exception], where: str, cause: str
) -> Iterator[None]:
    """Raise `ObligationBroken` unless the block raises this error."""
    try:
        yield
    except error:
        return
    except ObligationBroken:
        raise
    except Exception as other:  # whatever a stranger's store raises
        raised = f"{type(other).__name__}: {other}"
        what = f"it raised {raised}, not {error.__name__}"
        raise ObligationBroken(words(promise), what, where=where, cause=cause) from other
    what = f"it went through, and has to raise {error.__name__}"
    raise ObligationBroken(words(promise), what, where=where, cause=cause)
