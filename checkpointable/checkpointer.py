"""One kernel and one store: saves that overlap with the computation, and verified restores."""

import gc
import os
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from attrs import frozen

from checkpointable import archive
from checkpointable.archive import Entry, Found, Skipped, next_step
from checkpointable.arrays import Snapshot, Staging, is_on_device
from checkpointable.arrays.cuda.lost import check_not_lost
from checkpointable.capture import arrays_of
from checkpointable.distributed import Coordinator, SingleProcess, agreement, allreduce
from checkpointable.errors import DeviceError, NotNow
from checkpointable.format import check_key
from checkpointable.protocol import (
    Checkpointable,
    KernelMetadata,
    can_checkpoint,
    check_kernel,
    checkpoint_class,
    kernel_metadata,
)
from checkpointable.schema import schema_of, shard_fields
from checkpointable.stores import Store, Tiers, open_store
from checkpointable.threads import in_thread

if TYPE_CHECKING:
    from concurrent.futures import Future

    from checkpointable.distributed.checkpoints import Previous

C = TypeVar("C")
_POLL_SECONDS = 0.01


@frozen
class Saved:
    """The result of a save: `bytes` of file, durable after `seconds`.

    The kernel stood still for `stall` of them. `snapshot` says how its device arrays were copied,
    if it has any.
    """

    step: int
    name: str
    bytes: int
    seconds: float
    stall: float
    snapshot: Snapshot | None = None


class Saving:
    """A save under way: the kernel stood still for `stall` seconds, and may continue.

    `snapshot` says how its device arrays were copied, if it has any. `await` it, or call
    `result()`, which blocks, for the `Saved` when the checkpoint is durable; either raises the
    error if the save failed. `retrieved` is whether either was done.
    """

    def __init__(
        self, stall: float, future: "Future[Saved]", snapshot: Snapshot | None = None
    ) -> None:
        self.stall = stall
        self.snapshot = snapshot
        self._future = future
        self.retrieved = False

    def __repr__(self) -> str:
        return f"Saving(stall={self.stall:.6f}, done={self.done()})"

    def done(self) -> bool:
        """Whether it has ended, successfully or not."""
        return self._future.done()

    def result(self) -> Saved:
        """Wait until the checkpoint is durable; raises `InvalidCheckpoint` or `StoreError`."""
        try:
            return self._future.result()
        finally:
            self.retrieved = True

    def __await__(self) -> Generator[Any, None, Saved]:
        import asyncio  # here, since it takes a quarter of the time to import the package
        from concurrent.futures import wait

        if not self.done():  # in a thread: the waiting task may be cancelled, the save may not
            yield from asyncio.to_thread(wait, [self._future]).__await__()
        return self.result()

    def __del__(self) -> None:
        if self.done() and not self.retrieved and (error := self._future.exception()):
            what = f"a save failed and its result was never retrieved: {error}"
            warnings.warn(what, RuntimeWarning, stacklevel=2)


@frozen
class Restored:
    """The checkpoint that a restore used, and the newer ones that it skipped, each with why."""

    step: int
    name: str
    skipped: Skipped = ()


