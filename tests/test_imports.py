"""What is never imported where, and how much is at the top of the package."""

import subprocess
import sys

import pytest

from tests.helpers.imports import MODULES, ROOT, absolute_imports, imported_parts, part
from tests.test_layers import LEVELS


def test_the_top_shows_the_architecture() -> None:
    modules = {path.stem for path in ROOT.glob("*.py")} - {"__init__", "__main__"}
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert len(modules) <= 10
    assert len(folders) <= 14
    assert modules | folders | {"__init__", "__main__"} == set(LEVELS)


def test_only_the_kit_imports_the_kit() -> None:
    for module in MODULES:
        assert part(module) == "testing" or "testing" not in imported_parts(module), module


def test_kernels_use_the_public_api_only() -> None:
    for module in MODULES:
        if part(module) == "kernels":
            assert imported_parts(module) <= {"__init__", "kernels"}, module


def test_only_device_arrays_and_kernels_import_numba() -> None:
    for module, path in MODULES.items():
        if part(module) != "kernels" and path.parent != ROOT / "arrays" / "cuda":
            assert "numba" not in {n.split(".")[0] for n in absolute_imports(module)}, module


@pytest.mark.parametrize("module", ["checkpointable", "checkpointable.kernels"])
def test_importing_loads_neither_numba_nor_the_extras_nor_what_is_slow(module: str) -> None:
    code = f"import {module}, sys; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = {"asyncio", "concurrent.futures", "cattrs"}
    extras = {"typer", "rich", "ml_dtypes", "hypothesis", "obstore"}
    assert not {"numba", *extras, *slow} & set(out.stdout.split())


def test_without_hypothesis_the_kit_reports_what_to_install() -> None:
    code = "import sys; sys.modules['hypothesis'] = None; import checkpointable.testing"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1] == (
        "ImportError: checkpointable.testing needs Hypothesis: "
        "pip install 'checkpointable[testing]'"
    )
