"""With a key, only what was signed with it is believed."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import xxhash
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file as load_safetensors

from checkpointable import (
    Array,
    Checkpointer,
    CorruptCheckpoint,
    LocalStore,
    MemoryStore,
    NoCheckpoint,
    archive,
    capture,
    last,
    load_file,
    reinstate,
    run,
    save_file,
)
from checkpointable.archive import codec
from checkpointable.archive.prune import prune
from tests.helpers.equality import same

KEY, OTHER = b"k" * 32, b"o" * 32


@frozen
class State:
    step: int
    data: Array[np.uint64]


def state(step: int) -> State:
    return State(step, np.arange(step, step + 64, dtype=np.uint64))


def altered(path: Path, at: int) -> bytes:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    return bytes(data)


@given(step=st.integers(0, 2**63 - 1), key=st.binary(min_size=16, max_size=100))
def test_what_was_signed_is_loaded_with_the_key_and_without(step: int, key: bytes) -> None:
    store, checkpoint = MemoryStore(), State(step, np.arange(5, dtype=np.uint64))
    name = archive.save(store, checkpoint, step, key=key).name
    assert same(archive.load(store, name, State, key=key), checkpoint)
    assert same(archive.load(store, name, State), checkpoint)
    assert archive.verify(store, name, key=key).meta.signed


@given(key=st.binary(min_size=16, max_size=64), other=st.binary(min_size=16, max_size=64))
def test_another_key_is_refused(key: bytes, other: bytes) -> None:
    store = MemoryStore()
    name = archive.save(store, state(1), 1, key=key).name
    if key.rstrip(b"\0") != other.rstrip(b"\0"):  # which HMAC takes for the same
        with pytest.raises(CorruptCheckpoint, match="signature does not match"):
            archive.load(store, name, State, key=other)


def test_an_unsigned_file_is_refused_with_a_key(tmp_path: Path) -> None:
    save_file(state(1), tmp_path / "one")
    with pytest.raises(CorruptCheckpoint, match="not signed") as caught:
        load_file(tmp_path / "one", State, key=KEY)
    assert "without a key" in caught.value.hint


def test_a_signed_file_is_safetensors(tmp_path: Path) -> None:
    save_file(state(1), tmp_path / "one", key=KEY)
    result = load_safetensors(tmp_path / "one")
    assert np.array_equal(result["data"], state(1).data)
    assert result["$digests"].shape == (1, 32)
    assert result["$hmac"].shape == (32,)


def test_every_flipped_bit_of_a_signed_file_is_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    packed = codec.encode(state(1), step=1, key=KEY)
    whole = b"".join(packed.chunks())
    for bit in range(len(whole) * 8):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        store.create("damaged", len(data), [data])
        with pytest.raises(CorruptCheckpoint):
            archive.verify(store, "damaged", key=KEY)
        store.delete("damaged")


def collision() -> tuple[State, State]:
    """Two states of one XXH3-128: where the secret cancels, the lanes only add up.

    https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md, XXH3 for long inputs: a lane
    adds the product of both halves of data ^ secret, and its neighbour the data.
    """
    secrets = [int.from_bytes(bytes.fromhex(h), "little") for h in ("b8fe6c39", "7c01812c")]
    pair = []
    for high in ((1000, 2000), (2000, 1000)):
        data = np.zeros(64, np.uint64)
        data[0], data[8] = (h << 32 | s for h, s in zip(high, secrets, strict=True))
        pair.append(State(1, data))
    return pair[0], pair[1]


def test_data_of_the_same_xxh3_is_refused_with_the_key_only(tmp_path: Path) -> None:
    true, false = (np.asarray(s.data).tobytes() for s in collision())
    assert xxhash.xxh3_128_digest(true) == xxhash.xxh3_128_digest(false)
    for name, key in (("signed", KEY), ("plain", None)):
        save_file(collision()[0], tmp_path / name, key=key)
        data = (tmp_path / name).read_bytes().replace(true, false)
        (tmp_path / name).write_bytes(data)
    assert same(load_file(tmp_path / "plain", State), collision()[1])
    with pytest.raises(CorruptCheckpoint, match="data is damaged"):
        load_file(tmp_path / "signed", State, key=KEY)


def test_whoever_has_no_key_cannot_sign_anew(tmp_path: Path) -> None:
    """All that a forger can compute is right; only the HMAC is an old one."""
    store = MemoryStore()
    signed = b"".join(codec.encode(state(1), step=1, key=KEY).chunks())
    forged = b"".join(codec.encode(state(2), step=1, key=OTHER).chunks())[:-32] + signed[-32:]
    store.create("forged", len(forged), [forged])
    assert same(archive.load(store, "forged", State), state(2))
    with pytest.raises(CorruptCheckpoint, match="signature"):
        archive.load(store, "forged", State, key=KEY)


def test_latest_passes_over_what_is_not_signed_and_says_why(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    archive.save(store, state(1), 1, key=KEY)
    archive.save(store, state(2), 2)
    archive.save(store, state(3), 3, key=OTHER)
    result = archive.latest(store, State, key=KEY)
    assert result is not None
    assert result.entry.step == 1
    why = [error.what for _, error in result.skipped]
    assert "another key" in why[0]
    assert "not signed" in why[1]


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "signed"])
def test_one_renamed_to_a_later_step_is_passed_over(tmp_path: Path, key: bytes | None) -> None:
    store = LocalStore(tmp_path)
    for step in (1, 2):
        archive.save(store, state(step), step, key=key)
    shutil.copy(tmp_path / archive.name_of(1), tmp_path / archive.name_of(3))
    result = archive.latest(store, State, key=key)
    assert result is not None
    assert result.entry.step == 2
    assert "its name says 3" in result.skipped[0][1].what


def test_prune_keeps_the_newest_that_is_signed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    archive.save(store, state(1), 1, key=KEY)
    archive.save(store, state(2), 2)
    assert prune(store, last(1), key=KEY) == []
    assert [entry.step for entry in prune(store, last(1))] == [1]


@pytest.mark.parametrize("key", [b"", b"x" * 15, "k" * 32, bytearray(32)])
def test_a_bad_key_is_refused_before_anything_is_written(key: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 16"):
        save_file(state(1), tmp_path / "one", key=key)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


class Counter:
    def __init__(self) -> None:
        self.step = 0
        self.data = np.zeros(3, np.uint64)

    def advance(self, steps: int) -> None:
        self.step += steps
        self.data += np.uint64(steps)

    async def checkpoint(self) -> State:
        return await capture(State, self)

    async def restore(self, checkpoint: State) -> None:
        await reinstate(checkpoint, self)


def test_a_run_signs_and_resumes_from_what_is_signed(tmp_path: Path) -> None:
    run(Counter(), tmp_path, until=3, key=KEY)
    shutil.copy(tmp_path / archive.name_of(3), tmp_path / "aside")
    archive.save(LocalStore(tmp_path), State(9, np.full(3, 9, np.uint64)), 9)
    report = run(Counter(), tmp_path, until=5, key=KEY)
    assert report.first_step == 3
    assert report.restored is not None
    assert [entry.step for entry, _ in report.restored.skipped] == [9]


def test_a_checkpointer_without_the_key_of_its_store_finds_nothing_to_believe(
    tmp_path: Path,
) -> None:
    run(Counter(), tmp_path, until=3)
    with pytest.raises(NoCheckpoint, match="not signed"):
        run(Counter(), tmp_path, until=5, key=KEY)
    assert Checkpointer(Counter(), tmp_path, key=KEY).key == KEY


def test_the_key_is_not_in_the_file_nor_in_a_repr(tmp_path: Path) -> None:
    key = os.urandom(32)
    packed = codec.encode(state(1), key=key)
    assert key not in b"".join(packed.chunks())
    assert repr(key) not in repr(packed)
