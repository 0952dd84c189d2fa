"""One kernel and one store: saves beside the computation, and restores that verify."""

import os
import time
import warnings
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from attrs import frozen

from checkpointable import archive
from checkpointable.archive import Entry, Found, Skipped, next_step
from checkpointable.arrays import Snapshot, Staging, is_on_device
from checkpointable.arrays.cuda.lost import check_not_lost
from checkpointable.capture import arrays_of
from checkpointable.distributed import Coordinator, SingleProcess, agreement, allreduce
from checkpointable.errors import NotNow
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

if TYPE_CHECKING:
    from checkpointable.distributed.checkpoints import Previous

C = TypeVar("C")
R = TypeVar("R")
_POLL_SECONDS = 0.01


@frozen
class Saved:
    """What a save did: `bytes` of file, `seconds` until durable, of which the kernel stood
    still for `stall` seconds. `snapshot` says how its device arrays were copied, if it has any."""

    step: int
    name: str
    bytes: int
    seconds: float
    stall: float
    snapshot: Snapshot | None = None


class Saving:
    """A save under way, for which the kernel stood still for `stall` seconds and no longer has to.

    `snapshot` says how its device arrays were copied, if it has any.

    Awaited, it gives `Saved` when the checkpoint is durable, or raises why it is not; so does
    `result()`, which blocks. `told` says whether either has been done.
    """

    def __init__(
        self, stall: float, future: "Future[Saved]", snapshot: Snapshot | None = None
    ) -> None:
        self.stall = stall
        self.snapshot = snapshot
        self._future = future
        self.told = False

    def __repr__(self) -> str:
        return f"Saving(stall={self.stall:.6f}, done={self.done()})"

    def done(self) -> bool:
        """Say whether it has ended, well or not."""
        return self._future.done()

    def result(self) -> Saved:
        """Wait until the checkpoint is durable; raises `InvalidCheckpoint` and `StoreError`."""
        try:
            return self._future.result()
        finally:
            self.told = True

    def __await__(self) -> Generator[Any, None, Saved]:
        import asyncio  # here, since it takes a quarter of the time to import the package
        from concurrent.futures import wait

        if not self.done():  # in a thread: who waits may be cancelled, and the save may not
            yield from asyncio.to_thread(wait, [self._future]).__await__()
        return self.result()

    def __del__(self) -> None:
        if self.done() and not self.told and (error := self._future.exception()):
            warnings.warn(f"a save failed, and nobody asked: {error}", RuntimeWarning, stacklevel=2)


@frozen
class Restored:
    """What a restore used, and the newer checkpoints that it passed over, each with why."""

    step: int
    name: str
    skipped: Skipped = ()


