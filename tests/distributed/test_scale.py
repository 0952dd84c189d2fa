"""How it grows: manifests of many ranks, plans of their restores, and the simulated cluster."""

import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import manifests
from benchmarks.simulations import cluster
from benchmarks.simulations.cluster import Saves, lost
from checkpointable import LocalStore, archive
from checkpointable.distributed.checkpoints import check_together, manifest_from
from checkpointable.distributed.coordinator import _neighbours
from checkpointable.format import container, layout, selection
from checkpointable.format.layout import plan_layout
from checkpointable.format.read_arrays import parts_of
from checkpointable.runner.when import optimum_interval
from tests.helpers.small_blocks import small_blocks

BLOCK = 64  # in the small

# --- manifests, and plans made from them ---------------------------------------------------------


def test_a_manifest_of_4096_ranks_takes_under_64_bytes_a_block() -> None:
    blocks = 1_000_000
    reported = manifests.written_by(
        4096, manifests.shape_of(blocks), parents=manifests.MOST_PARENTS
    )
    assert manifest_from(manifests.META, reported).size < 64 * blocks


def test_a_manifest_of_1024_ranks_is_read_as_it_was_made() -> None:
    reported = manifests.written_by(1024, manifests.shape_of(4096), parents=1)
    check_together(reported, None)
    packed = manifest_from(manifests.META, reported)
    header = container.parse(packed.prefix, packed.size)
    assert header == packed.header
    for name in manifests.ARRAYS:
        boxes = [(part.source, part.box) for part in header.arrays[name].parts]
        assert boxes == [(rank + 1, one.boxes[name]) for rank, one in enumerate(reported)]


grids = st.tuples(st.integers(1, 4), st.integers(1, 4))


@given(st.tuples(st.integers(1, 20), st.integers(1, 20)), grids, grids, st.integers(16, 256))
def test_a_plan_has_the_blocks_that_hold_the_box_and_no_others(
    shape: tuple[int, int], saved: manifests.Grid, wanted: manifests.Grid, slab: int
) -> None:
    with (
        mock.patch.object(manifests, "square_grid", return_value=saved),
        small_blocks(BLOCK, slab=slab),
    ):
        reported = manifests.written_by(math.prod(saved), shape)
        header = manifest_from(manifests.META, reported).header
        name = manifests.ARRAYS[0]
        owner = np.zeros(shape, int)  # which file each element lies in, and in which block there
        block = np.zeros(shape, int)
        own = {}
        for source, one in enumerate(reported, 1):
            place = tuple(slice(n, n + m) for n, m in zip(*one.boxes[name], strict=True))
            size = one.boxes[name][1]
            owner[place] = source
            block[place] = (np.arange(math.prod(size)) * 4 // BLOCK).reshape(size)
            own[source] = plan_layout(manifests.META, {name: (manifests.FLOATS, size)}).arrays[name]
        for box in manifests.decomposed(shape, wanted):
            planned = {
                (source, index)
                for source, _, local in parts_of(header, header.arrays[name], box)
                for blocks in selection.blocks_of(own[source], local)
                for index in blocks
            }
            place = tuple(slice(n, n + m) for n, m in zip(*box, strict=True))
            due = zip(owner[place].flat, block[place].flat, strict=True)
            assert planned == {(int(source), int(index)) for source, index in due}


@given(st.data())
def test_the_blocks_of_a_box_are_those_that_its_elements_lie_in(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple))
    box = [data.draw(st.tuples(st.integers(0, n - 1), st.integers(1, n))) for n in shape]
    offset = tuple(n for n, _ in box)
    size = tuple(min(m, axis - n) for (n, m), axis in zip(box, shape, strict=True))
    dtype = np.dtype(data.draw(st.sampled_from(["<u2", "<f8", "V3"])))
    with (
        small_blocks(
            data.draw(st.sampled_from([8, 16, 64])), slab=data.draw(st.sampled_from([8, 64, 1024]))
        ),
    ):
        placed = plan_layout(manifests.META, {"a": (dtype, shape)}).arrays["a"]
        result = {n for blocks in selection.blocks_of(placed, (offset, size)) for n in blocks}
        place = tuple(slice(n, n + m) for n, m in zip(offset, size, strict=True))
        begins = np.arange(math.prod(shape)).reshape(shape)[place] * dtype.itemsize
        touched = (begins[..., None] + np.arange(dtype.itemsize)) // layout.BLOCK
    assert result == set(touched.flat)


