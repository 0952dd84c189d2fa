"""Many ranks that save to an object store, each through a store of its own."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from checkpointable import Checkpointer, StoreError, archive, last
from checkpointable.archive.prune import prune
from checkpointable.arrays.boxes import Box
from checkpointable.distributed.coordinator import Coordinator
from checkpointable.stores.protocol import Store
from tests.distributed.test_checkpoints import Grid, GridCheckpoint, filled, rows
from tests.helpers.equality import same
from tests.helpers.thread_ranks import on_ranks
from tests.stores.object.places import Place
from tests.stores.object.proxy import Proxy, Request, always

SHAPE = (600, 512)
WHOLE = filled(SHAPE, "<f8")
COLUMNS: list[Box] = [((0, 0), (600, 200)), ((0, 200), (600, 312))]


def together(boxes: list[Box], store: Callable[[], Store], work: Any) -> list[Any]:
    """Do it on as many ranks as there are boxes, each with a store of its own."""

    def on_one(ranks: Coordinator) -> Any:
        kernel = Grid(np.zeros(SHAPE), boxes[ranks.rank])
        return asyncio.run(work(kernel, Checkpointer(kernel, store(), coordinator=ranks)))

    return on_ranks(len(boxes), on_one)


async def save(kernel: Grid, checkpointer: Checkpointer[Any], step: int = 1) -> None:
    kernel.step = step
    begin, length = kernel.box
    kernel.local[...] = WHOLE[begin[0] : begin[0] + length[0]]
    await (await checkpointer.save())


async def restored(kernel: Grid, checkpointer: Checkpointer[Any]) -> np.ndarray[Any, Any]:
    assert await checkpointer.restore_latest() is not None
    local: np.ndarray[Any, Any] = kernel.local
    return local


def test_what_three_have_saved_two_restore(near: Place) -> None:
    together(rows(SHAPE, 3), near.store, save)
    left, right = together(COLUMNS, near.store, restored)
    assert same(np.hstack([left, right]), WHOLE)


def test_a_box_asks_for_no_more_than_the_files_that_it_meets(far: Place, proxy: Proxy) -> None:
    together(rows(SHAPE, 3), far.store, save)
    name = archive.entries(far.store())[0].name
    checkpoint = archive.load(far.store(), name, GridCheckpoint, arrays="shards")
    proxy.reset()
    assert same(checkpoint.grid[10:20], WHOLE[10:20])
    files = {one.path.split("/uploads/")[1].split("/")[0] for one in proxy.requests
             if "/uploads/" in one.path}  # fmt: skip
    assert [file.split(".")[1] for file in files] == ["rank-0000"]


def test_a_head_that_cannot_be_created_fails_all(far: Place, near: Place, proxy: Proxy) -> None:
    together(rows(SHAPE, 2), near.store, save)

    def refused(request: Request) -> bool:
        return request.method == "PUT" and "heads/step-000000000002.sharded" in request.path

    proxy.fate = always(refused, "refused")
    with pytest.raises(StoreError, match="rank 0: "):
        together(rows(SHAPE, 2), lambda: far.store(retries=0), lambda k, c: save(k, c, 2))
    store = near.store()
    assert [entry.step for entry in archive.entries(store)] == [1]
    prune(store, last(1))
    assert [key for key in near.keys("uploads") if "step-000000000002" in key] == []
    left, right = together(COLUMNS, near.store, restored)
    assert same(np.hstack([left, right]), WHOLE)
