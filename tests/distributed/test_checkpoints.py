"""Checkpoints of many ranks: threads of this process, which really save and restore at once."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointable import (
    Array,
    CheckpointableError,
    Checkpointer,
    CorruptCheckpoint,
    InvalidCheckpoint,
    LocalStore,
    MemoryStore,
    NoCheckpoint,
    Shard,
    StoreFull,
    StoreLocked,
    archive,
    capture,
    last,
    reinstate,
)
from checkpointable.archive.prune import prune
from checkpointable.arrays.boxes import Box
from checkpointable.distributed import checkpoints
from checkpointable.distributed.coordinator import Coordinator
from checkpointable.format import layout
from checkpointable.format.reader import read_header
from checkpointable.stores.protocol import Store
from checkpointable.testing import FaultyStore
from tests.arrays.test_boxes import partitions, slices
from tests.helpers.equality import same
from tests.helpers.small_blocks import small_blocks
from tests.helpers.thread_ranks import on_ranks

BLOCK = 64
KEY = bytes(range(32))
SHAPES = st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple)
DTYPES = st.sampled_from(["<f8", "<i2", "|u1", "<c8"])


@pytest.fixture(autouse=True)
def _small_blocks() -> Iterator[None]:
    """Arrays of many blocks, and deltas although the headers take more than they."""
    with small_blocks(BLOCK):
        yield


@attrs.frozen
class GridCheckpoint:
    step: int
    grid: Shard[Any]
    table: Array[np.int64]


class Grid:
    """One rank's box of a global array, which each step changes a little."""

    def __init__(self, whole: np.ndarray[Any, Any], box: Box) -> None:
        self.step = 0
        self.shape, self.box = whole.shape, box
        self.local = whole[slices(box)].copy()
        self.table = np.arange(20)

    @property
    def grid(self) -> Shard[Any]:
        return Shard(self.local, self.shape, self.box[0])

    async def checkpoint(self) -> GridCheckpoint:
        return await capture(GridCheckpoint, self)

    async def restore(self, checkpoint: GridCheckpoint) -> None:
        await reinstate(checkpoint, self)


