"""A short soak of one kernel: see `tests.supervisor.soak`; `nox -s soak` is a long one of all."""

import random
from pathlib import Path

import pytest

from tests.helpers.depth import DEEP
from tests.supervisor.soak import KERNELS, soak


@pytest.mark.parametrize("kernel", KERNELS if DEEP else ["wave"])
def test_whatever_is_done_to_it_it_comes_to_the_same_end(kernel: str, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    soaked, wrong = soak(kernel, seed, tmp_path, steps=120)
    assert not wrong, f"seed {seed}: {soaked.harms}"
