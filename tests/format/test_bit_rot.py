"""Whatever a medium does to a file, it is refused, and what is damaged is named."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointable import Array, CorruptCheckpoint, LocalStore, load_file
from checkpointable.archive import latest, read_header, save, verify
from checkpointable.format import read_arrays
from checkpointable.format.layout import BLOCK, Header
from tests.helpers.depth import DEEP
from tests.helpers.equality import same


@attrs.frozen
class Two:
    step: int
    grid: Array[np.float32]
    seen: Array[np.int16]


@attrs.frozen
class Three:
    step: int
    field: Array[np.float64]
    noise: Array[np.uint8]
    seen: Array[np.int16]


USE_OLDER = Two(1, np.arange(20, dtype=np.float32), np.arange(15, dtype=np.int16))
SMALL = Two(2, np.arange(1, 22, dtype=np.float32), np.arange(5, 20, dtype=np.int16))


def large() -> Three:
    """Three arrays of 3, 3 and 1 blocks, of which two end within one."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, 2 * BLOCK + 70_007, np.uint8)
    return Three(2, random.random(3 * BLOCK // 8), noise, np.arange(999, dtype=np.int16))


class Rotten:
    """A store of a sound checkpoint, and of a newer one that is damaged and mended again."""

    def __init__(self, folder: Path, older: Two | Three, newer: Two | Three) -> None:
        self.older, self.cls = older, type(newer)
        self.store = LocalStore(folder)
        save(self.store, older, 1)
        self.name = save(self.store, newer, 2).name
        self.path = folder / self.name
        self.sound = self.path.read_bytes()
        self.header: Header = read_header(self.store, self.name)
        self.file = os.open(self.path, os.O_RDWR)

    def put(self, data: bytes, offset: int = 0) -> None:
        os.pwrite(self.file, data, offset)

    def where(self, offset: int) -> str:
        """The array and block that a byte of the file is of; nothing if it is of none."""
        for placed in self.header.arrays.values():
            at = offset - self.header.data_offset - placed.offset
            if 0 <= at < placed.nbytes:
                block = at // BLOCK
                return f"array {placed.name!r}, block {block} of {placed.blocks}"
        return ""

    def refused(self, where: str) -> None:
        with pytest.raises(CorruptCheckpoint) as caught:
            load_file(self.path, self.cls)
        assert str(self.path) in caught.value.where
        assert caught.value.where.endswith(where)
        with pytest.raises(CorruptCheckpoint) as caught:
            verify(self.store, self.name)
        assert self.name in caught.value.where
        assert caught.value.where.endswith(where)

    def passed_over(self, where: str) -> None:
        result = latest(self.store, self.cls)
        assert result is not None
        assert result.entry.step == 1
        assert same(result.checkpoint, self.older)
        ((entry, error),) = result.skipped
        assert entry.name == self.name
        assert isinstance(error, CorruptCheckpoint)
        assert self.name in error.where
        assert error.where.endswith(where)
        assert error.what

    def is_sound(self) -> bool:
        result = latest(self.store, self.cls)
        return result is not None and result.entry.step == 2 and not result.skipped


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in memory, if there is one."""
    shm = Path("/dev/shm")
    where = shm if os.access(shm, os.W_OK) else tmp_path_factory.mktemp("rot")
    with tempfile.TemporaryDirectory(prefix="checkpointable-", dir=where) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def small(folder: Path) -> Iterator[Rotten]:
    result = Rotten(folder / "small", USE_OLDER, SMALL)
    yield result
    os.close(result.file)


@pytest.fixture(scope="module")
def big(folder: Path) -> Iterator[Rotten]:
    zeros = np.zeros(1, np.uint8)
    older = Three(1, np.zeros(1), zeros, np.zeros(1, np.int16))
    result = Rotten(folder / "big", older, large())
    yield result
    os.close(result.file)


def test_each_flipped_bit_is_refused(
    small: Rotten, record_property: Callable[[str, object], None]
) -> None:
    """One bit in each byte, all eight in `nox -s deep`; `latest` once a byte of the header."""
    data = small.header.data_offset
    for byte, value in enumerate(small.sound):
        for bit in range(8) if DEEP else [byte % 8]:
            small.put(bytes([value ^ 1 << bit]), byte)
            small.refused(small.where(byte))
            if byte >= data or bit == byte % 8:
                small.passed_over(small.where(byte))
        small.put(bytes([value]), byte)
    assert small.is_sound()
    record_property("flipped bits, each refused", (8 if DEEP else 1) * len(small.sound))


def test_each_truncation_is_refused(
    small: Rotten, record_property: Callable[[str, object], None]
) -> None:
    for size in reversed(range(len(small.sound))):
        os.truncate(small.file, size)
        small.refused("")
        small.passed_over("")
    small.put(small.sound)
    assert small.is_sound()
    record_property("lengths, each refused", len(small.sound))


def test_what_is_appended_is_refused(small: Rotten) -> None:
    small.put(b"\0", len(small.sound))
    small.refused("")
    small.passed_over("")
    os.truncate(small.file, len(small.sound))
    assert small.is_sound()


Damage = list[tuple[int, bytes]]
"""What is written where."""


@st.composite
def damage(draw: st.DrawFn, rotten: Rotten) -> Damage:
    """Runs of bytes, pages of zeros, and blocks that stand where another belongs."""
    size, arrays = len(rotten.sound), rotten.header.arrays.values()
    blocks = [
        (rotten.header.data_offset + placed.offset + index * BLOCK, placed.size(index))
        for placed in arrays
        for index in range(placed.blocks)
    ]
    kind = draw(st.sampled_from(["bytes", "zeros", "swapped", "duplicated"]))
    if kind == "bytes":
        runs = st.tuples(st.integers(0, size - 1), st.binary(min_size=1, max_size=5000))
        return [(at, run[: size - at]) for at, run in draw(st.lists(runs, min_size=1, max_size=4))]
    if kind == "zeros":
        pages = st.lists(st.integers(0, size // 4096), min_size=1, max_size=4)
        return [(at * 4096, bytes(min(4096, size - at * 4096))) for at in draw(pages)]
    (one, length), (other, most) = draw(st.permutations(blocks))[:2]
    length = min(length, most)
    moved = [(one, rotten.sound[other : other + length])]
    if kind == "swapped":
        moved.append((other, rotten.sound[one : one + length]))
    return moved


@pytest.mark.parametrize("threads", [1, 3])
@given(data=st.data())
def test_the_first_damaged_block_is_named(
    big: Rotten, threads: int, data: st.DataObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_arrays, "THREADS", threads)
    monkeypatch.setattr(read_arrays, "_LEAST_BLOCKS", 1)
    now = bytearray(big.sound)
    for at, run in data.draw(damage(big)):
        now[at : at + len(run)] = run
        big.put(run, at)
    try:
        wrong = np.flatnonzero(np.frombuffer(now, np.uint8) != np.frombuffer(big.sound, np.uint8))
        if not len(wrong):
            assert big.is_sound()
            return
        first, last = int(wrong[0]), int(wrong[-1])
        # Header and digests are checked before any data.
        outside = (first < BLOCK and not big.where(first)) or last >= big.header.digests_offset
        big.refused("" if outside else big.where(first))
        big.passed_over("" if outside else big.where(first))
    finally:
        big.put(big.sound)
