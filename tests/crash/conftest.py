"""Fixtures that the tests of crashes share."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, if there is one: where tens of thousands of states are built."""
    shm = Path("/dev/shm")
    where = shm if os.access(shm, os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(prefix="checkpointable-", dir=where) as name:
        yield Path(name)