def test_pruning_deletes_all_that_the_ranks_wrote_and_no_more(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    manifests.files(ranks=40, kept=3, store=store, rounds=1)
    left = [blob.name for blob in store.list()]
    assert sorted(filter(archive.is_rank_file, left)) == [
        archive.rank_file_name(step, rank, "0" * 16) for step in (1, 2) for rank in range(40)
    ]


# --- the simulated cluster ------------------------------------------------------------------------


def daly(interval: float, cost: float, mtbf: float, restart: float) -> float:
    """The share that is lost by Daly's complete model (2006), which `optimum_interval` cites."""
    taken = mtbf * math.exp(restart / mtbf) * math.expm1((interval + cost) / mtbf)
    return 1 - interval / taken


@pytest.mark.parametrize("times", [0.3, 1, 3])
@pytest.mark.parametrize(("cost", "mtbf"), [(5.0, 3600.0), (60.0, 7200.0), (300.0, 6000.0)])
def test_what_is_lost_is_what_daly_says(cost: float, mtbf: float, times: float) -> None:
    interval = times * optimum_interval(cost, mtbf)
    saves = Saves(stall=cost, flight=0, slowed=0, restore=100)
    result = lost(saves, interval, mtbf, share_lost=0.5, again=50, failures=20_000)
    assert result == pytest.approx(daly(interval, cost, mtbf, 150), rel=0.04)


def test_without_lost_nodes_the_shared_store_is_not_needed() -> None:
    alone = Saves(1, 30, 0.0, 20)
    both = Saves(1, 30, 0.0, 20, copy=500, restore_lost=400)
    assert lost(both, 300, 9000, 0.0, 60) == lost(alone, 300, 9000, 0.0, 60)


def test_lost_nodes_cost_more_the_longer_a_copy_takes() -> None:
    result = [
        lost(Saves(1, 30, 0.0, 20, copy=copy, restore_lost=20), 300, 9000, 0.5, 60)
        for copy in (0, 200, 1000, 4000)
    ]
    assert all(one < other for one, other in pairwise(result))
    assert result[0] == lost(Saves(1, 30, 0.0, 20), 300, 9000, 0.5, 60)


def test_deltas_write_as_much_together_as_a_full_one_at_most() -> None:
    assert cluster.average_share(0.2) == pytest.approx(2 / 6)
    assert cluster.average_share(0.7) == pytest.approx(1.7 / 2)


# --- ranks that hear from each other by a tree ----------------------------------------------------

TREE = """
from mpi4py import MPI
from checkpointable import MpiCoordinator
from checkpointable.distributed import coordinator
coordinator._FAN = 2
ranks = MpiCoordinator()
for n in range(20):
    found = ranks.gather((ranks.rank, n))
    assert found == ([(rank, n) for rank in range(ranks.size)] if ranks.rank == 0 else [])
    assert ranks.broadcast((ranks.rank, n)) == (0, n)
large = b"x" * 200_000  # more than is sent before it is asked for
assert [*map(len, ranks.gather(large))] == [len(large)] * (ranks.size if ranks.rank == 0 else 0)
print("told", flush=True)
"""


def test_all_are_heard_in_their_order_and_told_the_same(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(TREE)
    mpiexec = Path(sys.executable).parent / "mpiexec"
    command = [str(mpiexec), "-n", "6", sys.executable, "-m", "mpi4py", "program.py"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout.count("told")) == (0, 6), ended.stderr


@pytest.mark.parametrize("size", [1, 2, 33, 34, 5000])
def test_each_rank_tells_one_that_hears_it(size: int) -> None:
    received = {rank: above for above in range(size) for rank in _neighbours(above, size)[1]}
    assert received == {rank: _neighbours(rank, size)[0] for rank in range(1, size)}
