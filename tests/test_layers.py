"""Imports point downward only: the table of the layers is here, and this test holds it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import checkpointable

ROOT = Path(checkpointable.__file__).parent
LAYERS = [
    ["errors", "threads", "events"],
    ["arrays", "protocol", "sinks"],
    ["schema", "stores"],
    ["tree", "format"],
    ["archive", "capture"],
    ["distributed", "tiers", "files"],
    ["checkpointer"],
    ["runner", "testing"],
    ["supervisor", "__init__"],
    ["kernels"],
    ["cli"],
    ["__main__"],
]
LEVELS = {part: level for level, parts in enumerate(LAYERS) for part in parts}
MODULES = sorted(ROOT.rglob("*.py"))


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


NAMES = {_dotted(path): path for path in MODULES}


def _part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[str]:
    """The modules of the package that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, last = name.rpartition(".")
            public = package == "checkpointable" and last in checkpointable.__all__
            if name.split(".")[0] == "checkpointable":
                yield name if name in NAMES and not public else package


def _imported_parts(path: Path) -> set[str]:
    return {_part(NAMES[name]) for name in _imports(path)}


def test_imports_point_downward() -> None:
    for path in MODULES:
        own = _part(path)
        for part in _imported_parts(path) - {own}:
            assert LEVELS[part] < LEVELS[own], f"{path.relative_to(ROOT)} imports {part}"


def test_no_modules_import_each_other() -> None:
    """In a folder, too; its `__init__` imports them, and they import one another, but not it."""
    modules = {
        name: set(_imports(path)) for name, path in NAMES.items() if path.name != "__init__.py"
    }
    for name in modules:
        package = name.rpartition(".")[0]
        inside = {package, *(name.rsplit(".", n)[0] for n in range(1, name.count(".")))}
        assert not modules[name] & (inside - {"checkpointable"}), f"{name} imports its own folder"
    list(
        TopologicalSorter(
            {n: imported & modules.keys() for n, imported in modules.items()}
        ).static_order()
    )


def test_the_top_shows_the_architecture() -> None:
    modules = {path.stem for path in ROOT.glob("*.py")} - {"__init__", "__main__"}
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert len(modules) <= 10
    assert len(folders) <= 14
    assert modules | folders | {"__init__", "__main__"} == set(LEVELS)


def test_only_the_kit_knows_the_kit() -> None:
    for path in MODULES:
        assert _part(path) == "testing" or "testing" not in _imported_parts(path), path.name


def test_kernels_use_the_public_api_only() -> None:
    for path in (ROOT / "kernels").rglob("*.py"):
        assert _imported_parts(path) <= {"__init__", "kernels"}, path.name


def test_only_device_arrays_and_kernels_know_numba() -> None:
    for path in MODULES:
        if _part(path) != "kernels" and path.parent != ROOT / "arrays" / "cuda":
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