class Checkpointer(Generic[C]):
    """Saves one kernel to one store while it goes on, and restores it.

    One save is under way at a time: the next one, a restore and `close` wait for it, and raise what
    it failed with if nobody has been told. The kernel is copied into memory that is used again for
    the next save. `async with` closes at its end.

    `store` is a directory, "memory://" or a store. `timeout` is how many seconds a save waits
    for a kernel that cannot be checkpointed at the moment. `cls`, the checkpoint's class, is read
    from the annotation of the kernel's `checkpoint` if not given. With a `key`, of at least 16
    random bytes, checkpoints are signed, and those that are not count as damaged. With `in_place` a
    restore reads straight into the kernel's own arrays, as `load_file(..., into=kernel)` does: if
    it fails, the kernel has to be restored again, or made anew. With `delta` a save stores only the
    blocks that have changed since the last save or restore, as `archive.save` describes. Kernel and
    class are checked at once: `InvalidKernel`, `UnsupportedType`.

    Device arrays that `capture` takes are copied on their devices, if `reserve` bytes stay free
    there, else to pinned or, if there is not enough of that, any host memory: `Saving.snapshot`
    says which. On the device they are digested, and what has to be stored is fetched, while the
    kernel goes on. In a restore they are read to where the kernel has them, and verified there,
    before the kernel gets them; like those of `capture` they are `LazyArray`s, then.

    With a `coordinator` of many ranks each method is called by all of them, in the same order, and
    does the same on all or raises the same: a save stores the `Shard`s of all and once what is
    none, and a restore gives each its part, from however many ranks it was saved.

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
    ...     kernel.step = 9  # it may go on
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
        # By one rank, too, if it has shards: what they are saved as can be restored on many.
        self._sharded = self.coordinator.size > 1 or bool(shard_fields(self.cls))
        if self.coordinator.size > 1:
            from checkpointable.distributed import checkpoints  # which takes a while, and few need

            checkpoints.of_rank(1, self.store)  # raises if it is not for many ranks
        self._beside = self.coordinator.twin()  # for saves, which go on in a thread of their own
        self._previous: Previous | None = None
        self._staging = Staging(reserve)
        self._saving: Saving | None = None
        self._base: str | None = None

    async def __aenter__(self) -> "Checkpointer[C]":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Wait for the save under way, if one is; raises what it failed with.

        Of a `Tiered` store also until the slow tier has it, or fails.
        """
        await self._await_previous()
        if isinstance(self.store, Tiers):
            await in_thread(self.store.flush)

    async def _await_previous(self) -> None:
        saving = self._saving
        if saving is not None:
            told = saving.told
            try:
                await saving
            except Exception:
                if not told:
                    raise
            finally:
                if saving.done():
                    self._saving = None

    async def save(self, step: int | None = None, *, full: bool = False) -> Saving:
        """Take a checkpoint, and store it while the kernel goes on; `await` the result to the end.

        `step` names it; without, it is the kernel's `step`, and for a kernel that counts none
        the one after the newest in the store. `full` is for one that is no delta.

        Raises `NotNow` if the kernel's `can_checkpoint` stays false for `timeout` seconds. What
        it returns raises `InvalidCheckpoint` if what the kernel gives is not of its class, and
        `StoreError`; either raises `DeviceError`. In each case nothing was stored, and what was
        there before still is. After `DeviceLost` every save raises it.
        """
        from concurrent.futures import ThreadPoolExecutor

        await self._await_previous()
        agreement.on_all(self.coordinator, check_not_lost)
        await self._wait_until_possible()
        begin, self._staging.snapshot = time.perf_counter(), None
        with self._staging.in_use():
            checkpoint, metadata = await self._taken()
        number = getattr(self.kernel, "step", None) if step is None else step
        stall, snapshot = time.perf_counter() - begin, self._staging.snapshot
        stall = allreduce(self.coordinator, stall, max)

        def store() -> Saved:
            at = None if number is None else int(number)
            entry = self._store(checkpoint, at, metadata, delta=self.delta and not full)
            seconds = self._beside.broadcast(time.perf_counter() - begin)
            return Saved(entry.step, entry.name, entry.size, seconds, stall, snapshot)

        pool = ThreadPoolExecutor(1, "checkpointable-save")
        self._saving = Saving(stall, pool.submit(store), snapshot)
        pool.shutdown(wait=False)  # when the save has ended
        return self._saving

    async def _taken(self) -> tuple[C, KernelMetadata | None]:
        """The kernel's checkpoint, and what it is; if it fails on one rank, all raise that."""

        async def take() -> tuple[C, KernelMetadata | None]:
            return await self.kernel.checkpoint(), kernel_metadata(self.kernel)

        if self.coordinator.size == 1:
            return await take()
        mine = await agreement.attempted(self.coordinator.rank, take())
        return agreement.agreed(self.coordinator, mine)

    def _store(
        self, checkpoint: C, step: int | None, kernel: KernelMetadata | None, *, delta: bool
    ) -> Entry:
        about: dict[str, Any] = {"kernel": kernel, "cls": self.cls, "key": self.key}
        if self._sharded:
            about |= {"previous": self._previous if delta else None, "coordinator": self._beside}
            from checkpointable.distributed import checkpoints

            entry, self._previous = checkpoints.save(self.store, checkpoint, step, **about)
            return entry
        step = next_step(self.store) if step is None else step
        base = self._base if delta else None
        entry = archive.save(self.store, checkpoint, step, base=base, **about)
        self._base = entry.name
        return entry

    async def restore_latest(
        self, on_read: Callable[[str], object] | None = None
    ) -> Restored | None:
        """Restore the newest checkpoint that verifies; None if the store has none at all.

        `on_read` is told the name of each before it is read.

        Raises `NoCheckpoint` if there are some, but none verifies; `SchemaMismatch` if the newest
        sound one is of another class or version; and what the kernel's `restore` raises.
        """
        await self._await_previous()
        with self._staging.in_use():
            if self.coordinator.size > 1:
                return await self._restore_together(None, on_read)
            found = await in_thread(
                lambda: archive.latest(
                    self.store, self.cls, key=self.key, into=self._into(), on_read=on_read
                )
            )
            return None if found is None else await self._restore(found)

    async def restore(self, step: int) -> Restored:
        """Restore the checkpoint of one step; raises `NoCheckpoint` if there is none."""
        await self._await_previous()
        with self._staging.in_use():
            if self.coordinator.size > 1:
                restored = await self._restore_together(step, None)
                assert restored is not None  # or it would have raised
                return restored
            found = await in_thread(
                lambda: archive.at_step(self.store, step, self.cls, key=self.key, into=self._into())
            )
            return await self._restore(found)

    def _into(self) -> dict[str, Any]:
        """The kernel's arrays that a checkpoint may be read to: all, or those on devices."""
        if self.in_place:
            return arrays_of(self.cls, self.kernel)
        try:
            found = arrays_of(self.cls, self.kernel)
        except Exception:  # of a kernel that keeps its state elsewhere, or that has none yet
            return {}
        return {name: array for name, array in found.items() if is_on_device(array)}

    async def _restore_together(
        self, step: int | None, on_read: Callable[[str], object] | None
    ) -> Restored | None:
        from checkpointable.distributed import checkpoints

        found = await checkpoints.restore(
            self.store, self.kernel, self.cls, coordinator=self.coordinator, step=step,
            key=self.key, on_read=on_read,
        )  # fmt: skip
        self._previous = None
        return None if found is None else Restored(found[0].step, found[0].name, found[1])

    async def _restore(self, found: Found[C]) -> Restored:
        await self.kernel.restore(found.checkpoint)
        self._base = found.entry.name
        return Restored(found.entry.step, found.entry.name, found.skipped)

    async def _wait_until_possible(self) -> None:
        """Wait until the kernels of all ranks can be checkpointed, or the timeout of one ends."""
        import asyncio

        give_up = time.monotonic() + self.timeout
        while True:
            ready = agreement.on_all(self.coordinator, lambda: can_checkpoint(self.kernel))
            mine = (not ready, time.monotonic() >= give_up)
            wait, late = allreduce(self.coordinator, mine, _any_of_each)
            if not wait:
                return
            if late:
                raise NotNow(
                    f"the kernel could not be checkpointed for {self.timeout:g} seconds",
                    where=type(self.kernel).__qualname__,
                    hint="try again later, or raise timeout=",
                )
            await asyncio.sleep(_POLL_SECONDS)


def _any_of_each(said: list[tuple[bool, bool]]) -> tuple[bool, bool]:
    return any(one for one, _ in said), any(two for _, two in said)
