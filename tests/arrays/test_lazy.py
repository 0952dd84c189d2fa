"""Arrays that are read when they are used: whole, by rows, or mapped."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, basic_indices

from checkpointable import (
    Array,
    CorruptCheckpoint,
    LazyArray,
    LocalStore,
    checkpoint,
    load_file,
    migrate,
    reinstate,
    save_file,
)
from checkpointable.archive import save
from checkpointable.format import read_arrays
from checkpointable.threads import complete
from tests.helpers.equality import same
from tests.helpers.small_blocks import small_blocks

BLOCK = 64


@attrs.frozen
class State:
    step: int
    grid: Array[np.float64]
    few: Array[np.int16]


@pytest.fixture(autouse=True)
def _small_blocks() -> Iterator[None]:
    with small_blocks(BLOCK):
        yield


def state() -> State:
    return State(3, np.arange(60.0).reshape(10, 6), np.arange(7, dtype=np.int16))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file(state(), tmp_path / "it.safetensors")
    return tmp_path / "it.safetensors"


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The blocks that are read from now on, by array and number."""
    blocks: list[tuple[str, int]] = []
    original = read_arrays.read_block

    def noted(checkpoint: Any, placed: Any, index: int, buffer: Any) -> Any:
        blocks.append((placed.name, index))
        return original(checkpoint, placed, index, buffer)

    monkeypatch.setattr(read_arrays, "read_block", noted)
    return blocks


# --- lazily -------------------------------------------------------------------------------------


def test_nothing_is_read_before_it_is_used(path: Path, read: list[tuple[str, int]]) -> None:
    loaded: Any = load_file(path, State, arrays="lazy")
    assert (loaded.step, loaded.grid.dtype, loaded.grid.shape) == (3, np.float64, (10, 6))
    assert read == []
    assert same(np.asarray(loaded.few), state().few)
    assert read == [("few", 0)]


def test_rows_read_the_blocks_that_they_touch(path: Path, read: list[tuple[str, int]]) -> None:
    loaded: Any = load_file(path, State, arrays="lazy")
    assert same(loaded.grid[3:5], np.asarray(state().grid)[3:5])  # bytes 144 to 240
    assert sorted(read) == [("grid", 2), ("grid", 3)]


@given(st.data())
def test_a_part_equals_that_of_the_array(data: st.DataObject) -> None:
    shape = data.draw(array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=12))
    array = np.arange(float(np.prod(shape))).reshape(shape)
    index: Any = data.draw(
        basic_indices(shape, allow_newaxis=True)
        | st.sampled_from([[0, -1], ..., (), True])
        | st.slices(shape[0])
    )

    def part(box: Any) -> Any:
        return array[tuple(slice(begin, begin + n) for begin, n in zip(*box, strict=True))]

    lazy = LazyArray(array.dtype, shape, lambda: array, part)
    try:
        due = array[index]
    except IndexError:
        with pytest.raises(IndexError):
            lazy[index]
        return
    part = lazy[index]
    assert same(np.asarray(part), np.asarray(due))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shared") / "it.safetensors"
    with small_blocks(BLOCK):
        save_file(state(), path)
    return path


@given(begin=st.integers(-13, 13), end=st.integers(-13, 13))
def test_a_part_of_a_file_equals_that_of_the_array(shared: Path, begin: int, end: int) -> None:
    loaded: Any = load_file(shared, State, arrays="lazy")
    assert same(loaded.grid[begin:end], np.asarray(state().grid)[begin:end])


@pytest.mark.parametrize("index", [10, -11])
def test_a_row_that_does_not_exist_is_an_index_error(path: Path, index: int) -> None:
    loaded: Any = load_file(path, State, arrays="lazy")
    with pytest.raises(IndexError, match=f"index {index} on axis 0, which has 10"):
        loaded.grid[index]


def test_damage_is_found_where_it_is_read(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 + 5 * BLOCK)
        file.write(b"\xff")
    loaded: Any = load_file(path, State, arrays="lazy")
    assert same(loaded.grid[:6], np.asarray(state().grid)[:6])
    with pytest.raises(CorruptCheckpoint, match="damaged") as caught:
        loaded.grid[6:]
    assert str(path) in caught.value.where
    with pytest.raises(CorruptCheckpoint, match="damaged") as caught:
        np.asarray(loaded.grid)
    assert caught.value.where == f"{path}: array 'grid', block 5 of 8"


def test_the_file_is_open_as_long_as_the_arrays_exist(path: Path) -> None:
    before = open_files()
    loaded: Any = load_file(path, State, arrays="lazy")
    grid = loaded.grid
    del loaded
    path.unlink()
    assert grid[9, 5] == 59
    assert open_files() == before + 1
    del grid
    assert open_files() == before


def test_a_lazy_checkpoint_can_be_saved_and_restored(path: Path, tmp_path: Path) -> None:
    loaded: Any = load_file(path, State, arrays="lazy")
    save_file(loaded, tmp_path / "again.safetensors")
    assert same(load_file(tmp_path / "again.safetensors", State), state())

    class Kernel:
        step, grid, few = 0, np.zeros((10, 6)), np.zeros(7, np.int16)

    kernel = Kernel()
    complete(reinstate(loaded, kernel))
    assert same(State(kernel.step, kernel.grid, kernel.few), state())


def test_a_file_of_an_older_version_is_read_at_once(tmp_path: Path) -> None:
    @checkpoint(name="lazily", version=1)
    @attrs.frozen
    class Old:
        u: Array[np.float64]

    @checkpoint(name="lazily", version=2)
    @attrs.frozen
    class New:
        v: Array[np.float64]

    @migrate("lazily", 1)
    def rename(tree: dict[str, Any]) -> dict[str, Any]:
        return {"v": tree["u"]}

    save_file(Old(np.ones(9)), tmp_path / "old.safetensors")
    assert same(load_file(tmp_path / "old.safetensors", New, arrays="lazy"), New(np.ones(9)))


# --- mapped -------------------------------------------------------------------------------------


def test_a_mapped_array_is_the_file(path: Path, read: list[tuple[str, int]]) -> None:
    before = open_files()
    loaded: Any = load_file(path, State, arrays="mmap")
    assert read == []
    assert same(loaded, state())
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(np.float64(77).tobytes())
    assert loaded.grid[0, 0] == 77
    with pytest.raises(ValueError, match="read-only"):
        loaded.grid[0, 0] = 1
    path.unlink()
    assert loaded.grid[9, 5] == 59
    assert open_files() == before + 1
    del loaded
    assert open_files() == before


def test_the_header_of_a_mapped_file_is_verified(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"\0\1")
    with pytest.raises(CorruptCheckpoint, match="seal"):
        load_file(path, State, arrays="mmap")


# --- deltas -------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrays", ["read", "lazy", "mmap"])
def test_a_delta_is_read_lazily_and_mapped(tmp_path: Path, arrays: Any) -> None:
    store = LocalStore(tmp_path)
    with small_blocks(BLOCK):
        base = save(store, state(), 3).name
        grid = np.array(state().grid)
        grid[4] = -1
        now = State(4, grid, state().few)
        entry = save(store, now, 4, base=base)
    assert entry.delta
    loaded: Any = load_file(tmp_path / entry.name, State, arrays=arrays)
    assert same(np.asarray(loaded.grid), grid)
    assert same(np.asarray(loaded.few), now.few)
    assert same(loaded.grid[3:6], grid[3:6])
    assert isinstance(loaded.few, LazyArray if arrays == "lazy" else np.ndarray)
