"""Reads that are copied from a mapping: the same bytes, and errors where a mapping would kill."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from checkpointable import CorruptCheckpoint
from checkpointable.stores.local.file import open_reader
from checkpointable.stores.local.mapped import Mapping

MIB = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    data = np.random.default_rng(1).integers(0, 256, 4 * MIB + 5, np.uint8)
    data.tofile(tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize("offset", [0, 1, 4095, 4096, MIB + 7, 3 * MIB + 5])
def test_what_is_in_memory_is_copied(path: Path, offset: int) -> None:
    buffer = bytearray(MIB)
    with path.open("rb") as file:
        mapping = Mapping(file.fileno(), path.stat().st_size)
        assert mapping.copy(offset, memoryview(buffer))
    assert buffer == path.read_bytes()[offset : offset + MIB]


def test_what_is_not_in_memory_is_left_to_read(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        mapping, buffer = Mapping(file.fileno(), path.stat().st_size), bytearray(MIB)
        if mapping.copy(2 * MIB, memoryview(buffer)):
            pytest.skip("the page cache keeps it, as on tmpfs")
    assert buffer == bytes(MIB)


def test_a_file_that_was_cut_short_is_corrupt(path: Path) -> None:
    buffer = memoryview(bytearray(MIB))
    with open_reader(path) as reader:
        reader.read_into(0, buffer)
        os.truncate(path, MIB)
        with pytest.raises(CorruptCheckpoint, match="the file ends"):
            reader.read_into(2 * MIB, buffer)


def test_beyond_the_end_is_corrupt(path: Path) -> None:
    with open_reader(path) as reader, pytest.raises(CorruptCheckpoint, match="the file ends"):
        reader.read_into(3 * MIB + 6, memoryview(bytearray(MIB)))


def test_an_empty_file_has_no_mapping(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with (tmp_path / "empty").open("rb") as file, pytest.raises(OSError, match="empty"):
        Mapping(file.fileno(), 0)


CUT_SHORT = """
import os, sys
from checkpointable.stores.local.mapped import Mapping

class Sure(Mapping):  # that it is in memory
    def _call(self, name, begin, size, what):
        if name == "mincore":
            what[0] = b"\\1"
            return 0
        return super()._call(name, begin, size, what)

with open(sys.argv[1], "r+b") as file:
    mapping = Sure(file.fileno(), os.path.getsize(sys.argv[1]))
    file.truncate(4096)
    print(mapping.copy(1 << 20, memoryview(bytearray(1 << 20))))
"""


def test_the_system_is_asked_before_what_is_gone_is_touched(path: Path) -> None:
    """In a process of its own: if it is not, that one is killed (SIGBUS)."""
    command = [sys.executable, "-c", CUT_SHORT, str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "False\n"), ended.stderr
