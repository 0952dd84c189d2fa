"""Fixtures of the tests of the commands."""

import sys
from pathlib import Path

import numpy as np
import pytest

from checkpointable import KernelMetadata, LocalStore, archive
from tests.cli.common import BLOCK, KERNELS, SAMPLE, WALKS, Cli, save


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tinykernels.py").write_text(KERNELS)
    (tmp_path / "broken_module.py").write_text("import does_not_exist_at_all")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "tinykernels", raising=False)
    return tmp_path


@pytest.fixture
def cli(here: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def sample(here: Path) -> Path:
    kernel = KernelMetadata("\x1b[2Jclear", version="1")
    return here / archive.save(LocalStore(here), SAMPLE, 7, kernel=kernel).name


@pytest.fixture
def three(cli: Cli) -> Path:
    assert cli("run", "tinykernels:Tiny", "--every", "8", "--store", "three").code == 0
    return Path("three")


@pytest.fixture
def chain(cli: Cli) -> list[str]:
    """A full checkpoint of four blocks, and two deltas of one each, of 4 MiB in all."""
    field = np.zeros(4 * BLOCK, np.uint8)
    names = [save(10, field)]
    for step in (20, 30):
        field[step * BLOCK // 10 - BLOCK] = step
        names.append(save(step, field, base=names[-1]))
    return names


@pytest.fixture
def walked(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "walks.py").write_text(WALKS)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "walks", raising=False)
    run = ("run", "walks:Walk", "--store", "run", "--until", "30", "--every", "10", "--keep", "9")
    assert cli(*run).code == 0
    return "run"
