"""`checkpointable fork`, and the copies it makes."""

import fcntl
import os
from pathlib import Path

import numpy as np
import pytest

from checkpointable import LocalStore, archive, load_file
from checkpointable.errors import CheckpointExists, NoCheckpoint
from checkpointable.stores.local import copies
from tests.cli.common import Cli, Result, Shot, damage, save


def test_a_fork_holds_the_step_and_what_it_continues(cli: Cli, chain: list[str]) -> None:
    save(40)
    result = cli("fork", "run", 20, "deep/new")
    assert result == Result(0, "deep/new begins at step 20: 2 files, 2 linked\n", "")
    forked = LocalStore("deep/new")
    assert [entry.name for entry in archive.entries(forked)] == chain[:2]
    expected = load_file(Path("run") / chain[1], Shot).field
    assert np.array_equal(archive.load(forked, chain[1], Shot).field, expected)
    assert Path("deep/new", chain[0]).stat().st_nlink == 2


def test_a_fork_outlives_where_it_came_from(cli: Cli, chain: list[str]) -> None:
    assert cli("fork", "run", 30, "new").code == 0
    assert cli("prune", "run", "--keep", "1", "--compact").code == 0
    assert cli("verify", "new").code == 0


def test_a_run_goes_on_from_a_fork(cli: Cli, walked: str) -> None:
    assert cli("fork", walked, 10, "new").code == 0
    result = cli("run", "walks:Walk", "--store", "new", "--until", "20")
    assert "resumed from step 10" in result.out
    assert cli("diff", f"new/{archive.name_of(20)}", f"run/{archive.name_of(20)}").code == 0


def test_a_fork_replaces_nothing(cli: Cli) -> None:
    save(1)
    Path("new").mkdir()
    result = cli("fork", "run", 1, "new")
    assert result.code == 1
    assert result.err == (
        f"error: it already exists\n  where: {Path('new').absolute()}\n"
        "  hint: give the name of a new directory\n"
    )
    assert [*Path("new").iterdir()] == []


def test_a_fork_of_a_damaged_one_leaves_nothing(cli: Cli, chain: list[str]) -> None:
    damage(Path("run") / chain[0])
    before = [*Path().iterdir()]
    assert cli("fork", "run", 10, "new").code == 1
    assert [*Path().iterdir()] == before


@pytest.mark.parametrize("fault", ["link", "clone"])
def test_where_nothing_can_be_linked_it_is_copied(
    cli: Cli, chain: list[str], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    if fault == "clone":
        monkeypatch.setattr(fcntl, "ioctl", refuse)
    result = cli("fork", "run", 30, "new")
    assert result.code == 0
    assert "linked" not in result.out
    assert cli("verify", "new").code == 0
    for name in chain:
        old, new = Path("run", name), Path("new", name)
        assert old.read_bytes() == new.read_bytes()
        assert old.stat().st_mtime_ns == new.stat().st_mtime_ns


@pytest.mark.parametrize("links", [True, False])
def test_a_copy_never_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    with pytest.raises(CheckpointExists):
        copies.duplicate(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "b"


def test_a_copy_of_nothing_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NoCheckpoint):
        copies.duplicate(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()
