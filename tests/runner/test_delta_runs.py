"""Kernels that are saved as deltas: by a checkpointer, by `run`, and on the command line."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import attrs
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointable import (
    Array,
    Checkpointer,
    LocalStore,
    MemoryStore,
    Store,
    archive,
    capture,
    every,
    last,
    load_file,
    reinstate,
    run,
)
from checkpointable.archive import entries, load
from checkpointable.archive.prune import prune
from checkpointable.cli import main
from checkpointable.runner.when import When
from tests.helpers.equality import same
from tests.helpers.kernels import finish
from tests.helpers.small_blocks import small_blocks


@attrs.frozen
class SweepCheckpoint:
    step: int
    grid: Array[np.int64]


class Sweep:
    """Each step changes one block of 64 bytes, of 32, in a fixed order that comes back to each."""

    total_steps = 40

    def __init__(self) -> None:
        self.step = 0
        self.grid = np.zeros((32, 8), np.int64)

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            self.step += 1
            self.grid[self.step * 5 % 32] += self.step

    async def checkpoint(self) -> SweepCheckpoint:
        return await capture(SweepCheckpoint, self)

    async def restore(self, checkpoint: SweepCheckpoint) -> None:
        await reinstate(checkpoint, self)


def after(steps: int) -> SweepCheckpoint:
    kernel = Sweep()
    kernel.advance(steps)
    return asyncio.run(kernel.checkpoint())


@pytest.fixture(autouse=True)
def _small_blocks() -> Iterator[None]:
    """And so small arrays that the header would take more room than they."""
    with small_blocks(64):
        yield


def kinds(store: Store) -> list[bool]:
    return [entry.delta for entry in entries(store)]


def blocks(store: Store, name: str) -> int:
    return sum(a.own_blocks for a in archive.read_header(store, name).arrays.values())


def test_each_save_holds_what_changed_since_the_last() -> None:
    kernel, store = Sweep(), MemoryStore()
    checkpointer = Checkpointer(kernel, store, delta=True)
    names = []
    for steps in (1, 2, 3):
        kernel.advance(steps)
        names.append(finish(checkpointer.save()).name)
    assert kinds(store) == [False, True, True]
    assert [blocks(store, name) for name in names] == [32, 2, 3]


def test_without_delta_each_is_full() -> None:
    kernel, store = Sweep(), MemoryStore()
    checkpointer = Checkpointer(kernel, store)
    for _ in range(3):
        kernel.advance(1)
        finish(checkpointer.save())
    assert kinds(store) == [False] * 3


def test_a_full_one_can_be_had() -> None:
    kernel, store = Sweep(), MemoryStore()
    checkpointer = Checkpointer(kernel, store, delta=True)
    for full in (False, False, True, False):
        kernel.advance(1)
        finish(checkpointer.save(full=full))
    assert kinds(store) == [False, True, False, True]


def test_after_a_restore_it_goes_on_from_what_was_restored() -> None:
    store = MemoryStore()
    kernel = Sweep()
    first = Checkpointer(kernel, store, delta=True)
    for _ in range(3):
        kernel.advance(1)
        finish(first.save())
    fresh = Sweep()
    second = Checkpointer(fresh, store, delta=True)
    finish(second.restore(1))
    fresh.advance(1)
    name = finish(second.save()).name
    assert name == "step-000000000002.1.delta.safetensors"
    assert blocks(store, name) == 1


DOES = ["save", "full", "restart", "older", "prune"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["save", "full", "restart", "older", "prune"]), st.integers(0, 9)
        ),
        max_size=12,
    ),
    st.booleans(),
)
@settings(max_examples=50)
def test_whatever_comes_each_checkpoint_is_that_of_its_step(
    does: list[tuple[str, int]], in_place: bool
) -> None:
    kernel, store = Sweep(), MemoryStore()
    checkpointer = Checkpointer(kernel, store, delta=True, in_place=in_place)
    finish(checkpointer.save())
    for what, number in does:
        kernel.advance(number)
        if what in ("save", "full"):
            finish(checkpointer.save(full=what == "full"))
        elif what == "prune":
            newest = entries(store)[-1].step
            prune(store, last(1 + number % 3))
            assert entries(store)[-1].step == newest
        elif what == "restart":
            kernel = Sweep()
            checkpointer = Checkpointer(kernel, store, delta=True, in_place=in_place)
            finish(checkpointer.restore_latest())
        else:
            steps = [entry.step for entry in entries(store)]
            finish(checkpointer.restore(steps[number % len(steps)]))
        assert same(asyncio.run(kernel.checkpoint()), after(kernel.step))
        for entry in entries(store):
            assert same(load(store, entry.name, SweepCheckpoint), after(entry.step))


@pytest.mark.parametrize("full", [None, every(steps=10)])
def test_run_saves_deltas_and_keeps_what_they_continue(full: When | None) -> None:
    store = MemoryStore()
    for until in (17, 40):  # resumed once
        run(Sweep(), store, until, save=every(steps=3), keep=last(2), delta=True, full=full)
    result = entries(store)
    assert [entry.step for entry in result][-2:] == [39, 40]
    for entry in result:
        assert same(load(store, entry.name, SweepCheckpoint), after(entry.step))
    if full is None:
        assert (result[0].step, kinds(store)) == (3, [False, *[True] * (len(result) - 1)])
    else:  # the first save at or after each multiple of 10; of 39 the base is 30
        assert [entry.step for entry in result if not entry.delta] == [30, 40]


def test_the_command_line_saves_deltas_and_compacts_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "run")
    common = [f"{__name__}:Sweep", "--store", place, "--every", "10", "--keep", "2"]
    assert main(["run", *common, "--delta"]) == 0
    store = LocalStore(place)
    assert kinds(store) == [False, True, True, True]
    before = load_file(Path(place) / entries(store)[-1].name, SweepCheckpoint)
    capsys.readouterr()

    assert main(["ls", place, "--json"]) == 0
    reported = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["delta"] for one in reported] == [False, True, True, True]
    assert main(["show", place]) == 0
    assert "delta    of 2.0 KiB; the rest is in step-" in capsys.readouterr().out
    assert main(["verify", place]) == 0
    capsys.readouterr()

    names = [entry.name for entry in entries(store)]
    assert main(["prune", place, "--keep", "1", "--compact"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition("  ")[0] for line in lines[:-1]] == [
        "stored   step-000000000040.safetensors",
        *[f"deleted  {name}" for name in names],
    ]
    assert lines[-1].startswith("1 checkpoint left, ")
    (entry,) = entries(store)
    assert same(load(store, entry.name, SweepCheckpoint), before)
