"""Saves and restores that fail on one rank, in every way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from checkpointable import Checkpointer, KernelMetadata, MemoryStore, Shard, StoreFull, open_store
from checkpointable.archive import is_sharded
from checkpointable.arrays.cuda import lost
from checkpointable.errors import CheckpointableError
from checkpointable.stores.protocol import Store
from tests.distributed.common import RANK, RANKS, Troubled, in_short, note
from tests.distributed.waves import SHAPE, Waves, WavesCheckpoint, is_right


class Failing(Waves):
    """Waves that can be made to fail, or to lie, in what a save or a restore asks of them."""

    def __init__(self, cut: str = "rows") -> None:
        super().__init__(RANKS, cut)
        self.fails: dict[str, Exception] = {}
        self.says: dict[str, Any] = {}

    def asked(self, what: str) -> Any:
        if what in self.fails:
            raise self.fails[what]
        return self.says.get(what)

    def can_checkpoint(self) -> bool:
        return self.asked("can_checkpoint") is None

    @property
    def metadata(self) -> KernelMetadata:
        self.asked("metadata")
        return KernelMetadata(id="waves", version="1")

    @property
    def field(self) -> Shard[Any]:
        replaced: Shard[Any] | None = self.asked("field")
        return super().field if replaced is None else replaced

    async def checkpoint(self) -> WavesCheckpoint:
        return self.asked("checkpoint") or await super().checkpoint()

    async def restore(self, checkpoint: WavesCheckpoint) -> None:
        if "restore" in self.fails:
            raise self.fails.pop("restore")  # once
        await super().restore(checkpoint)


class OfMine(CheckpointableError):
    """With arguments of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(f"number {number}")


def of_a_function() -> Exception:
    class Local(StoreFull):
        pass

    return Local("it has no name elsewhere")


class ForOne(MemoryStore):
    without_lock = None  # type: ignore[assignment]


def refuse(name: str) -> None:
    raise StoreFull("no space is left", where=name, hint="delete something")


def refuse_manifest(name: str) -> None:
    if is_sharded(name):
        refuse(name)


class Case:
    """A kernel and a store that one rank is to make fail."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.kernel = Failing()
        self.kernel.advance(5)
        self.store = Troubled(open_store(place))
        self.checkpointer = Checkpointer(
            self.kernel, self.store, coordinator=RANKS, timeout=0, delta=True
        )

    def refuse_all(self) -> None:
        self.store.before = refuse

    def refuse_within(self) -> None:
        self.store.within = refuse

    def refuse_manifest(self) -> None:
        self.store.before = refuse_manifest

    def go_apart(self) -> None:
        self.checkpointer.store = open_store(f"{self.place}-apart")

    def be_for_one(self) -> None:
        self.checkpointer.store = ForOne()

    def raises(self, what: str, error: Exception) -> None:
        self.kernel.fails[what] = error

    def says(self, what: str, value: object) -> None:
        self.kernel.says[what] = value

    def lose_device(self) -> None:
        lost._lost.append("an illegal address")

    def change_array(self) -> None:
        self.kernel.table[2] += 1

    def change_value(self) -> None:
        self.kernel.name = "weaves"

    def change_step(self) -> None:
        self.kernel.step += 1

    def overlap(self) -> None:
        row, column = self.kernel.box[0]
        self.says("field", Shard(self.kernel.cells, SHAPE, (row - 1, column)))

    def grow(self) -> None:
        shape = (SHAPE[0] + 1, SHAPE[1])
        self.says("field", Shard(self.kernel.cells, shape, self.kernel.box[0]))

    def leave_gap(self) -> None:
        self.says("field", Shard(self.kernel.cells[:-1], SHAPE, self.kernel.box[0]))


BY_ZERO = ZeroDivisionError("by the kernel")
FAILURES: dict[str, tuple[int, Callable[[Case], object]]] = {
    "the store is full": (2, Case.refuse_all),
    "the store is full within": (1, Case.refuse_within),
    "the store is full at the manifest": (0, Case.refuse_manifest),
    "the stores are apart": (1, Case.go_apart),
    "the store is for one": (1, Case.be_for_one),
    "checkpoint raises": (1, lambda case: case.raises("checkpoint", BY_ZERO)),
    "checkpoint is of another class": (1, lambda case: case.says("checkpoint", BY_ZERO)),
    "metadata raises": (2, lambda case: case.raises("metadata", BY_ZERO)),
    "can_checkpoint raises": (1, lambda case: case.raises("can_checkpoint", BY_ZERO)),
    "can_checkpoint says no": (2, lambda case: case.says("can_checkpoint", False)),
    "the device is lost": (1, Case.lose_device),
    "an array differs": (1, Case.change_array),
    "a value differs": (2, Case.change_value),
    "the step differs": (1, Case.change_step),
    "shards overlap": (1, Case.overlap),
    "shards of other shapes": (1, Case.grow),
    "an element is nobody's": (2, Case.leave_gap),
    "an error of another class": (1, lambda case: case.raises("checkpoint", OfMine(7))),
    "an error of a local class": (2, lambda case: case.raises("checkpoint", of_a_function())),
}


async def failing(folder: Path, place: str) -> None:
    """Fail in each way, then save again; each in a store of its own."""
    reported = dict[str, Any]()
    for number, (what, (rank, fail)) in enumerate(FAILURES.items()):
        case = Case(f"{place}-{number}")
        sound = await outcome_of(case.checkpointer.save())
        case.kernel.advance(1)
        before = names_in(case.store)
        if rank == RANK:
            fail(case)
        error = await outcome_of(case.checkpointer.save())
        lost._lost.clear()
        new = names_in(case.store) - before
        kernel = Failing()
        kernel.advance(7)
        case.checkpointer.kernel, case.checkpointer.store = kernel, open_store(case.place)
        reported[what] = [sound, error, len(new), await outcome_of(case.checkpointer.save())]
    kernel = Failing()
    checkpointer = Checkpointer(kernel, f"{place}-0", coordinator=RANKS)
    reported["no such step"] = await outcome_of(checkpointer.restore(10**6))
    if RANK == 1:
        kernel.fails["restore"] = BY_ZERO
    reported["restore raises"] = await outcome_of(checkpointer.restore_latest())
    kernel.fails.clear()
    reported["restored after"] = await outcome_of(checkpointer.restore_latest())
    note(folder, **reported, right=is_right(kernel))


async def outcome_of(work: Any) -> str:
    """Of a save to its end, or of a restore."""
    try:
        made = await work
        if hasattr(made, "result"):
            await made
    except CheckpointableError as error:
        return in_short(error)
    return "done"


def names_in(store: Store) -> set[str]:
    """The same on all: while nobody saves."""
    RANKS.barrier()
    results = {entry.name for entry in store.list()}
    RANKS.barrier()
    return results
