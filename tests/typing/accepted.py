"""What a user may reasonably write, and what mypy must then infer."""

# The bodies do not matter here.
# mypy: disable-error-code="empty-body"

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Generic, TypeVar, assert_type

import numpy as np
from attrs import frozen
from hypothesis import strategies as st
from numpy.typing import NDArray

from checkpointable import (
    Array,
    Checkpointable,
    CheckpointableKernel,
    Checkpointer,
    Coordinator,
    Due,
    GpuKernel,
    HealthStatus,
    Keep,
    KeptStep,
    KernelMetadata,
    LazyArray,
    LocalStore,
    MemoryStore,
    Moment,
    MpiCoordinator,
    Report,
    Restored,
    Saved,
    Saving,
    Shard,
    SteppableKernel,
    Store,
    When,
    archive,
    capture,
    checkpoint,
    every,
    last,
    load_file,
    migrate,
    open_store,
    reinstate,
    run,
    save_file,
)
from checkpointable.stores.protocol import Buffer, Entry, Reader
from checkpointable.testing import (
    FaultyStore,
    KernelTests,
    StoreTests,
    checkpoints,
    verify_kernel,
    verify_store,
)
from tests.typing.third_party import Count, CountCheckpoint, Stepper, Walk, WalkCheckpoint

T = TypeVar("T")

# --- arrays --------------------------------------------------------------------------------------


@frozen
class HeatCheckpoint:
    step: int
    field: Array[np.float32]


@frozen
class Loose:
    any_array: Array[Any]
    real: Array[np.floating[Any]]


def arrays(
    typed: NDArray[np.float32],
    matrix: np.ndarray[tuple[int, int], np.dtype[np.float32]],
    untyped: np.ndarray,
) -> None:
    for heat in (HeatCheckpoint(0, typed), HeatCheckpoint(0, matrix), HeatCheckpoint(0, untyped)):
        assert_type(heat.field.dtype, np.dtype[np.float32])
        assert_type(np.asarray(heat.field), NDArray[np.float32])
    Loose(typed, matrix)
    Loose(np.arange(3), np.zeros(3))
    device: Any = typed  # numba and CuPy have no types
    HeatCheckpoint(0, device)


# --- kernels that inherit nothing ----------------------------------------------------------------


class Heat:
    def __init__(self, field: NDArray[np.float32]) -> None:
        self.step = 0
        self.field = field

    def advance(self, steps: int) -> None:
        self.step += steps

    async def checkpoint(self) -> HeatCheckpoint:
        return await capture(HeatCheckpoint, self)

    async def restore(self, checkpoint: HeatCheckpoint) -> None:
        await reinstate(checkpoint, self)


class FullHeat(Heat):
    @property
    def metadata(self) -> KernelMetadata:
        return KernelMetadata("heat")

    def validate(self) -> None: ...

    def health_check(self) -> HealthStatus:
        return HealthStatus()

    def shutdown(self) -> None: ...

    def can_checkpoint(self) -> bool:
        return True

    def checkpoint_size_estimate(self) -> int:
        return 0


def saved_class(kernel: Checkpointable[T]) -> type[T]: ...


def full_class(kernel: CheckpointableKernel[T]) -> type[T]: ...


def stepped_class(kernel: SteppableKernel[T]) -> type[T]: ...


def probe(kernel: GpuKernel) -> None: ...


def kernels(heat: Heat, full: FullHeat) -> None:
    assert_type(saved_class(heat), type[HeatCheckpoint])
    assert_type(stepped_class(heat), type[HeatCheckpoint])
    assert_type(saved_class(full), type[HeatCheckpoint])
    assert_type(full_class(full), type[HeatCheckpoint])
    assert_type(stepped_class(full), type[HeatCheckpoint])
    probe(full)
    assert_type(saved_class(Walk()), type[WalkCheckpoint])
    assert_type(stepped_class(Walk()), type[WalkCheckpoint])
    assert_type(stepped_class(Stepper()), type[WalkCheckpoint])
    assert_type(saved_class(Count()), type[CountCheckpoint])
    assert_type(stepped_class(Inheriting()), type[HeatCheckpoint])
    named: Checkpointable[HeatCheckpoint] = heat
    named = Inheriting()
    assert_type(saved_class(named), type[HeatCheckpoint])