def filled(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray[Any, Any]:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(np.random.default_rng(seed).bytes(size), dtype).reshape(shape)


def rows(shape: tuple[int, ...], size: int) -> list[Box]:
    """An even share of the first axis for each rank."""
    edges = [shape[0] * rank // size for rank in range(size + 1)]
    return [((b, *[0] * len(shape[1:])), (e - b, *shape[1:])) for b, e in pairwise(edges)]


def shared(store: Store, whole: np.ndarray[Any, Any], boxes: list[Box], *, step: int = 1,
           spoil: Callable[[Grid, int], object] = lambda kernel, rank: None, **options: Any
           ) -> None:  # fmt: skip
    """Save an array by as many ranks as there are boxes."""

    def work(ranks: Coordinator) -> None:
        kernel = Grid(whole, boxes[ranks.rank])
        kernel.step = step
        spoil(kernel, ranks.rank)
        checkpointer = Checkpointer(kernel, store, coordinator=ranks, **options)
        asyncio.run(_saved(checkpointer))

    on_ranks(len(boxes), work)


async def _saved(checkpointer: Checkpointer[Any], step: int | None = None) -> Any:
    return await (await checkpointer.save(step))


def read_back(store: Store, shape: tuple[int, ...], dtype: str, boxes: list[Box], **options: Any
              ) -> tuple[np.ndarray[Any, Any], list[Any]]:  # fmt: skip
    """Restore it on as many ranks as there are boxes; the whole, and what each was told."""
    whole = np.zeros(shape, dtype)

    def work(ranks: Coordinator) -> Any:
        kernel = Grid(np.zeros(shape, dtype), boxes[ranks.rank])
        checkpointer = Checkpointer(kernel, store, coordinator=ranks, **options)
        reported = asyncio.run(checkpointer.restore_latest())
        assert same(kernel.table, np.arange(20))
        whole[slices(boxes[ranks.rank])] = kernel.local
        return reported

    return whole, on_ranks(len(boxes), work)


def header_of(store: Store, name: str) -> layout.Header:
    with store.open(name) as reader:
        return read_header(reader)


def names(store: Store) -> set[str]:
    return {entry.name for entry in store.list()}


class TestRoundTrip:
    @given(st.data(), SHAPES, DTYPES, st.integers(1, 4), st.integers(1, 4), st.booleans())
    def test_any_boxes_are_restored_as_any_others(
        self, data: st.DataObject, shape: tuple[int, ...], dtype: str, m: int, n: int, signed: bool
    ) -> None:
        whole, store = filled(shape, dtype), MemoryStore()
        options: dict[str, Any] = {"key": KEY if signed else None}
        shared(store, whole, data.draw(partitions(shape, m)), **options)
        result, reported = read_back(
            store, shape, dtype, data.draw(partitions(shape, n)), **options
        )
        assert result.tobytes() == whole.tobytes()
        assert [one.step for one in reported] == [1] * n

    @settings(max_examples=50)
    @given(st.data(), st.integers(1, 3), st.integers(1, 3))
    def test_deltas_of_each_rank(self, data: st.DataObject, m: int, n: int) -> None:
        shape, store = (6, 20), MemoryStore()
        boxes = data.draw(partitions(shape, m))
        states = [filled(shape, "<f8").copy()]
        for _ in range(3):
            states.append(states[-1].copy())
            states[-1][data.draw(st.integers(0, 5)), data.draw(st.integers(0, 19))] += 1

        def work(ranks: Coordinator) -> None:
            kernel = Grid(states[0], boxes[ranks.rank])
            checkpointer = Checkpointer(kernel, store, coordinator=ranks, delta=True)
            for kernel.step, state in enumerate(states):
                kernel.local[...] = state[slices(boxes[ranks.rank])]
                asyncio.run(_saved(checkpointer))

        on_ranks(m, work)
        prune(store, last(1))
        written = [header_of(store, name) for name in names(store)]
        data_of = [header.digests_offset - header.data_offset for header in written
                   if header.meta.step == 3]  # fmt: skip
        assert sum(data_of) <= BLOCK  # one number has changed
        result, reported = read_back(store, shape, "<f8", data.draw(partitions(shape, n)))
        assert result.tobytes() == states[-1].tobytes()
        assert reported[0].step == 3

    def test_one_process_reads_what_many_have_saved(self) -> None:
        whole, store = filled((7, 5), "<f8"), MemoryStore()
        shared(store, whole, rows((7, 5), 3))
        result = archive.latest(store, GridCheckpoint)
        assert result is not None
        assert same(result.checkpoint.grid[:], whole)
        assert result.entry.sharded
        assert archive.verify(store, result.entry.name).arrays["grid.local"].shape == (7, 5)

    def test_what_is_no_shard_is_written_once(self) -> None:
        store = MemoryStore()
        shared(store, filled((6, 5), "<f8"), rows((6, 5), 3))
        holding = []
        for name in sorted(names(store)):
            header = header_of(store, name)
            if not header.meta.sharded and "table" in header.arrays:
                holding.append(name)
        assert len(holding) == 1

    def test_a_rank_reads_the_blocks_of_its_box_alone(self, monkeypatch: Any) -> None:
        shape = (64, 32)
        whole, store = filled(shape, "<f8"), MemoryStore()
        shared(store, whole, rows(shape, 4))
        name = archive.entries(store)[0].name
        checkpoint = archive.load(store, name, GridCheckpoint, arrays="shards")
        read: list[int] = []
        original = layout.StoredArray.size

        def noted(self: layout.StoredArray, index: int) -> int:
            if self.name == "grid.local":
                read.append(index)
            return original(self, index)

        monkeypatch.setattr(layout.StoredArray, "size", noted)
        assert same(checkpoint.grid[17:18, 8:16], whole[17:18, 8:16])  # 64 bytes, of one rank
        assert len(set(read)) == 1

    def test_more_ranks_than_rows(self) -> None:
        whole, store = filled((2, 3), "<f8"), MemoryStore()
        shared(store, whole, rows((2, 3), 4))
        assert same(read_back(store, (2, 3), "<f8", rows((2, 3), 3))[0], whole)


class TestAgreement:
    @pytest.mark.parametrize(
        ("boxes", "what"),
        [
            ([((0, 0), (3, 5)), ((2, 0), (4, 5))], "overlap"),
            ([((0, 0), (3, 5)), ((4, 0), (2, 5))], "a gap: 5 of 30"),
        ],
    )
    def test_shards_that_are_not_the_whole_are_refused(self, boxes: list[Box], what: str) -> None:
        store = MemoryStore()
        with pytest.raises(InvalidCheckpoint, match=what):
            shared(store, filled((6, 5), "<f8"), boxes)
        assert names(store) == set()

    def test_what_differs_between_ranks_is_named(self) -> None:
        def spoil(kernel: Grid, rank: int) -> None:
            kernel.table[3] += rank == 2

        store = MemoryStore()
        with pytest.raises(InvalidCheckpoint, match="it differs on rank 2") as caught:
            shared(store, filled((6, 5), "<f8"), rows((6, 5), 3), spoil=spoil)
        assert caught.value.where == "GridCheckpoint.table"
        assert names(store) == set()

    def test_ranks_at_different_steps_are_told(self) -> None:
        def spoil(kernel: Grid, rank: int) -> None:
            kernel.step += rank

        with pytest.raises(
            InvalidCheckpoint, match="rank 1: it is at step 2, but rank 0 at step 1"
        ):
            shared(MemoryStore(), filled((6, 5), "<f8"), rows((6, 5), 2), spoil=spoil)

    def test_an_error_of_one_kernel_is_that_of_all(self) -> None:
        def work(ranks: Coordinator) -> CheckpointableError:
            kernel = Grid(filled((6, 5), "<f8"), rows((6, 5), 3)[ranks.rank])
            if ranks.rank == 1:
                del kernel.table
            with pytest.raises(CheckpointableError) as caught:
                asyncio.run(_saved(Checkpointer(kernel, store, coordinator=ranks)))
            return caught.value

        store = MemoryStore()
        reported = on_ranks(3, work)
        assert {(type(error), error.what) for error in reported} == {
            (type(reported[0]), reported[0].what)
        }
        assert "rank 1: the kernel has no attribute 'table'" in reported[0].what

    def test_a_locked_store_is_told_to_all(self, tmp_path: Path) -> None:
        with (
            LocalStore(tmp_path).lock(),
            pytest.raises(StoreLocked, match="rank 0: another writer"),
        ):
            shared(LocalStore(tmp_path), filled((6, 5), "<f8"), rows((6, 5), 2))

    def test_a_store_of_one_writer_is_refused(self) -> None:
        store: Any = FaultyStore(MemoryStore(), "fail", "list")
        with pytest.raises(CheckpointableError, match="many ranks can write to"):
            shared(store, filled((6, 5), "<f8"), rows((6, 5), 2))

    def test_the_step_after_the_newest(self) -> None:
        def work(ranks: Coordinator) -> Any:
            kernel = Grid(filled((6, 5), "<f8"), rows((6, 5), 2)[ranks.rank])
            kernel.step = 4
            checkpoint = asyncio.run(kernel.checkpoint())
            saved = [checkpoints.save(store, checkpoint, at, coordinator=ranks) for at in (4, None)]
            return [entry.step for entry, _ in saved]

        store = MemoryStore()
        assert on_ranks(2, work) == [[4, 5], [4, 5]]


class Failing:
    """A memory that one rank cannot write to, or in which no manifest can be created."""

    def __init__(self, store: MemoryStore, refused: str) -> None:
        self.store, self.refused = store, refused
        self.open, self.list, self.delete = store.open, store.list, store.delete
        self.lock = store.lock

    def create(self, name: str, size: int, chunks: Any) -> None:
        if self.refused in name:
            next(iter(chunks))
            raise StoreFull("no room for it", where=name)
        self.store.create(name, size, chunks)

    def without_lock(self) -> "Failing":
        return self


class TestFaults:
    @pytest.mark.parametrize("refused", ["rank-0000", "rank-0002", "sharded"])
    def test_a_rank_that_cannot_write_fails_all(self, refused: str) -> None:
        memory, whole = MemoryStore(), filled((6, 5), "<f8")
        shared(memory, whole, rows((6, 5), 3))
        before = names(memory)
        store: Any = Failing(memory, refused)
        number = {"rank-0002": 2}.get(refused, 0)
        with pytest.raises(StoreFull, match=f"rank {number}: no room for it"):
            shared(store, whole + 1, rows((6, 5), 3), step=2)
        assert [entry.step for entry in archive.entries(memory)] == [1]
        prune(memory, last(1))
        assert names(memory) == before
        shared(memory, whole + 2, rows((6, 5), 3), step=2)
        assert same(read_back(memory, (6, 5), "<f8", rows((6, 5), 2))[0], whole + 2)

    @given(st.data())
    def test_damage_is_passed_over_by_all(self, data: st.DataObject) -> None:
        shape, memory = (6, 20), MemoryStore()
        states = [filled(shape, "<f8", seed) for seed in range(2)]
        for step, state in enumerate(states):
            shared(memory, state, rows(shape, 3), step=step)
        newest = [name for name in sorted(names(memory)) if archive.step_of(name) == 1]
        blob = memory._blobs[data.draw(st.sampled_from(newest))][0]
        place = data.draw(st.integers(0, len(blob) - 1))
        blob[place] ^= 1 << data.draw(st.integers(0, 7))
        result, reported = read_back(
            memory, shape, "<f8", rows(shape, data.draw(st.integers(2, 3)))
        )
        assert same(result, states[0])
        assert {(one.step, len(one.skipped)) for one in reported} == {(0, 1)}

    @pytest.mark.parametrize("lost", ["rank-0000", "rank-0002", "sharded"])
    def test_a_file_that_is_gone(self, lost: str) -> None:
        memory, shape = MemoryStore(), (6, 20)
        for step in range(2):
            shared(memory, filled(shape, "<f8", step), rows(shape, 3), step=step)
        memory.delete(next(n for n in names(memory) if lost in n and archive.step_of(n) == 1))
        result, reported = read_back(memory, shape, "<f8", rows(shape, 2))
        assert same(result, filled(shape, "<f8", 0))
        assert [len(one.skipped) for one in reported] == [lost != "sharded"] * 2

    def test_another_file_in_place_of_a_ranks_is_refused(self) -> None:
        memory, shape = MemoryStore(), (6, 20)
        for step in range(2):
            shared(memory, filled(shape, "<f8", step), rows(shape, 3), step=step)
        result = sorted(n for n in names(memory) if "rank-0001" in n)
        memory._blobs[result[1]] = memory._blobs[result[0]]
        with pytest.raises(CorruptCheckpoint):
            archive.verify(memory, archive.entries(memory)[1].name)
        assert read_back(memory, shape, "<f8", rows(shape, 2))[1][0].step == 0

    def test_nothing_that_verifies_is_told_to_all(self) -> None:
        memory, shape = MemoryStore(), (6, 20)
        shared(memory, filled(shape, "<f8"), rows(shape, 3))
        memory.delete(next(n for n in names(memory) if "rank-0001" in n))
        with pytest.raises(NoCheckpoint, match="none is valid"):
            read_back(memory, shape, "<f8", rows(shape, 2))

    def test_an_empty_store_restores_nothing(self) -> None:
        assert read_back(MemoryStore(), (6, 5), "<f8", rows((6, 5), 2))[1] == [None, None]

    def test_a_kernel_of_another_shape_is_an_error_of_all(self) -> None:
        memory = MemoryStore()
        shared(memory, filled((6, 5), "<f8"), rows((6, 5), 2))
        with pytest.raises(InvalidCheckpoint, match=r"rank 0: .* global shape of \(6, 5\)"):
            read_back(memory, (6, 6), "<f8", rows((6, 6), 2))

    def test_a_step_of_its_own(self) -> None:
        def work(ranks: Coordinator) -> Any:
            kernel = Grid(np.zeros((6, 5)), rows((6, 5), 2)[ranks.rank])
            checkpointer = Checkpointer(kernel, memory, coordinator=ranks)
            reported = asyncio.run(checkpointer.restore(0))
            with pytest.raises(NoCheckpoint, match="no checkpoint of step 7"):
                asyncio.run(checkpointer.restore(7))
            return reported.step, kernel.local.tobytes()

        memory = MemoryStore()
        states = [filled((6, 5), "<f8", seed) for seed in range(2)]
        for step, state in enumerate(states):
            shared(memory, state, rows((6, 5), 3), step=step)
        halves = [states[0][:3].tobytes(), states[0][3:].tobytes()]
        assert on_ranks(2, work) == [(0, half) for half in halves]


class TestPrune:
    def test_what_a_kept_manifest_needs_stays(self) -> None:
        memory, shape = MemoryStore(), (6, 5)
        for step in range(3):
            shared(memory, filled(shape, "<f8", step), rows(shape, 2), step=step)
        deleted = prune(memory, last(1))
        assert [entry.step for entry in deleted] == [0, 1]
        assert {archive.step_of(name) for name in names(memory)} == {2}
        assert len(names(memory)) == 3

    def test_what_no_manifest_has_goes(self) -> None:
        memory = MemoryStore()
        shared(memory, filled((6, 5), "<f8"), rows((6, 5), 2))
        before = names(memory)
        memory.create(archive.rank_file_name(9, 1, "0" * 16), 1, [b"x"])
        assert prune(memory, last(5)) == []
        assert names(memory) == before

    def test_it_waits_for_a_save_under_way(self) -> None:
        """Or it would take the files of ranks that have no manifest yet."""
        memory, whole = MemoryStore(), filled((6, 5), "<f8")
        pruner = threading.Thread(target=prune, args=(memory, last(1)))

        class Pruned(Failing):
            def create(self, name: str, size: int, chunks: Any) -> None:
                if "sharded" in name:
                    pruner.start()
                    pruner.join(0.2)  # it must not come to its end
                    assert pruner.is_alive()
                super().create(name, size, chunks)

        store: Any = Pruned(memory, "nothing")
        shared(store, whole, rows((6, 5), 2))
        pruner.join()
        assert same(read_back(memory, (6, 5), "<f8", rows((6, 5), 2))[0], whole)

    def test_with_a_manifest_that_cannot_be_read_all_ranks_files_stay(self) -> None:
        memory, shape = MemoryStore(), (6, 5)
        for step in range(3):
            shared(memory, filled(shape, "<f8", step), rows(shape, 2), step=step)
        memory._blobs[archive.entries(memory)[2].name][0][8] ^= 1
        before = {name for name in names(memory) if archive.is_rank_file(name)}
        prune(memory, last(1))
        assert {name for name in names(memory) if archive.is_rank_file(name)} == before
        assert read_back(memory, shape, "<f8", rows(shape, 2))[1][0].step == 1
