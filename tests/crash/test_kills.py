"""SIGKILL at random moments: more of them with `python -m tests.crash.kills`."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.crash import kills
from tests.crash.killed_process import Victims, victims

KILLS = 10


@pytest.fixture(scope="module")
def prey() -> Iterator[Victims]:
    with victims() as processes:
        yield processes


@pytest.mark.parametrize("way", kills.WAYS, ids=["O_TMPFILE", "named"])
@pytest.mark.parametrize("workload", kills.WORKLOADS)
def test_killed_at_random_moments(
    prey: Victims,
    workload: str,
    way: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    result = kills.kill(prey, workload, way, tmp_path, KILLS, random.randrange(2**32))
    record_property("kills at random moments", result.kills)
    assert not result.wrong


def test_a_broken_promise_is_noticed(prey: Victims, tmp_path: Path) -> None:
    """Pruning before the save: a kill between them leaves nothing."""
    result = kills.kill(prey, "saves_and_prunes", "prune_before_save", tmp_path, 1000, 0, enough=1)
    assert result.wrong