# --- kernels that inherit the contract -----------------------------------------------------------


class Inheriting(CheckpointableKernel[HeatCheckpoint], SteppableKernel[HeatCheckpoint]):
    """Writes what has no default; validate, health_check and the rest come with the contract."""

    done = 0

    @property
    def step(self) -> int:  # for pyright a property must stay one where it is inherited
        return self.done

    @property
    def metadata(self) -> KernelMetadata:
        return KernelMetadata("heat")

    def advance(self, steps: int) -> None:
        self.done += steps

    async def checkpoint(self) -> HeatCheckpoint:
        return HeatCheckpoint(self.step, np.zeros(3, np.float32))

    async def restore(self, checkpoint: HeatCheckpoint) -> None:
        self.done = checkpoint.step


class Careful(Inheriting):
    def validate(self) -> None:
        super().validate()

    def health_check(self) -> HealthStatus:
        return super().health_check()

    def can_checkpoint(self) -> bool:
        return super().can_checkpoint() and self.step > 0


def provided(kernel: Inheriting) -> None:
    kernel.validate()
    kernel.shutdown()
    assert_type(kernel.health_check(), HealthStatus)
    assert_type(kernel.can_checkpoint(), bool)
    assert_type(kernel.checkpoint_size_estimate(), int)
    assert_type(full_class(Careful()), type[HeatCheckpoint])


# --- generic and derived checkpoints -------------------------------------------------------------


@frozen
class Box(Generic[T]):
    content: T


class Boxed(Generic[T]):
    def __init__(self, content: T) -> None:
        self.content = content

    async def checkpoint(self) -> Box[T]:
        return Box(self.content)

    async def restore(self, checkpoint: Box[T]) -> None:
        self.content = checkpoint.content


def generics(path: Path) -> None:
    assert_type(saved_class(Boxed(3)), type[Box[int]])
    assert_type(Checkpointer(Boxed(3), path, cls=Box[int]), Checkpointer[Box[int]])
    assert_type(load_file(path, Box[int]), Box[int])


# --- stores --------------------------------------------------------------------------------------


class Shelf:
    """A store that inherits nothing."""

    def create(self, name: str, size: int, chunks: Iterable[Buffer]) -> None: ...

    def open(self, name: str) -> AbstractContextManager[Reader]: ...

    def list(self) -> Iterator[Entry]: ...

    def delete(self, name: str) -> None: ...

    def lock(self) -> AbstractContextManager[None]: ...


def stores(path: Path, heat: Heat) -> None:
    for store in (LocalStore(path), MemoryStore(), Shelf(), open_store(path)):
        assert_type(open_store(store), Store)
        assert_type(Checkpointer(heat, store), Checkpointer[HeatCheckpoint])
    Checkpointer(heat, "memory://")
    Checkpointer(heat, path)


# --- what comes out ------------------------------------------------------------------------------


async def results(heat: Heat, full: FullHeat, path: Path, store: Store) -> None:
    checkpointer = Checkpointer(heat, store, timeout=3)
    assert_type(checkpointer, Checkpointer[HeatCheckpoint])
    assert_type(Checkpointer(heat, store, cls=HeatCheckpoint), Checkpointer[HeatCheckpoint])
    assert_type(Checkpointer(full, path), Checkpointer[HeatCheckpoint])
    assert_type(Checkpointer(Walk(), path), Checkpointer[WalkCheckpoint])
    assert_type(checkpointer.cls, type[HeatCheckpoint])
    assert_type(await checkpointer.save(), Saving)
    assert_type(await (await checkpointer.save()), Saved)
    assert_type((await checkpointer.save()).result(), Saved)
    assert_type(await checkpointer.restore_latest(), Restored | None)
    assert_type(await checkpointer.restore(3), Restored)
    assert_type(await capture(HeatCheckpoint, heat), HeatCheckpoint)
    assert_type(load_file(path, HeatCheckpoint), HeatCheckpoint)
    assert_type(load_file(path, HeatCheckpoint, arrays="lazy"), HeatCheckpoint)
    assert_type(Checkpointer(heat, store, delta=True), Checkpointer[HeatCheckpoint])
    assert_type(await checkpointer.save(full=True), Saving)
    save_file(await heat.checkpoint(), path, step=3)
    assert_type(archive.load(store, "name", HeatCheckpoint), HeatCheckpoint)
    actual = archive.latest(store, HeatCheckpoint)
    assert_type(actual, archive.Found[HeatCheckpoint] | None)
    if actual is not None:
        assert_type(actual.checkpoint, HeatCheckpoint)
        assert_type(actual.checkpoint.step, int)


