"""The obligations of a kernel about saving: by what it returns, when it may, and how much it is."""

import tempfile
from pathlib import Path
from typing import Any

from checkpointable import archive
from checkpointable.checkpointer import Checkpointer
from checkpointable.errors import NotNow
from checkpointable.files import load_file, save_file
from checkpointable.protocol import can_checkpoint, checkpoint_size_estimate
from checkpointable.stores import LocalStore, MemoryStore, Store
from checkpointable.testing.kernels._states import copy_of
from checkpointable.testing.kernels._subject import (
    Subject,
    advance,
    errors_blamed_on,
    expect_same,
    put,
    take,
)
from checkpointable.testing.report import ObligationBroken, words
from checkpointable.threads import complete


def stored_and_back(subject: Subject) -> None:
    """A round trip through a file and through every store gives the same."""
    said = words(stored_and_back)

    def check(place: int) -> None:
        with tempfile.TemporaryDirectory() as folder, subject.kernel(place) as kernel:
            checkpoint = take(kernel)
            before = copy_of(checkpoint, subject.cls)
            path = Path(folder) / "checkpoint.safetensors"
            with errors_blamed_on(said, "it cannot be stored", ""):
                save_file(checkpoint, path, cls=subject.cls)
                loaded = [("a file", load_file(path, subject.cls))]
                for store in (MemoryStore(), LocalStore(Path(folder) / "store")):
                    name = archive.save(store, checkpoint, 0, cls=subject.cls).name
                    loaded.append((repr(store), archive.load(store, name, subject.cls)))
            for place_name, back in loaded:
                what = f"what came back from {place_name} is something else"
                cause = "a validator or property that changes values"
                expect_same(said, before, copy_of(back, subject.cls), what, cause)
            with subject.kernel() as resumed:
                put(resumed, loaded[0][1])
                end = subject.never_stopped(subject.steps)
                what, cause = "resumed from a file, it ends elsewhere", "as for resuming"
                expect_same(said, end, subject.end(resumed), what, cause)

    subject.for_every(check, place=subject.place())


def not_now(subject: Subject) -> None:
    """While can_checkpoint() is false, a save raises NotNow and does nothing."""
    said = words(not_now)
    with subject.kernel() as kernel:
        for _ in range(subject.steps):
            if not isinstance(getattr(kernel, "can_checkpoint", bool)(), bool):
                cause = "return True or False"
                raise ObligationBroken(said, "can_checkpoint() returned no bool", cause=cause)
            if not can_checkpoint(kernel):
                _expect_not_now(said, subject, kernel)
            kernel.advance(1)
        advance(kernel, 0)
        before = subject.state(kernel)
        _expect_not_now(said, subject, _Busy(kernel))
        what = "a save that was refused changed it"
        expect_same(said, before, subject.state(kernel), what, "checkpoint() was begun")


class _Busy:
    """A kernel at a moment at which it cannot be checkpointed."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernel, name)

    def can_checkpoint(self) -> bool:
        return False


def _expect_not_now(said: str, subject: Subject, kernel: Any) -> None:
    store: Store = MemoryStore()
    try:
        complete(Checkpointer(kernel, store, patience=0, cls=subject.cls).save()).result()
    except NotNow:
        if not list(store.list()):
            return
        raise ObligationBroken(said, "a save raised NotNow, but stored something") from None
    except Exception as error:
        what = f"a save ended in {type(error).__name__}: {error}"
        raise ObligationBroken(said, what, cause="checkpoint() was begun all the same") from error
    raise ObligationBroken(said, "a save went through", cause="can_checkpoint() changes its mind")


def size_is_estimated(subject: Subject) -> None:
    """The size estimate, if it is not 0, is within a factor of two of the file.

    What the file's header takes is left out below, since a small state's file is mostly header.
    """
    said = words(size_is_estimated)
    for steps in (0, subject.steps):
        with subject.kernel(steps) as kernel:
            estimate, store = checkpoint_size_estimate(kernel), MemoryStore()
            entry = archive.save(store, take(kernel), 0, cls=subject.cls)
            header = archive.read_header(store, entry.name)
        least = (entry.size - header.data_offset) // 2
        if estimate and not least <= estimate <= 2 * entry.size:
            what = f"it says {estimate} bytes, and the file has {entry.size}"
            cause = "bytes, not elements: count what checkpoint() returns, nbytes of each array"
            raise ObligationBroken(said, what, where=f"after {steps} steps", cause=cause)
