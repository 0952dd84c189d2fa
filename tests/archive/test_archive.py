"""Checkpoints by step in a store: save, latest, load, list, verify, prune; and single files."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointable import (
    Array,
    CheckpointExists,
    CorruptCheckpoint,
    InvalidCheckpoint,
    KernelMetadata,
    LocalStore,
    MemoryStore,
    NoCheckpoint,
    SchemaMismatch,
    Store,
    UnsupportedType,
    archive,
    last,
    load_file,
    save_file,
)
from checkpointable.archive import at_step, entries, latest, load, name_of, save, verify
from checkpointable.archive.prune import prune
from checkpointable.stores.protocol import Entry
from tests.helpers.equality import same
from tests.helpers.strategies import Pair


@attrs.frozen
class State:
    step: int
    field: Array[np.float32]


@attrs.frozen
class Other:
    step: int


def state(step: int) -> State:
    return State(step, np.full(300_000, step, np.float32))


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "run") if request.param == "local" else MemoryStore()


def damage(store: Store, name: str, at: int = -100, bit: int = 1) -> None:
    """Flip one bit of a stored checkpoint."""

    def flipped(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[at] ^= bit
        return bytes(changed)

    rewrite(store, name, flipped)


def content(store: Store, name: str) -> bytes:
    with store.open(name) as reader:
        data = bytearray(reader.size)
        reader.read_into(0, memoryview(data))
    return bytes(data)


def rewrite(store: Store, name: str, change: Callable[[bytes], bytes]) -> None:
    """Change a stored checkpoint, whatever the store."""
    changed = change(content(store, name))
    store.delete(name)
    store.create(name, len(changed), [changed])


def test_the_newest_is_of_the_highest_step_not_the_last_written(store: Store) -> None:
    for step in (10, 9, 100, 2):
        save(store, state(step), step)
    assert [e.step for e in entries(store)] == [2, 9, 10, 100]
    result = latest(store, State)
    assert result is not None
    assert same(result.checkpoint, state(100))
    assert result.entry.name == "step-000000000100.safetensors"
    assert result.skipped == ()


def test_an_empty_store_has_no_latest(store: Store) -> None:
    assert latest(store, State) is None
    assert entries(store) == []


@pytest.mark.parametrize("at", [0, 20, 5000, -100, -1])
def test_latest_falls_back_and_says_why(store: Store, at: int) -> None:
    for step in (1, 2, 3):
        save(store, state(step), step)
    damage(store, name_of(3), at)
    result = latest(store, State)
    assert result is not None
    assert same(result.checkpoint, state(2))
    ((entry, error),) = result.skipped
    assert entry.step == 3
    assert isinstance(error, CorruptCheckpoint)
    assert name_of(3) in str(error)


def test_damage_is_named_by_array_and_block(store: Store) -> None:
    save(store, state(1), 1)
    damage(store, name_of(1), -40 - 16 * 2 - 5)
    with pytest.raises(CorruptCheckpoint, match=r"step-0+1\.safetensors.*'field', block 1 of 2"):
        verify(store, name_of(1))
    with pytest.raises(CorruptCheckpoint, match=r"'field', block 1 of 2"):
        load(store, name_of(1), State)


def test_if_none_verifies_it_is_an_error_and_not_a_fresh_start(store: Store) -> None:
    for step in (1, 2):
        save(store, state(step), step)
        damage(store, name_of(step))
    with pytest.raises(NoCheckpoint, match="none is valid"):
        latest(store, State)


def test_another_class_is_no_reason_to_fall_back(store: Store) -> None:
    save(store, state(1), 1)
    save(store, Other(2), 2)
    with pytest.raises(SchemaMismatch, match="Other version 1, the class is State version 1"):
        latest(store, State)


def test_a_newer_format_is_no_reason_to_fall_back_but_damage_to_its_number_is(
    store: Store,
) -> None:
    for step in (1, 2):
        save(store, state(step), step)
    rewrite(store, name_of(2), lambda data: data.replace(b'format\\":1', b'format\\":2'))
    result = latest(store, State)
    assert result is not None
    assert result.entry.step == 1
    rewrite(store, name_of(2), seal_again)
    with pytest.raises(InvalidCheckpoint, match="format 2"):
        latest(store, State)


def seal_again(data: bytes) -> bytes:
    header = 8 + int.from_bytes(data[:8], "little")
    table = data[-32 - 2 * 16 : -32]
    return data[:-32] + hashlib.sha256(data[:header] + table).digest()


def test_a_step_saved_again_is_a_new_attempt_and_the_newest(store: Store) -> None:
    for value in (5, 6, 7):
        save(store, state(value), 3)
    assert [e.attempt for e in entries(store)] == [0, 1, 2]
    result = latest(store, State)
    assert result is not None
    assert result.checkpoint.step == 7
    damage(store, name_of(3, 2))
    assert at_step(store, 3, State).checkpoint.step == 6


def test_a_name_that_is_taken_meanwhile_is_left_alone() -> None:
    class Late(MemoryStore):
        """Lists nothing of what another thread has just created."""

        def list(self) -> Iterator[Entry]:
            return iter(())

    store = Late()
    names = [save(store, state(value), 3).name for value in (5, 6)]
    assert names == [name_of(3), name_of(3, 1)]
    assert [load(store, name, State).step for name in names] == [5, 6]


def test_a_step_that_is_not_there_is_named(store: Store) -> None:
    with pytest.raises(NoCheckpoint, match="the store is empty"):
        at_step(store, 5, State)
    save(store, state(1), 1)
    with pytest.raises(NoCheckpoint, match="step 5"):
        at_step(store, 5, State)


def test_a_checkpoint_that_is_refused_leaves_the_store_as_it_was(store: Store) -> None:
    save(store, state(1), 1)
    bad = State("one", np.zeros(1, np.float32))  # type: ignore[arg-type]
    with pytest.raises(InvalidCheckpoint, match=r"State\.step"):
        save(store, bad, 2)
    with pytest.raises(UnsupportedType):
        save(store, object(), 2)
    assert [e.step for e in entries(store)] == [1]


def test_the_header_says_what_it_is(store: Store) -> None:
    entry = save(store, state(4), 4, kernel=KernelMetadata(id="heat", version="2"))
    meta = archive.read_header(store, entry.name).meta
    assert meta.kernel == {"id": "heat", "version": "2"}
    assert meta.step == 4
    assert meta.schema["name"] == "State"
    assert meta.tree == {"step": 4, "field": {"$array": "field"}}


def test_foreign_names_are_not_checkpoints(store: Store) -> None:
    for name in ("notes.txt", "step-1.safetensors", "step-000000000001.00.safetensors",
                 "step-000000000001.safetensors.bak", "step-00000000000x.safetensors",
                 "step-0000000000001.safetensors"):  # fmt: skip
        store.create(name, 1, [b"x"])
    assert entries(store) == []


def keep_none(steps: Sequence[int]) -> list[int]:
    return []


def test_prune_keeps_what_the_policy_says(store: Store) -> None:
    for step in range(5):
        save(store, state(step), step)
    assert [e.step for e in prune(store, last(2))] == [0, 1, 2]
    assert [e.step for e in entries(store)] == [3, 4]


def test_prune_never_takes_the_newest_that_verifies_nor_what_is_newer(store: Store) -> None:
    for step in range(4):
        save(store, state(step), step)
    damage(store, name_of(3))
    prune(store, keep_none)
    assert [e.step for e in entries(store)] == [2, 3]  # it may be readable another day


def test_prune_takes_nothing_if_nothing_verifies(store: Store) -> None:
    for step in range(3):
        save(store, state(step), step)
        damage(store, name_of(step))
    with pytest.raises(NoCheckpoint, match="none is deleted"):
        prune(store, last(1))
    assert len(entries(store)) == 3


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=8),
    st.sets(st.integers(0, 8)),
    st.integers(1, 4),
)
def test_no_order_of_saves_damage_and_pruning_leaves_nothing_sound(
    steps: list[int], damaged: set[int], n: int
) -> None:
    store = MemoryStore()
    for i, step in enumerate(steps):
        entry = save(store, Other(step), step)
        if i in damaged:
            damage(store, entry.name)
    sound = {e.name for e in entries(store) if is_sound(store, e.name)}
    if sound:
        prune(store, last(n))
        result = latest(store, Other)
        assert result is not None
        assert result.entry.name == max(sound, key=lambda name: _order(name))


def _order(name: str) -> tuple[int, int]:
    parts = name.removeprefix("step-").removesuffix(".safetensors").split(".")
    return int(parts[0]), int(parts[1]) if len(parts) > 1 else 0


def is_sound(store: Store, name: str) -> bool:
    try:
        verify(store, name)
    except CorruptCheckpoint:
        return False
    return True


def test_a_file_is_saved_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_file(state(3), path)
    assert same(load_file(path, State), state(3))


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_file(state(3), path)
    with pytest.raises(CheckpointExists, match=r"state\.safetensors"):
        save_file(state(4), path)
    assert load_file(path, State).step == 3


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoCheckpoint, match="nowhere"):
        load_file(tmp_path / "nowhere", State)
    (tmp_path / "foreign").write_bytes(b"hello")
    with pytest.raises(CorruptCheckpoint, match="foreign"):
        load_file(tmp_path / "foreign", State)
    with pytest.raises(CorruptCheckpoint):
        load_file(tmp_path, State)


def test_a_generic_class_is_saved_with_its_types(tmp_path: Path) -> None:
    cls: Any = Pair[int, Array[np.int8]]
    with pytest.raises(UnsupportedType, match=r"Pair"):
        save_file(Pair(1, np.ones(2, np.int8)), tmp_path / "pair")
    save_file(Pair(1, np.ones(2, np.int8)), tmp_path / "pair", cls=cls)
    assert same(load_file(tmp_path / "pair", cls).second, np.ones(2, np.int8))
