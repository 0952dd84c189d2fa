"""The contract as mypy and pyright see it: the programs in `tests/typing` are checked, never run.

Pyright is the one from PyPI, which brings its Node; its first run ever fetches the rest of it.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = Path(__file__).parent / "typing"
_IGNORE = re.compile(r"  # type: ignore\[([a-z-]+)\]")
_ERROR = re.compile(r"(.+?):(\d+): error: .*\[([a-z-]+)\]")


@pytest.fixture(scope="module")
def stripped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`rejected.py` with nothing ignored."""
    path = tmp_path_factory.mktemp("typing") / "stripped.py"
    path.write_text(_IGNORE.sub("", (FOLDER / "rejected.py").read_text()))
    return path


Errors = list[tuple[Path, int, str]]
"""What a checker says: file, line and rule of each error."""


def mypy(stripped: Path) -> Errors:
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    command += ["--strict", "--warn-unused-ignores", "--no-pretty", "--show-error-codes"]
    cache = stripped.parent / "cache"  # a shared one may name files by where they were last time
    command += ["--cache-dir", str(cache), str(FOLDER), str(stripped)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    return list(_mypy_errors(ended.stdout))


def _mypy_errors(output: str) -> Iterator[tuple[Path, int, str]]:
    for line in output.splitlines():
        if ": error:" in line:
            match = _ERROR.fullmatch(line)
            assert match, line
            yield (ROOT / match[1]).resolve(), int(match[2]), match[3]


def pyright(stripped: Path) -> Errors:
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    command += ["--project", str(_pyright_project(stripped))]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    return [
        (Path(result["file"]).resolve(), result["range"]["start"]["line"] + 1, result["rule"])
        for result in json.loads(ended.stdout)["generalDiagnostics"]
        if result["severity"] == "error"
    ]


def _pyright_project(stripped: Path) -> Path:
    """Settings for these files alone; an ignore that is not needed is an error."""
    project = stripped.parent / "pyrightconfig.json"
    settings = {
        "include": [os.path.relpath(path, stripped.parent) for path in (FOLDER, stripped)],
        "extraPaths": [str(ROOT)],
        "typeCheckingMode": "standard",
        "reportUnnecessaryTypeIgnoreComment": True,
    }
    project.write_text(json.dumps(settings))
    return project


@pytest.fixture(scope="module", params=[mypy, pyright], ids=["mypy", "pyright"])
def errors(request: pytest.FixtureRequest, stripped: Path) -> Errors:
    """What a checker, run once over everything, says."""
    expected: Errors = request.param(stripped)
    return expected


def test_what_is_right_is_accepted_and_inferred(stripped: Path, errors: Errors) -> None:
    # An ignore that is not needed would be an error, too.
    assert [error for error in errors if error[0] != stripped.resolve()] == []


def test_each_wrong_line_is_rejected(stripped: Path, errors: Errors) -> None:
    lines = (FOLDER / "rejected.py").read_text().splitlines()
    expected = {n for n, line in enumerate(lines, 1) if _IGNORE.search(line)}
    assert len(expected) > 30
    assert {line for file, line, _ in errors if file == stripped.resolve()} == expected


def test_each_is_rejected_once_for_its_reason(stripped: Path) -> None:
    lines = (FOLDER / "rejected.py").read_text().splitlines()
    expected = [(n, m[1]) for n, line in enumerate(lines, 1) if (m := _IGNORE.search(line))]
    assert [error[1:] for error in mypy(stripped) if error[0] == stripped.resolve()] == expected


def test_a_users_project_needs_no_plugin(tmp_path: Path) -> None:
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = True\n")
    (tmp_path / "job.py").write_text(
        (FOLDER / "third_party.py").read_text()
        + """
from typing import assert_type

from checkpointable import Checkpointer, load_file
from checkpointable.testing import KernelTests, checkpoints

checkpointer = Checkpointer(Walk(), "runs/walk")
assert_type(checkpointer, Checkpointer[WalkCheckpoint])
assert_type(load_file("file", WalkCheckpoint), WalkCheckpoint)


class TestWalk(KernelTests[WalkCheckpoint]):
    def make(self) -> Walk:
        return Walk()
"""
    )
    ended = subprocess.run(
        [sys.executable, "-m", "mypy", "job.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
