"""`checkpointable ls`."""

import os
import sys
from pathlib import Path

import pytest

from checkpointable import LocalStore, archive, load_file
from tests.cli.common import Cli, Result, damage


def test_ls(cli: Cli, three: Path) -> None:
    kernel_free = load_file(three / archive.name_of(8), sys.modules["tinykernels"].TinyCheckpoint)
    archive.save(LocalStore(three), kernel_free, 8)
    os.utime(three / archive.name_of(16), (10**9, 10**9))
    listed = cli("ls", three)
    assert (listed.code, listed.err) == (0, "")
    lines = listed.out.splitlines()
    titles = ["step", "attempt", "kind", "size", "created", "(UTC)", "age", "name"]
    assert lines[0].split() == titles
    steps = [line.split()[0] for line in lines[1:-1]]
    assert steps == ["8", "8", "16", "20"]
    assert lines[2].split()[1] == "1"
    assert "2001-09-09 01:46:40" in lines[3]
    sizes = [path.stat().st_size for path in three.glob("*.safetensors")]
    assert lines[-1] == f"4 checkpoints, {sum(sizes) / 1024:.1f} KiB, in three"

    events = cli("ls", three, "--json").events
    assert [(e["step"], e["attempt"]) for e in events] == [(8, 0), (8, 1), (16, 0), (20, 0)]
    assert {e["name"]: e["size"] for e in events} == {
        path.name: path.stat().st_size for path in three.glob("*.safetensors")
    }
    assert events[2]["created"] == "2001-09-09T01:46:40+00:00"


def test_ls_opens_none_of_ten_thousand(
    cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(10_000):
        (here / archive.name_of(step)).touch()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a checkpoint was opened")

    monkeypatch.setattr(LocalStore, "open", refuse)
    monkeypatch.setattr("checkpointable.stores.local.store.open_reader", refuse)
    listed = cli("ls", here)
    assert listed.code == 0
    assert len(listed.out.splitlines()) == 10_002
    assert listed.out.splitlines()[-1] == f"10000 checkpoints, 0 B, in {here}"
    assert len(cli("ls", here, "--json").events) == 10_000


def test_ls_of_nothing(cli: Cli, here: Path) -> None:
    assert cli("ls", here) == Result(0, f"no checkpoints in {here}\n", "")
    absent = cli("ls", "absent")
    assert absent.code == 1
    assert "no such directory" in absent.err
    assert cli("ls", "absent", "--json").events[0]["error"] == "NoCheckpoint"
    assert not Path("absent").exists()


def test_ls_says_which_are_deltas(cli: Cli, chain: list[str]) -> None:
    lines = cli("ls", "run").out.splitlines()
    assert lines[0].split() == ["step", "kind", "size", "created", "(UTC)", "age", "name"]
    assert [line.split()[1] for line in lines[1:-1]] == ["full", "delta", "delta"]


def test_ls_long_says_what_is_their_own_and_the_seal(cli: Cli, chain: list[str]) -> None:
    events = cli("ls", "run", "--long", "--json").events
    assert [event["dirty"] for event in events] == [1.0, 0.25, 0.25]
    with archive.opened(LocalStore("run"), chain[1]) as opened:
        assert events[1]["seal"] == opened.seal.hex()
        assert f"25.0%  {opened.seal.hex()[:12]}  {chain[1]}" in cli("ls", "run", "--long").out


def test_ls_long_does_not_read_the_data(cli: Cli, chain: list[str]) -> None:
    damage(Path("run") / chain[2])
    assert cli("ls", "run", "--long").code == 0


def test_ls_check_finds_what_is_damaged(cli: Cli, chain: list[str]) -> None:
    assert cli("ls", "run", "--check").code == 0
    damage(Path("run") / chain[2])
    result = cli("ls", "run", "--check")
    assert result.code == 1
    lines = result.out.splitlines()
    assert lines[2].endswith(f"{chain[1]}  ok")
    assert f"{chain[2]}  damaged: the data is damaged (array 'field', block 2 of 4)" in lines[3]