class OnEven(When):
    def due(self, moment: Moment) -> Due:
        return Due.SOON if moment.step % 2 == 0 else Due.NO


@frozen
class Recent(Keep):
    since: float

    def choose(self, past: Sequence[KeptStep]) -> list[int]:
        return [one.step for one in past if one.created >= self.since]


def runs(heat: Heat, path: Path) -> None:
    assert_type(run(heat, "runs/heat", until=100), Report)
    assert_type(run(Walk(), path, 100, save=every(seconds=30), keep=last(3)), Report)
    run(Walk(), path, 100, save=OnEven() | every(seconds=30), keep=Recent(0.0) | last(3))
    run(heat, path, 100, delta=True, full=every(steps=1000))
    run(Stepper(), MemoryStore(), 100, cls=WalkCheckpoint, on_progress=print, on_event=print)
    run(Inheriting(), path, until=100, on_progress=lambda progress: progress.rate)


# --- many ranks ----------------------------------------------------------------------------------


@frozen
class RowsCheckpoint:
    step: int
    rows: Shard[np.float32]


class Rows:
    def __init__(self) -> None:
        self.step = 0
        self.own = np.zeros((3, 4), np.float32)

    @property
    def rows(self) -> Shard[np.float32]:
        return Shard(self.own, shape=(12, 4), offset=(3, 0))

    def advance(self, steps: int) -> None:
        self.step += steps

    async def checkpoint(self) -> RowsCheckpoint:
        return await capture(RowsCheckpoint, self)

    async def restore(self, checkpoint: RowsCheckpoint) -> None:
        assert_type(checkpoint.rows, Shard[np.float32])
        self.own[:] = checkpoint.rows[self.rows.box]


class Neighbours:
    """A coordinator that is ours in nothing but its methods."""

    rank, size = 0, 1

    def gather(self, value: T, /) -> list[T]:
        return [value]

    def broadcast(self, value: T, /) -> T:
        return value

    def barrier(self) -> None: ...

    def duplicate(self) -> "Neighbours":
        return Neighbours()


def ranks() -> None:
    given: Coordinator = Neighbours()
    run(Rows(), "runs/rows", until=100, coordinator=given)
    run(Rows(), "runs/rows", until=100, coordinator=MpiCoordinator())
    assert_type(Checkpointer(Rows(), "runs/rows", coordinator=given), Checkpointer[RowsCheckpoint])


# --- the kit, and older files --------------------------------------------------------------------


class TestWalk(KernelTests[WalkCheckpoint]):
    def make(self) -> Walk:
        return Walk()

    def scramble(self, kernel: SteppableKernel[WalkCheckpoint]) -> None:
        kernel.advance(7)


class TestShelf(StoreTests):
    def make(self) -> Shelf:
        return Shelf()

    def again(self, store: Shelf) -> Shelf:
        return store


def kit() -> None:
    verify_kernel(Walk)
    verify_kernel(lambda: Heat(np.zeros(3, np.float32)), steps=5)
    verify_store(Shelf, again=lambda shelf: Shelf())
    verify_store(lambda: FaultyStore(MemoryStore(), "fail", "create", at=1))
    assert_type(checkpoints(HeatCheckpoint), st.SearchStrategy[HeatCheckpoint])


@checkpoint("walk", version=2, added={"pace": 2})
@frozen
class PacedCheckpoint:
    step: int
    pace: float = 1.0


@migrate("walk", 1)
def paced(tree: dict[str, Any]) -> dict[str, Any]:
    tree["at"] = LazyArray(np.float32, (3,), lambda: np.zeros(3, np.float32))
    return tree


assert_type(PacedCheckpoint(1).pace, float)
assert_type(paced({}), dict[str, Any])
