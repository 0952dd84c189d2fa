"""What mypy must refuse: each ignored line is one error, and the only one."""

# The bodies do not matter here.
# mypy: disable-error-code="empty-body"

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from hypothesis import strategies as st
from numpy.typing import NDArray

from checkpointable import (
    Array,
    Checkpointable,
    CheckpointableKernel,
    Checkpointer,
    GpuKernel,
    KernelMetadata,
    Shard,
    SteppableKernel,
    archive,
    capture,
    load_file,
    migrate,
    open_store,
    run,
    save_file,
)
from checkpointable.stores.protocol import Buffer, Entry, Reader
from checkpointable.testing import KernelTests, checkpoints, verify_kernel, verify_store


@frozen
class State:
    step: int
    field: Array[np.float64]


@frozen
class Other:
    step: int


class Sound:
    step = 0

    def advance(self, steps: int) -> None: ...

    async def checkpoint(self) -> State: ...

    async def restore(self, checkpoint: State) -> None: ...


class SyncCheckpoint:
    def checkpoint(self) -> State: ...

    async def restore(self, checkpoint: State) -> None: ...


class SyncRestore:
    async def checkpoint(self) -> State: ...

    def restore(self, checkpoint: State) -> None: ...


class RestoresOther:
    async def checkpoint(self) -> State: ...

    async def restore(self, checkpoint: Other) -> None: ...


class RestoresNothing:
    async def checkpoint(self) -> State: ...


class RestoresWithMore:
    async def checkpoint(self) -> State: ...

    async def restore(self, checkpoint: State, strict: bool) -> None: ...


class CountsInText:
    step = "0"

    def advance(self, steps: int) -> None: ...

    async def checkpoint(self) -> State: ...

    async def restore(self, checkpoint: State) -> None: ...


class StepIsMethod:
    def step(self) -> int: ...

    def advance(self, steps: int) -> None: ...

    async def checkpoint(self) -> State: ...

    async def restore(self, checkpoint: State) -> None: ...


class AdvancesByName:
    step = 0

    def advance(self, name: str) -> None: ...

    async def checkpoint(self) -> State: ...

    async def restore(self, checkpoint: State) -> None: ...


class AdvancesByNothing:
    step = 0

    def advance(self) -> None: ...

    async def checkpoint(self) -> State: ...

    async def restore(self, checkpoint: State) -> None: ...


class AdvancesLater:
    step = 0

    async def advance(self, steps: int) -> None: ...

    async def checkpoint(self) -> State: ...

    async def restore(self, checkpoint: State) -> None: ...


def kernels(path: Path) -> None:
    Checkpointer(SyncCheckpoint(), path)  # type: ignore[arg-type]
    Checkpointer(SyncRestore(), path)  # type: ignore[arg-type]
    Checkpointer(RestoresOther(), path)  # type: ignore[misc]
    Checkpointer(RestoresNothing(), path)  # type: ignore[arg-type]
    Checkpointer(RestoresWithMore(), path)  # type: ignore[arg-type]
    Checkpointer(object(), path)  # type: ignore[arg-type]
    Checkpointer(Sound, path)  # type: ignore[arg-type]
    Checkpointer(Sound(), path, cls=Other)  # type: ignore[misc]
    run(CountsInText(), path, until=3)  # type: ignore[arg-type]
    run(StepIsMethod(), path, until=3)  # type: ignore[arg-type]
    run(AdvancesByName(), path, until=3)  # type: ignore[arg-type]
    run(AdvancesByNothing(), path, until=3)  # type: ignore[arg-type]
    run(AdvancesLater(), path, until=3)  # type: ignore[arg-type]
    run(RestoresNothing(), path, until=3)  # type: ignore[arg-type]
    run(Sound(), path, until=3, cls=Other)  # type: ignore[misc]
    run(Sound(), path, until="3")  # type: ignore[arg-type]


def protocols(sound: Sound, loose: Checkpointable[object]) -> None:
    other: Checkpointable[Other] = sound  # type: ignore[assignment]
    wider: Checkpointable[object] = sound  # type: ignore[assignment]
    narrower: Checkpointable[State] = loose  # type: ignore[assignment]
    full: CheckpointableKernel[State] = sound  # type: ignore[assignment]
    probed: GpuKernel = sound  # type: ignore[assignment]
    print(other, wider, narrower, full, probed)


class Unfinished(CheckpointableKernel[State]):
    @property
    def metadata(self) -> KernelMetadata:
        return KernelMetadata("unfinished")


class Uncounted(SteppableKernel[State]):
    async def checkpoint(self) -> State: ...

    async def restore(self, checkpoint: State) -> None: ...


class Contrary(Checkpointable[State]):
    def checkpoint(self) -> State: ...  # type: ignore[override]

    async def restore(self, checkpoint: Other) -> None: ...  # type: ignore[override]


def made() -> None:
    Unfinished()  # type: ignore[abstract]
    Uncounted()  # type: ignore[abstract]
    KernelMetadata(id=3)  # type: ignore[arg-type]


class NoLock:
    def create(self, name: str, size: int, chunks: Iterable[Buffer]) -> None: ...

    def open(self, name: str) -> AbstractContextManager[Reader]: ...

    def list(self) -> Iterator[Entry]: ...

    def delete(self, name: str) -> None: ...


class ListsNames(NoLock):
    def lock(self) -> AbstractContextManager[None]: ...

    def list(self) -> Iterator[str]: ...  # type: ignore[override]


def stores() -> None:
    open_store(NoLock())  # type: ignore[arg-type]
    open_store(ListsNames())  # type: ignore[arg-type]
    Checkpointer(Sound(), NoLock())  # type: ignore[arg-type]
    run(Sound(), NoLock(), until=3)  # type: ignore[arg-type]
    archive.latest("runs/heat", State)  # type: ignore[arg-type]


class NoTwin:
    rank, size = 0, 1

    def gather(self, value: object, /) -> list[object]: ...

    def broadcast(self, value: object, /) -> object: ...

    def barrier(self) -> None: ...


def ranks() -> None:
    run(Sound(), "runs/heat", until=3, coordinator=NoTwin())  # type: ignore[arg-type]
    Shard(np.zeros(3), (3,))  # type: ignore[call-arg]


def arrays(single: NDArray[np.float32]) -> None:
    State(0, single)  # type: ignore[arg-type]
    State(0, [1.0])  # type: ignore[arg-type]


async def results(path: Path) -> None:
    one: Other = load_file(path, State)  # type: ignore[assignment]
    two: Other = await capture(State, Sound())  # type: ignore[arg-type]
    await Sound().restore(load_file(path, Other))  # type: ignore[arg-type]
    load_file(path)  # type: ignore[call-arg]
    load_file(path, State, arrays="later")  # type: ignore[arg-type]
    save_file(State(0, np.zeros(3)), path, 3)  # type: ignore[call-arg]
    print(one, two)


class TestsOther(KernelTests[Other]):
    def make(self) -> Sound: ...  # type: ignore[override]


def kit() -> None:
    verify_kernel(SyncCheckpoint)  # type: ignore[arg-type]
    verify_kernel(Sound())  # type: ignore[arg-type]
    verify_store(NoLock)  # type: ignore[arg-type]
    values: st.SearchStrategy[Other] = checkpoints(State)  # type: ignore[arg-type]
    print(values)


@migrate("state", 1)  # type: ignore[type-var]
def lost(tree: dict[str, Any]) -> None: ...
