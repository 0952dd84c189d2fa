"""What saves and restores say of themselves, while they are under way and at their end."""

import warnings
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from attrs import frozen

from checkpointable.archive import Skipped
from checkpointable.device.staging import Snapshot

if TYPE_CHECKING:
    from concurrent.futures import Future


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
