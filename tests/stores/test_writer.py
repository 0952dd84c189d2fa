"""The bytes of a file, here with buffers that are full after two pages."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointable.errors import StoreError
from checkpointable.stores.local import writer


@pytest.fixture(params=["direct", "refused", "not direct"], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LARGE", 0)
    monkeypatch.setattr(writer, "BUFFER", 8192)
    monkeypatch.setattr(writer, "_spare", [])
    pwrite = os.pwrite
    if request.param == "not direct":
        monkeypatch.setattr(writer, "_set_direct", lambda file, on: False)
    if request.param == "refused":  # by a file system that takes the flag, but no such write
        direct = set[int]()

        def flag(file: int, on: bool) -> bool:
            (direct.add if on else direct.discard)(file)
            return on

        def refusing(file: int, data: memoryview, at: int) -> int:
            if file in direct:
                raise OSError(errno.EINVAL, "not so")
            return pwrite(file, data, at)

        monkeypatch.setattr(writer, "_set_direct", flag)
        monkeypatch.setattr(os, "pwrite", refusing)


@given(st.lists(st.integers(0, 3 * 8192 + 7), max_size=12))
def test_all_bytes_are_there_in_their_order(tmp_path: Path, sizes: list[int]) -> None:
    chunks = [os.urandom(size) for size in sizes]
    file = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
    try:
        writer.write_all(file, sum(sizes), map(memoryview, chunks), tmp_path)
        assert os.pread(file, sum(sizes) + 1, 0) == b"".join(chunks)
    finally:
        os.close(file)


def test_an_error_of_a_thread_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(file: int, data: memoryview, at: int) -> int:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "pwrite", fails)
    given = iter(range(100))
    chunks = (memoryview(bytes(8192)) for _ in given)
    with (tmp_path / "a").open("wb") as file, pytest.raises(StoreError) as caught:
        writer.write_all(file.fileno(), 100 * 8192, chunks, tmp_path / "a")
    assert caught.value.where == str(tmp_path / "a")
    assert next(given) < 10  # and not after all has been read


def test_an_error_of_the_chunks_leaves_no_thread(tmp_path: Path) -> None:
    def chunks() -> Iterator[memoryview]:
        yield memoryview(bytes(5 * 8192))
        raise KeyError("broken")

    before = threading.active_count()
    with (tmp_path / "a").open("wb") as file, pytest.raises(KeyError):
        writer.write_all(file.fileno(), 6 * 8192, chunks(), tmp_path / "a")
    assert threading.active_count() == before
