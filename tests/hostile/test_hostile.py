"""Hostile files: refused with an error of ours, within bounds, and without doing anything."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import TZPATH

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.crash.recorder import need_strace
from tests.hostile import forge, grammar, oracle, reader
from tests.hostile.changes import changed
from tests.hostile.make_regressions import FOLDER, regressions

ROOT = Path(__file__).parents[2]
FILES = sorted(FOLDER.glob("*.bin"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_known_hole_stays_closed(path: Path) -> None:
    due = path.stem.split(".")[1]
    verdict = oracle.judge(path.read_bytes())
    assert verdict == (due if due == "accepted" else f"refused: {due}")


def test_every_known_hole_has_its_file() -> None:
    assert {path.stem for path in FILES} >= {name for name, _ in regressions()}


def test_the_valid_files_are_accepted() -> None:
    assert [oracle.judge(base.data) for base in forge.bases()] == ["accepted"] * 6


@given(st.binary(max_size=64))
def test_an_almost_valid_file_is_refused_or_sound(choices: bytes) -> None:
    oracle.judge(grammar.make(choices))


@given(st.binary(max_size=300), st.integers(0, 5), st.integers(0, 5000))
def test_any_bytes_are_refused_or_sound(data: bytes, base: int, at: int) -> None:
    whole = forge.bases()[base].data
    assert oracle.judge(data).startswith("refused")
    oracle.judge(whole[:at] + data + whole[at + len(data) :])


def test_the_choices_reach_behind_the_seal() -> None:
    """Or the properties above would prove nothing."""
    verdicts = [oracle.judge(data) for data in generated(300)]
    assert verdicts.count("accepted") > 20
    assert verdicts.count("refused: InvalidCheckpoint") > 50


def generated(count: int) -> list[bytes]:
    noise = [bytes((i * 7 + k * k * (i % 251)) % 256 for k in range(48)) for i in range(count)]
    return [grammar.make(choices) for choices in noise]


# --- bounds -----------------------------------------------------------------------------------


def bombs() -> Iterator[bytes]:
    """The JSON that takes most memory for its length, in places where it is passed on."""
    _, bag, grid, _, old, _ = forge.bases()
    for item in (b"{}", b"[]", b'{"":0}', b"0", b'""', b"0.5", b'{"$array":""}', b'{"$x":[]}'):
        many = orjson.Fragment(b"[" + b",".join([item] * (30_000 // len(item))) + b"]")
        for base in (grid, old):
            yield forge.with_text(base, orjson.dumps(base.about | {"tree": {"step": many}}))
        for key in ("items", "shapes", "either"):
            tree = bag.about["tree"] | {key: many}
            yield forge.with_text(bag, orjson.dumps(bag.about | {"tree": tree}))
        yield forge.with_text(grid, orjson.dumps(grid.about | {"schema": {"classes": many}}))


@pytest.mark.parametrize(
    "files",
    [lambda: [path.read_bytes() for path in FILES], lambda: generated(200), bombs],
    ids=["regressions", "generated", "bombs"],
)
def test_memory_is_bounded_by_the_size_of_the_file(files: Any) -> None:
    for data in files():
        assert oracle.peak(data) <= oracle.bound(data)


# --- and nothing else happens -----------------------------------------------------------------


def laid(folder: Path, files: list[bytes]) -> Path:
    store = folder / "store"
    store.mkdir()
    for number, data in enumerate(files, 1):
        (store / f"step-000000000007.{number}.safetensors").write_bytes(data)
    return store


def run(*arguments: object, path: Path = ROOT) -> str:
    """Run Python; the tests' own directory is on its path, and `path`."""
    env = os.environ | {"PYTHONPATH": f"{path}{os.pathsep}{ROOT}"}
    command = [*map(str, arguments)]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


def test_nothing_outside_the_store_is_opened(tmp_path: Path) -> None:
    need_strace()
    store = laid(tmp_path, [path.read_bytes() for path in FILES] + generated(300))
    (tmp_path / "secret").write_bytes(forge.bases()[0].data)
    (store / "step-000000000008.safetensors").symlink_to(tmp_path / "secret")
    (store / "link").symlink_to("/dev/zero")
    os.mkfifo(store / "step-000000000009.safetensors")
    log = tmp_path / "log"
    trace = ["strace", "-f", "-y", "-qq", "-e", "trace=open,openat,openat2,creat,execve", "-o", log]
    output = run(*trace, sys.executable, "-W", "ignore", "-m", "tests.hostile.reader", store)
    lines = log.read_text().split(reader.BEGIN, 1)[1].splitlines()[1:]
    assert len(lines) > 6 * len(FILES)
    assert "step-000000000007.1.safetensors" in output
    assert not {"link", "step-000000000008.safetensors"} & set(output.split())
    allowed = (f"{store}/", *(f"{folder}/" for folder in TZPATH))
    for line in lines:
        if match := re.search(
            r'\b(?:open\w*|creat|execve)\([^"]*"([^"]*)".*?(?:= \d+<(.*)>)?$', line
        ):
            for path in filter(None, match.groups()):
                inside = path == str(store) or path.startswith(allowed) or "/tzdata/" in path
                assert inside, line


def test_nothing_that_a_file_names_is_imported(tmp_path: Path) -> None:
    marker, planted = tmp_path / "imported", tmp_path / "planted"
    (planted / "hostile_named").mkdir(parents=True)
    code = f"import pathlib; pathlib.Path({str(marker)!r}).touch()"
    for name in ("__init__", "Thing", "x"):
        (planted / "hostile_named" / f"{name}.py").write_text(code)
    store = laid(tmp_path, [path.read_bytes() for path in FILES] + [*naming("hostile_named")])
    run(sys.executable, "-m", "tests.hostile.reader", store, path=planted)
    for command in (["ls"], ["show"], ["show", "--json"]):
        run(sys.executable, "-m", "checkpointable", *command, store, path=planted)
    assert not marker.exists()
    run(sys.executable, "-c", "import hostile_named", path=planted)
    assert marker.exists()  # it would have been seen


def naming(module: str) -> Iterator[bytes]:
    """Files with the name of a module, or of something in it, in the place of each text."""
    for base in forge.bases()[:4]:
        for path in forge.texts(base.about):
            for name in (module, f"{module}.Thing", f"{module}:Thing", f"{module}/x"):
                about = changed(base.about, path, lambda _, name=name: name)  # type: ignore[misc]
                yield forge.with_text(base, orjson.dumps(about))
