"""`checkpointable show`."""

import sys
from pathlib import Path

import numpy as np
import orjson
import pytest

from checkpointable import archive
from tests.cli.common import FIGURES, Cli, damage, save


def test_show_a_file_as_text(cli: Cli, sample: Path) -> None:
    shown = cli("show", sample)
    assert (shown.code, shown.err) == (0, "")
    size = f"{sample.stat().st_size / 2**20:.1f} MiB"
    lines = shown.out.splitlines()
    assert lines[:4] == [
        str(sample),
        "  kernel   \\x1b[2Jclear, version 1",
        "  schema   Sample, version 1",
        "  step     7",
    ]
    assert lines[5] == f"  size     {size}, every byte verified"
    for line in [
        "  step: 7",
        "  low: -inf",
        "  label: '\\x1b[2Jclear'",
        "  when: datetime 2026-01-02 03:04:05+00:00",
        "  pair: tuple of 2",
        "    0: 1",
        "    1: Part",
        "      a: 5",
        "      inner: array[int16] (2,) 4 B",
        "  color: Color.RED",
        "  table: dict of 1",
        "    (1, 'x'): list of 2: 0.5, nan",
        f"  big: {2**100}",
        "  many: list of 1000: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, ...",
        "  floats: array[float64] (300,1000) 2.3 MiB",
    ]:
        assert line in lines
    table = {line.split()[0]: line.split()[1:] for line in lines[lines.index("arrays") + 1 :]}
    assert table["name"] == ["dtype", "shape", "bytes", "min", "max", "mean", "NaN"]
    assert table["small"] == ["bfloat16", "(3,)", "6", "B", "0.5", "1.5", "1", "1"]
    assert table["waves"] == ["complex128", "(2,)", "32", "B", "-", "-", "-", "1"]
    assert table["extreme"][-4:] == ["9.223e+18", "9.223e+18", "9.223e+18", "0"]
    assert table["flags"][-4:] == ["False", "True", "0.25", "0"]
    assert "\x1b" not in shown.out


def test_show_a_file_as_json(cli: Cli, sample: Path) -> None:
    (shown,) = cli("show", sample, "--json").events
    assert (shown["step"], shown["kernel"]["version"], shown["path"]) == (7, "1", str(sample))
    assert shown["size"] == sample.stat().st_size
    assert shown["schema"]["name"] == "Sample"
    assert shown["tree"]["low"] == {"$float": "-inf"}
    assert shown["tree"]["many"] == [*range(1000)]
    figures = ("dtype", "shape", "min", "max", "mean", "nan_count")
    result = {a["name"]: [a[key] for key in figures] for a in shown["arrays"]}
    assert result.keys() == FIGURES.keys()
    mean = result["floats"].pop(4)
    assert mean == pytest.approx(FIGURES["floats"][4], rel=1e-12)
    assert result == FIGURES | {"floats": FIGURES["floats"][:4] + FIGURES["floats"][5:]}


def test_show_the_newest_of_a_store_or_a_step(cli: Cli, three: Path) -> None:
    newest = cli("show", three)
    assert newest.out.startswith(f"three/{archive.name_of(20)} (newest of 3)\n")
    assert "  kernel   tiny, version 3\n" in newest.out
    older = cli("show", three, "8")
    assert older.out.startswith(f"three/{archive.name_of(8)}\n")
    damage(three / archive.name_of(20))
    sound = cli("show", three)
    assert sound.code == 0
    assert sound.out.startswith(f"three/{archive.name_of(16)} (newest that verifies of 3)\n")
    assert sound.err.startswith(f"warning: passed over {archive.name_of(20)}: the data is damaged")
    assert orjson.loads(cli("show", three, "--json").out)["step"] == 16


def test_show_what_cannot_be_shown(cli: Cli, three: Path) -> None:
    newest = three / archive.name_of(20)
    damage(newest)
    for words in ([newest], [three, "20"]):
        printed = cli("show", *words)
        assert (printed.code, printed.out) == (1, "")
        assert "error: " in printed.err
        assert "three" in printed.err
    assert "array 'field', block 0 of 1" in cli("show", newest).err
    absent = cli("show", three, "9")
    assert absent.code == 1
    assert "no checkpoint of step 9" in absent.err
    assert "the store holds 3 checkpoints, from step 8 to 20" in absent.err
    assert cli("show", "nowhere").code == 1
    text = cli("show", "tinykernels.py")
    assert text.code == 1
    assert "tinykernels.py" in text.err
    assert "Traceback" not in text.err


def test_show_one_array(cli: Cli) -> None:
    save(3, np.array([0.0, 1.0, np.nan, 7.0]))
    printed = cli("show", "run", "field", "--picture")
    assert (printed.code, printed.err) == (0, "")
    lines = printed.out.splitlines()
    assert lines[0] == f"run/{archive.name_of(3)}, step 3"
    assert lines[2].split() == ["field", "float64", "(4,)", "32", "B", "0", "7", "2.667", "1"]
    assert lines[4:] == ["field", "▁▂×█", "▁ 0, █ 7, × NaN"]
    assert "▁" not in cli("show", "run", 3, "field").out  # no terminal
    shown = cli("show", f"run/{archive.name_of(3)}", "field", "--json").events
    assert [one["name"] for one in shown] == ["field"]


def test_show_a_map(cli: Cli) -> None:
    save(3, np.array([[0, 1, 2], [3, 4, 4]]))
    printed = cli("show", "run", "field", "--picture")
    assert printed.out.splitlines()[-2:] == ["·▓█", "· 1.5, █ 3, each a mean"]


def test_show_draws_a_picture(cli: Cli) -> None:
    save(3, np.arange(12.0).reshape(3, 4), label="$x")
    printed = cli("show", "run", "--plot", "out.png")
    assert (printed.code, printed.err) == (0, "")
    assert printed.out.endswith("drawn in out.png\n")
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("run nothing", 64, "there is no array 'nothing'; there are: field"),
        ("run 3 field field", 64, "unexpected argument 'field'"),
        ("run --plot out.txt", 64, "give a name that ends in .png, .svg, .pdf"),
        ("run --plot no/where.png", 1, "nothing is there"),
    ],
)
def test_show_refuses(cli: Cli, words: str, code: int, message: str) -> None:
    save(3)
    printed = cli("show", *words.split())
    assert (printed.code, printed.out) == (code, "")
    assert message in printed.err


def test_without_matplotlib_it_says_what_to_install(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(3)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    printed = cli("show", "run", "--plot", "out.png")
    assert printed.code == 78
    assert printed.err == (
        "error: --plot needs matplotlib, which is not installed\n"
        "  hint: install it with: pip install 'checkpointable[plot]'\n"
    )


def test_nothing_to_draw_is_told(cli: Cli) -> None:
    save(3, np.array(["a"]))
    printed = cli("show", "run", "--plot", "out.png")
    assert printed.code == 78
    assert "there are no numbers to draw" in printed.err


@pytest.mark.parametrize(("words", "drawn"), [([], True), (["--no-picture"], False)])
def test_on_a_terminal_one_array_is_drawn(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, words: list[str], drawn: bool
) -> None:
    save(3, np.arange(8))
    cli("ls", "run")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert ("▁▂▃▄▅▆▇█" in cli("show", "run", "field", *words).out) is drawn