class Checkpointer(Generic[C]):
    """Saves one kernel to one store while the kernel continues, and restores it.

    One save is under way at a time: the next save, a restore and `close` wait for it, and re-raise
    its error if it was not retrieved. The kernel is copied into memory that is reused by the next
    save. `async with` closes it.

    `store` is a directory, "memory://" or a store. `timeout` is how many seconds a save waits
    for a kernel that cannot be checkpointed at the moment. `cls`, the checkpoint's class, is by
    default read from the annotation of the kernel's `checkpoint`. With a `key` of at least 16
    random bytes, checkpoints are signed, and any others count as damaged. With `in_place` a restore
    reads straight into the kernel's own arrays, as `load_file(..., into=kernel)` does: if it fails,
    restore the kernel again or make a new one. With `delta` a save stores only the blocks that
    have changed since the last save or restore, as `archive.save` describes. The kernel and the
    class are checked at once: `InvalidKernel`, `UnsupportedType`.

    Device arrays that `capture` takes are copied on their devices if that leaves `reserve` bytes
    free there, else to pinned host memory, or any host memory if there is not enough of it:
    `Saving.snapshot` says which. They are digested on the device, and what must be stored is
    copied from it while the kernel continues. A restore reads them to where the kernel has them
    and verifies them there before the kernel gets them, as `LazyArray`s. What is needed for arrays
    that the kernel has already is compiled now, so that no save waits for it; `release` gives the
    memory back.

    With a `coordinator` of many ranks all of them call each method, in the same order; it returns
    or raises the same on all. A save stores the `Shard`s of every rank, and everything else once; a
    restore gives each rank its part, from however many ranks the checkpoint was saved.

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
    >>> async def save() -> Saved:
    ...     saving = await checkpointer.save()
    ...     kernel.step = 9  # it may continue
    ...     return await saving
    >>> asyncio.run(save()).name
    'step-000000000005.safetensors'
    >>> asyncio.run(checkpointer.restore_latest()).step, kernel.step
    (5, 5)
    """

    def __init__(
        self,
        kernel: Checkpointable[C],
        store: str | os.PathLike[str] | Store,
        *,
        timeout: float = 10.0,
        cls: type[C] | None = None,
        key: bytes | None = None,
        in_place: bool = False,
        delta: bool = False,
        reserve: int = 256 << 20,
        coordinator: Coordinator | None = None,
    ) -> None:
        check_kernel(kernel)
        check_key(key)
        self.kernel = kernel
        self.store = open_store(store)
        self.timeout = timeout
        self.key = key
        self.in_place = in_place
        self.delta = delta
        self.cls: type[C] = checkpoint_class(kernel) if cls is None else cls
        schema_of(self.cls)
        self.coordinator = SingleProcess() if coordinator is None else coordinator
        # On one rank, too, if there are shards: the checkpoint can then be restored on many ranks.
        self._sharded = self.coordinator.size > 1 or bool(shard_fields(self.cls))
        if self.coordinator.size > 1:
            from checkpointable.distributed import checkpoints  # slow to import, and few need it

            checkpoints.of_rank(1, self.store)  # raises if the store is not for many ranks
        self._save_ranks = self.coordinator.duplicate()  # saves run in a thread of their own
        self._previous: Previous | None = None
        self._staging = Staging(reserve)
        self._saving: Saving | None = None
        self._base: str | None = None
        self._prepare()

    def _prepare(self) -> None:
        """Compile what copies the kernel's device arrays, so that no save stalls for that."""
        if arrays := [a for a in self._arrays().values() if is_on_device(a)]:
            from checkpointable.arrays.cuda import snapshot  # which imports Numba

            with suppress(DeviceError):  # a save will raise it
                snapshot.prepare(arrays)

    def release(self) -> None:
        """Give back the memory that is kept from one save to the next, but what is in use.

        That is memory of the devices, and of the host, pinned or not. The next save allocates it
        again. It may wait for all that runs on the devices.
        """
        self._staging.release()

    async def __aenter__(self) -> "Checkpointer[C]":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Wait for the save under way, if any, and re-raise its error.

        With a `Tiered` store, wait also until the slow tier has it, or fails.
        """
        await self._await_previous()
        if isinstance(self.store, Tiers):
            await in_thread(self.store.flush)

    async def _await_previous(self) -> None:
        saving = self._saving
        if saving is not None:
            retrieved = saving.retrieved
            try:
                await saving
            except Exception:
                if not retrieved:
                    raise
            finally:
                if saving.done():
                    self._saving = None

    async def save(self, step: int | None = None, *, full: bool = False) -> Saving:
        """Take a checkpoint, and store it while the kernel continues; `await` the returned save.

        `step` is by default the kernel's `step`, or, if it has none, the one after the newest in
        the store. `full=True` forces a full checkpoint.

        Raises `NotNow` if the kernel's `can_checkpoint` stays false for `timeout` seconds. The
        returned save raises `InvalidCheckpoint` if the kernel's checkpoint is not of its class,
        and `StoreError`; either may raise `DeviceError`. In each case nothing was stored, and what
        was there before still is. After `DeviceLost` every save raises it.
        """
        from concurrent.futures import ThreadPoolExecutor

        await self._await_previous()
        agreement.on_all(self.coordinator, check_not_lost)
        await self._wait_until_possible()
        begin, self._staging.snapshot = time.perf_counter(), None
        with self._staging.in_use(), _collector_paused():
            checkpoint, metadata = await self._take()
        number = getattr(self.kernel, "step", None) if step is None else step
        stall, snapshot = time.perf_counter() - begin, self._staging.snapshot
        stall = allreduce(self.coordinator, stall, max)

        def store() -> Saved:
            stored_step = None if number is None else int(number)
            entry = self._store(checkpoint, stored_step, metadata, delta=self.delta and not full)
            seconds = self._save_ranks.broadcast(time.perf_counter() - begin)
            return Saved(entry.step, entry.name, entry.size, seconds, stall, snapshot)

        pool = ThreadPoolExecutor(1, "checkpointable-save")
        self._saving = Saving(stall, pool.submit(store), snapshot)
        pool.shutdown(wait=False)  # when the save has ended
        return self._saving

    async def _take(self) -> tuple[C, KernelMetadata | None]:
        """Return the kernel's checkpoint and metadata; if that fails on one rank, all raise."""

        async def take() -> tuple[C, KernelMetadata | None]:
            return await self.kernel.checkpoint(), kernel_metadata(self.kernel)

        if self.coordinator.size == 1:
            return await take()
        attempt = await agreement.attempted(self.coordinator.rank, take())
        return agreement.agreed(self.coordinator, attempt)

    def _store(
        self, checkpoint: C, step: int | None, kernel: KernelMetadata | None, *, delta: bool
    ) -> Entry:
        options: dict[str, Any] = {"kernel": kernel, "cls": self.cls, "key": self.key}
        if self._sharded:
            from checkpointable.distributed import checkpoints

            previous, ranks = self._previous if delta else None, self._save_ranks
            entry, self._previous = checkpoints.save(
                self.store, checkpoint, step, coordinator=ranks, previous=previous, **options
            )
            return entry
        step = next_step(self.store) if step is None else step
        base = self._base if delta else None
        entry = archive.save(self.store, checkpoint, step, base=base, **options)
        self._base = entry.name
        return entry

    async def restore_latest(
        self, on_read: Callable[[str], object] | None = None
    ) -> Restored | None:
        """Restore the newest valid checkpoint; returns None if the store has no checkpoint.

        `on_read` is called with the name of each checkpoint before it is read.

        Raises `NoCheckpoint` if there are checkpoints but none is valid; `SchemaMismatch` if the
        newest valid one is of another class or version; and what the kernel's `restore` raises.
        """
        await self._await_previous()
        with self._staging.in_use():
            if self.coordinator.size > 1:
                return await self._restore_sharded(None, on_read)
            loaded = await in_thread(
                lambda: archive.latest(
                    self.store, self.cls, key=self.key, into=self._into(), on_read=on_read
                )
            )
            return None if loaded is None else await self._restore(loaded)

    async def restore(self, step: int) -> Restored:
        """Restore the checkpoint of one step; raises `NoCheckpoint` if there is none."""
        await self._await_previous()
        with self._staging.in_use():
            if self.coordinator.size > 1:
                restored = await self._restore_sharded(step, None)
                assert restored is not None  # or it would have raised
                return restored
            loaded = await in_thread(
                lambda: archive.at_step(self.store, step, self.cls, key=self.key, into=self._into())
            )
            return await self._restore(loaded)

    def _into(self) -> dict[str, Any]:
        """The kernel's arrays that a checkpoint may be read to: all, or those on devices."""
        if self.in_place:
            return arrays_of(self.cls, self.kernel)
        return {name: array for name, array in self._arrays().items() if is_on_device(array)}

    def _arrays(self) -> dict[str, Any]:
        try:
            return arrays_of(self.cls, self.kernel)
        except Exception:  # the kernel keeps its state elsewhere, or has none yet
            return {}

    async def _restore_sharded(
        self, step: int | None, on_read: Callable[[str], object] | None
    ) -> Restored | None:
        from checkpointable.distributed import checkpoints

        restored = await checkpoints.restore(
            self.store, self.kernel, self.cls, coordinator=self.coordinator, step=step,
            key=self.key, on_read=on_read,
        )  # fmt: skip
        self._previous = None
        if restored is None:
            return None
        entry, skipped = restored
        return Restored(entry.step, entry.name, skipped)

    async def _restore(self, loaded: Found[C]) -> Restored:
        await self.kernel.restore(loaded.checkpoint)
        self._base = loaded.entry.name
        return Restored(loaded.entry.step, loaded.entry.name, loaded.skipped)

    async def _wait_until_possible(self) -> None:
        """Wait until the kernels of all ranks can be checkpointed; the first timeout ends it."""
        import asyncio

        deadline = time.monotonic() + self.timeout
        while True:
            ready = agreement.on_all(self.coordinator, lambda: can_checkpoint(self.kernel))
            status = (not ready, time.monotonic() >= deadline)
            wait, late = allreduce(self.coordinator, status, _any_of_each)
            if not wait:
                return
            if late:
                raise NotNow(
                    f"the kernel could not be checkpointed for {self.timeout:g} seconds",
                    where=type(self.kernel).__qualname__,
                    hint="try again later, or raise timeout=",
                )
            await asyncio.sleep(_POLL_SECONDS)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Let no garbage be collected: that can take a tenth of a second, while the kernel waits."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _any_of_each(pairs: list[tuple[bool, bool]]) -> tuple[bool, bool]:
    return any(one for one, _ in pairs), any(two for _, two in pairs)
