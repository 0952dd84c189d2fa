"""One kernel and one store: saves that wait for the right moment, and restores that verify."""

import os
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from attrs import frozen

from checkpointable import archive
from checkpointable.archive import Found, Skipped
from checkpointable.digests import check_key
from checkpointable.errors import NotNow
from checkpointable.protocol import (
    Checkpointable,
    can_checkpoint,
    check_kernel,
    checkpoint_class,
    kernel_metadata,
)
from checkpointable.schema import schema_of
from checkpointable.store import Store
from checkpointable.stores import open_store

C = TypeVar("C")
R = TypeVar("R")
_POLL_SECONDS = 0.01


@frozen
class Saved:
    """What a save did: `bytes` of file, `seconds` until durable, of which the kernel stood
    still for `stall` seconds."""

    step: int
    name: str
    bytes: int
    seconds: float
    stall: float


@frozen
class Restored:
    """What a restore used, and the newer checkpoints that it passed over, each with why."""

    step: int
    name: str
    skipped: Skipped = ()


class Checkpointer(Generic[C]):
    """Saves one kernel to one store, and restores it.

    `store` is a directory, "memory://" or a store. `patience` is how many seconds a save waits
    for a kernel that cannot be checkpointed at the moment. `cls`, the checkpoint's class, is read
    from the annotation of the kernel's `checkpoint` if not given. With a `key`, of at least 16
    random bytes, checkpoints are signed, and those that are not count as damaged. Kernel and class
    are checked at once: `InvalidKernel`, `UnsupportedType`.

    >>> import asyncio, attrs
    >>> @attrs.frozen
    ... class CounterCheckpoint:
    ...     step: int
    >>> class Counter:
    ...     step = 0
    ...     async def checkpoint(self) -> CounterCheckpoint:
    ...         return CounterCheckpoint(self.step)
    ...     async def restore(self, checkpoint: CounterCheckpoint) -> None:
    ...         self.step = checkpoint.step
    >>> kernel = Counter()
    >>> checkpointer = Checkpointer(kernel, "memory://")
    >>> kernel.step = 5
    >>> asyncio.run(checkpointer.save()).name
    'step-000000000005.safetensors'
    >>> kernel.step = 9
    >>> asyncio.run(checkpointer.restore_latest()).step, kernel.step
    (5, 5)
    """

    def __init__(
        self,
        kernel: Checkpointable[C],
        store: str | os.PathLike[str] | Store,
        *,
        patience: float = 10.0,
        cls: type[C] | None = None,
        key: bytes | None = None,
    ) -> None:
        check_kernel(kernel)
        check_key(key)
        self.kernel = kernel
        self.store = open_store(store)
        self.patience = patience
        self.key = key
        self.cls: type[C] = checkpoint_class(kernel) if cls is None else cls
        schema_of(self.cls)

    async def save(self, step: int | None = None) -> Saved:
        """Take a checkpoint and store it; durable when this returns.

        `step` names it; without, it is the kernel's `step`, and for a kernel that counts none
        the one after the newest in the store.

        Raises `NotNow` if the kernel's `can_checkpoint` stays false for `patience` seconds,
        `InvalidCheckpoint` if what the kernel returns is not of its class, and `StoreError`. In
        each case nothing was stored, and what was there before still is.
        """
        await self._wait_until_possible()
        begin = time.perf_counter()
        checkpoint = await self.kernel.checkpoint()
        stall = time.perf_counter() - begin
        if step is None:
            step = getattr(self.kernel, "step", None)
        if step is None:
            found = await _in_thread(lambda: archive.entries(self.store))
            step = found[-1].step + 1 if found else 0
        number, metadata = int(step), kernel_metadata(self.kernel)
        entry = await _in_thread(
            lambda: archive.save(
                self.store, checkpoint, number, kernel=metadata, cls=self.cls, key=self.key
            )
        )
        return Saved(number, entry.name, entry.size, time.perf_counter() - begin, stall)

    async def restore_latest(self) -> Restored | None:
        """Restore the newest checkpoint that verifies; None if the store has none at all.

        Raises `NoCheckpoint` if there are some, but none verifies; `SchemaMismatch` if the newest
        sound one is of another class or version; and what the kernel's `restore` raises.
        """
        found = await _in_thread(lambda: archive.latest(self.store, self.cls, key=self.key))
        return None if found is None else await self._restore(found)

    async def restore(self, step: int) -> Restored:
        """Restore the checkpoint of one step; raises `NoCheckpoint` if there is none."""
        found = await _in_thread(lambda: archive.at_step(self.store, step, self.cls, key=self.key))
        return await self._restore(found)

    async def _restore(self, found: Found[C]) -> Restored:
        await self.kernel.restore(found.checkpoint)
        return Restored(found.entry.step, found.entry.name, found.skipped)

    async def _wait_until_possible(self) -> None:
        import asyncio

        give_up = time.monotonic() + self.patience
        while not can_checkpoint(self.kernel):
            if time.monotonic() >= give_up:
                raise NotNow(
                    f"the kernel could not be checkpointed for {self.patience:g} seconds",
                    where=type(self.kernel).__qualname__,
                    hint="try again later, or raise patience=",
                )
            await asyncio.sleep(_POLL_SECONDS)


async def _in_thread(work: Callable[[], R]) -> R:
    """Run `work` beside the event loop; if cancelled, let it end first: it may hold the lock."""
    import asyncio  # here, since it takes a quarter of the time to import the package

    task: asyncio.Task[Any] = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        result: R = await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
    return result


def complete(work: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine to its end, also where a loop is running already, as in a notebook."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
