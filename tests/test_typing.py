"""The contract as mypy sees it: the programs in `tests/typing` are checked, never run."""

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


@pytest.fixture(scope="module")
def errors(stripped: Path) -> list[tuple[Path, int, str]]:
    """What mypy, run once over everything, says: file, line and code of each error."""
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    command += ["--strict", "--warn-unused-ignores", "--no-pretty", "--show-error-codes"]
    cache = stripped.parent / "cache"  # a shared one may name files by where they were last time
    command += ["--cache-dir", str(cache), str(FOLDER), str(stripped)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    return list(_errors(ended.stdout))


def _errors(said: str) -> Iterator[tuple[Path, int, str]]:
    for line in said.splitlines():
        if ": error:" in line:
            match = _ERROR.fullmatch(line)
            assert match, line
            yield (ROOT / match[1]).resolve(), int(match[2]), match[3]


def test_what_is_right_is_accepted_and_inferred(
    stripped: Path, errors: list[tuple[Path, int, str]]
) -> None:
    # An ignore that is not needed would be an error, too.
    assert [error for error in errors if error[0] != stripped.resolve()] == []


def test_each_wrong_line_is_rejected_once(
    stripped: Path, errors: list[tuple[Path, int, str]]
) -> None:
    lines = (FOLDER / "rejected.py").read_text().splitlines()
    expected = [(n, m[1]) for n, line in enumerate(lines, 1) if (m := _IGNORE.search(line))]
    assert len(expected) > 30
    assert [error[1:] for error in errors if error[0] == stripped.resolve()] == expected
