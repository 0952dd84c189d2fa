"""Imports point downward only: the table of the layers is here, and this test holds it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import checkpointable

ROOT = Path(checkpointable.__file__).parent
LAYERS = {
    "errors": 0,
    "protocol": 1, "annotations": 1, "dtypes": 1, "strictjson": 1, "device": 1,
    "threads": 1, "events": 1, "policy": 1, "costs": 1, "preempt": 1, "coordinator": 1, "boxes": 1,
    "fields": 2, "agreement": 2, "layout": 2, "store": 2, "sinks": 2, "supervised": 2,
    "supported": 3, "shards": 3, "digests": 3, "blocks": 3, "slabs": 3, "headers": 3, "delta": 3,
    "convert": 3, "stores": 3,
    "container": 4, "names": 4, "keep": 4, "schema": 4, "tree": 4,
    "opening": 5, "attributes": 5, "migrations": 5,
    "reading": 6,
    "codec": 7, "verbatim": 7,
    "archive": 8, "single": 8,
    "distributed": 9, "saving": 9, "retention": 9, "tier": 9,
    "checkpointer": 10, "copier": 10,
    "tiers": 11, "loop": 11, "child": 11,
    "runner": 12,
    "endings": 13,
    "supervisor": 14,
    "__init__": 14,
    "kernels": 15, "testing": 15, "cli": 16, "__main__": 17,
}  # fmt: skip
MODULES = sorted(ROOT.rglob("*.py"))


def _part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[str]:
    """The parts of the package that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            assert not isinstance(node, ast.ImportFrom), f"{path}: a relative import"
            continue
        for name in names:
            if name.split(".")[0] == "checkpointable":
                part = [*name.split("."), "__init__"][1]
                yield part if part in LAYERS else "__init__"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downward(path: Path) -> None:
    own = _part(path)
    for imported in _imports(path):
        assert imported == own or LAYERS[imported] < LAYERS[own], f"{own} imports {imported}"


def test_only_the_kit_knows_the_kit() -> None:
    for path in MODULES:
        assert _part(path) == "testing" or "testing" not in set(_imports(path)), path.name


def test_kernels_use_the_public_api_only() -> None:
    for path in (ROOT / "kernels").glob("*.py"):
        assert set(_imports(path)) <= {"__init__", "kernels"}, path.name


def test_only_device_and_kernels_know_numba() -> None:
    for path in MODULES:
        if _part(path) not in ("device", "kernels"):
            assert "numba" not in {
                (node.names[0].name if isinstance(node, ast.Import) else str(node.module)).split(
                    "."
                )[0]
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Import | ast.ImportFrom)
            }, path.name


@pytest.mark.parametrize("module", ["checkpointable", "checkpointable.kernels"])
def test_importing_loads_neither_numba_nor_the_extras_nor_what_is_slow(module: str) -> None:
    code = f"import {module}, sys; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = {"asyncio", "concurrent.futures", "cattrs"}
    extras = {"typer", "rich", "ml_dtypes", "hypothesis", "obstore"}
    assert not {"numba", *extras, *slow} & set(out.stdout.split())


def test_without_hypothesis_the_kit_says_what_to_install() -> None:
    code = "import sys; sys.modules['hypothesis'] = None; import checkpointable.testing"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1] == (
        "ImportError: checkpointable.testing needs Hypothesis: "
        "pip install 'checkpointable[testing]'"
    )
