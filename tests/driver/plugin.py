"""`pytest -p tests.driver.plugin`: the stand-in is the CUDA driver of this process."""

# mypy: allow-untyped-defs, allow-untyped-calls

import importlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_folder = tempfile.TemporaryDirectory(prefix="driver-")
# Kernels of the cache are bound without their PTX.
os.environ |= {"NUMBA_ENABLE_CUDASIM": "0", "NUMBA_CACHE_DIR": _folder.name,
               "NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS": "0"}  # fmt: skip

from tests.driver.driver import DRIVER, install  # noqa: E402

install(Path(_folder.name))


def _tell_ptx() -> None:
    """Have Numba tell the stand-in the PTX of every kernel that it loads."""
    kernel: Any = importlib.import_module("numba.cuda.dispatcher")._Kernel
    bind = kernel.bind

    def bound(self):
        if self.entry_name not in DRIVER.ptx:
            DRIVER.ptx[self.entry_name] = self._codelibrary.get_asm_str(cc=(9, 0))
        return bind(self)

    kernel.bind = bound


_tell_ptx()


@pytest.fixture(autouse=True)
def no_complaints() -> Iterator[None]:
    """Nothing is asked of the driver that a real one would refuse."""
    DRIVER.complaints.clear()
    yield
    assert not DRIVER.complaints
