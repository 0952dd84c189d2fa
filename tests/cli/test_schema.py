"""`checkpointable schema`, on the classes and files of `tests/golden`."""

from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest

from checkpointable import checkpoint, save_file
from checkpointable.cli import main
from tests.golden.make import FOLDER
from tests.golden.values import WAVE


@checkpoint("stranded", version=2)
@attrs.frozen
class Stranded:
    x: int


class Silent:
    async def checkpoint(self): ...  # type: ignore[no-untyped-def]


WALKS = sorted((FOLDER / "format-1").glob("walk-*"))
SHOWN = """\
walk, version 3, fingerprint {fingerprint}
  step      int
  position  array[float32]
  color     Color

Color
  RED
  GREEN

from older versions
  1 to 2  tests.golden.values.steps_are_one_step
  2 to 3  {second}
"""
SECOND = "tests.golden.values.positions_are_rows_of_single_precision, color added, note removed"


class Cli:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: str | Path) -> tuple[int, str, str]:
        code = main(["schema", *map(str, words)])
        out, err = self.capsys.readouterr()
        return code, out, err

    def events(self, *words: str | Path) -> tuple[int, list[dict[str, Any]]]:
        code, out, _ = self(*words, "--json")
        return code, [orjson.loads(line) for line in out.splitlines()]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def test_it_shows_what_a_class_stores_and_how_older_files_are_read(cli: Cli) -> None:
    (_, (result,)) = cli.events("tests.golden.values:Walk")
    expected = SHOWN.format(fingerprint=result["fingerprint"], second=SECOND)
    assert cli("tests.golden.values:Walk") == (0, expected, "")
    assert result["classes"]["walk"] == {
        "step": "int",
        "position": "array[float32]",
        "color": "Color",
    }
    assert result["from_older_versions"]["2"] == SECOND


def test_a_kernel_stands_for_its_checkpoints(cli: Cli) -> None:
    code, out, _ = cli("wave")
    assert code == 0
    assert out.startswith("wave, version 1, fingerprint ")


def test_files_that_can_be_loaded(cli: Cli) -> None:
    code, out, err = cli("tests.golden.values:Walk", "--check", *WALKS)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"migrates  {WALKS[0]}  step 0, version 1 to 3",
        f"migrates  {WALKS[1]}  step 0, version 2 to 3",
        f"same      {WALKS[2]}  step 0",
    ]
    code, events = cli.events("tests.golden.values:Walk", "--check", *WALKS)
    assert [(e["path"], e["ok"], e["version"]) for e in events] == [
        (str(path), True, n) for n, path in enumerate(WALKS, 1)
    ]


def test_files_that_cannot_be_loaded_say_why(cli: Cli, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(WALKS[0].read_bytes()[:-1])
    save_file(WAVE, tmp_path / "step-000000000003.safetensors", step=3)
    code, out, err = cli("tests.golden.values:Walk2", "--check", *WALKS, damaged, tmp_path)
    assert (code, err) == (1, "")
    output = [line for line in out.splitlines() if not line.startswith("  hint: ")]
    assert [line.split()[0] for line in output] == ["migrates", "same", *["refused"] * 3]
    assert "version 3, and this program knows it up to version 2" in output[2]
    assert "cut short" in output[3] or "calls for" in output[3]
    assert "the checkpoint holds wave version 1, the class is walk version 2" in output[4]
    hints = [line for line in out.splitlines() if line.startswith("  hint: ")]
    assert "install the version of the program that wrote it" in hints[0]
    _, events = cli.events("tests.golden.values:Walk2", "--check", WALKS[2], damaged)
    assert [(e["ok"], e["error"]) for e in events] == [
        (False, "SchemaMismatch"), (False, "CorruptCheckpoint"),
    ]  # fmt: skip


def test_a_version_that_nothing_leads_from_is_shown_as_refused(cli: Cli) -> None:
    code, out, _ = cli("tests.cli.test_schema:Stranded")
    assert code == 0
    assert out.endswith("  1 to 2  nothing: files of this version are refused\n")
    _, (result,) = cli.events("tests.cli.test_schema:Stranded")
    assert result["from_older_versions"] == {"1": None}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["tests.golden.values:Walk", "file"], 64, "--check needs files"),
        (["tests.golden.values:Walk", "--check"], 64, "--check needs files"),
        (["nothing"], 64, "no kernel is named 'nothing'"),
        (["tests.cli.test_schema:Silent"], 78, "where: Silent.checkpoint"),
        (["tests.golden.values:Color"], 78, "not a class with fields"),
        (["tests.golden.values:Walk", "--check", "/nowhere"], 1, "no such directory"),
    ],
    ids=range(6),
)
def test_wrong_words_are_refused(cli: Cli, words: list[str], code: int, message: str) -> None:
    got, out, err = cli(*words)
    assert (got, out) == (code, "")
    assert message in err
