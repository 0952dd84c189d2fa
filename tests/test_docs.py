"""Everything shown to users runs: README, docstrings, examples."""

import doctest
import importlib
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import checkpointable
from checkpointable.archive import name_of
from checkpointable.cli import main
from checkpointable.cli.run._factory import find_factory, read_options
from checkpointable.cli.run._mpi import mpi_variant
from tests.helpers.depth import DEEP

ROOT = Path(__file__).parents[1]


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


BLOCKS = blocks("README.md")
RUN = "import runpy; runpy.run_path"


def run_program(code: str, folder: Path, **environment: str) -> str:
    """Run a program as a user would, in a folder of its own; warnings are errors."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder, capture_output=True, text=True, env=os.environ | environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


PAGES = ["README.md", *(str(page.relative_to(ROOT)) for page in sorted(ROOT.glob("docs/*.md")))]
SHOWN = [(page, n) for page in PAGES for n in range(len(blocks(page)))]


@pytest.fixture(scope="session")
def heat(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the README's kernel lies: in one place, so that Numba compiles it once."""
    folder = tmp_path_factory.mktemp("heat")
    (folder / "heat.py").write_text(BLOCKS[0])
    return str(folder)


@pytest.mark.parametrize(("page", "n"), SHOWN)
def test_what_is_shown_runs_as_printed(page: str, n: int, tmp_path: Path, heat: str) -> None:
    block = blocks(page)[n]
    (tmp_path / "test_program.py").write_text(block)
    if "heat.py" in block:
        (tmp_path / "heat.py").write_text(BLOCKS[0])
    if "\nclass Test" in block or "\ndef test_" in block:
        program = "import pytest; raise SystemExit(pytest.main(['-q', '-p', 'no:cacheprovider']))"
        output = run_program(program, tmp_path, PYTHONPATH=heat)
        assert re.search(r"^[1-9]\d* passed", output, re.MULTILINE)
    else:
        program = "import runpy; runpy.run_path('test_program.py', run_name='__main__')"
        run_program(program, tmp_path, PYTHONPATH=heat)


def test_the_readme_kernel_resumes(tmp_path: Path) -> None:
    (tmp_path / "heat.py").write_text(BLOCKS[0])
    program = f"{RUN}('heat.py', run_name='__main__')"
    assert run_program(program, tmp_path).startswith("from step 0 to 20000")
    assert run_program(program, tmp_path) == "from step 20000 to 20000, saved 0 times\n"


def test_the_readme_says_what_the_kit_says(tmp_path: Path) -> None:
    wrong = BLOCKS[0].replace(
        "return await capture(HeatCheckpoint, self)",
        "return HeatCheckpoint(self.step, self.temperature)",
    )
    (tmp_path / "heat.py").write_text(wrong)
    program = """
from heat import Heat
from checkpointable.testing import verify_kernel
try:
    verify_kernel(lambda: Heat(n=64))
except AssertionError as broken:
    print(broken)
"""
    output, shown = run_program(program, tmp_path), (ROOT / "README.md").read_text()
    digits = re.compile(r"\d[\d.e-]*")  # the last ones depend on the processor
    assert digits.sub("0", f"```text\n{output}```") in digits.sub("0", shown)


@pytest.mark.parametrize(
    ("example", "made"),
    [
        ("own_stream", "Heat(6)"),
        *([("heat_cuda", "Heat(6)"), ("persistent", "Rings(1)")] if DEEP else []),
    ],
)
def test_an_example_passes_the_kit_in_the_simulator(
    example: str, made: str, tmp_path: Path
) -> None:
    program = f"""
import runpy
import hypothesis
from checkpointable.testing import KernelTests, verify_kernel
names = runpy.run_path({str(ROOT / f"examples/{example}.py")!r})
few = hypothesis.settings(KernelTests.settings, max_examples=3, stateful_step_count=6)
verify_kernel(lambda: eval({made!r}, names), steps=3, settings=few)
"""
    run_program(program, tmp_path, NUMBA_ENABLE_CUDASIM="1")


def test_ci_runs_the_command_of_the_readme() -> None:
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert f"```console\n{command}\n```" in (ROOT / "README.md").read_text()


MODULES = [
    info.name
    for info in pkgutil.walk_packages(checkpointable.__path__, "checkpointable.")
    if not info.name.endswith("__main__")
]


@pytest.mark.parametrize("module", ["checkpointable", *MODULES])
def test_docstrings_run(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def run_example(example: str, arguments: str, folder: Path) -> str:
    path = str(ROOT / f"examples/{example}.py")
    code = f"import runpy; main = runpy.run_path({path!r})['main']; main('run', {arguments})"
    return run_program(code, folder, NUMBA_ENABLE_CUDASIM="1")


@pytest.mark.parametrize("example", ["heat_cuda", "own_stream"])
def test_a_cuda_example_resumes_in_the_simulator(example: str, tmp_path: Path) -> None:
    runs = [run_example(example, f"{until}, 64", tmp_path) for until in (3, 5)]
    assert runs == [
        "from step 0 to 3, saved 1 times\n",
        "from step 3 to 5, saved 1 times\n",
    ]


def test_the_persistent_example_is_saved_between_its_launches_and_resumes(tmp_path: Path) -> None:
    runs = [run_example("persistent", f"{until}, 2, 2", tmp_path) for until in (4, 5)]
    assert runs == [
        "from step 0\nasked after step 0, copied after step 2\n"
        "asked after step 2, copied after step 4\n",
        "from step 4\nasked after step 4, copied after step 5\n",
    ]
    assert run_example("persistent", "5, 2, 2", tmp_path) == "from step 5\n"

    cells = np.sin(np.arange(128) ** 2.0).reshape(2, 64)
    for _ in range(5):
        cells = (np.roll(cells, 1, axis=1) + cells + np.roll(cells, -1, axis=1)) / 3
    results = load_file(tmp_path / "run" / name_of(5))
    assert np.array_equal(results["cells"], cells)


def test_the_cupy_example_says_what_is_missing(tmp_path: Path) -> None:
    path = str(ROOT / "examples/cupy_arrays.py")
    program = f"""
import runpy, sys
from checkpointable import InvalidKernel
sys.modules["cupy"] = None
try:
    runpy.run_path({path!r})["Heat"]()
except InvalidKernel as error:
    print(error)
"""
    assert "hint: pip install cupy-cuda13x" in run_program(program, tmp_path)


SCRIPTS = sorted((ROOT / "examples").glob("slurm*.sh"))


def batch_commands() -> dict[str, list[str]]:
    """What the examples for Slurm and Kubernetes run."""
    commands = {}
    for path in SCRIPTS:
        script = path.read_text().replace("\\\n", " ")
        results = re.search(r"^srun (checkpointable run .*)$", script, re.MULTILINE)
        assert results is not None
        commands[path.stem] = shlex.split(results[1].replace("$seed", "7"))
    job = (ROOT / "examples/kubernetes.yaml").read_text()
    lists = re.findall(r"(?:command|args): \[(.*)\]\n", job)
    commands["kubernetes"] = [word.strip('"') for word in ", ".join(lists).split(", ")]
    return commands


@pytest.mark.parametrize("words", batch_commands().values(), ids=batch_commands())
def test_the_batch_examples_ask_for_what_there_is(words: list[str], tmp_path: Path) -> None:
    end = words.index("--") if "--" in words else len(words)
    words, options = words[:end], words[end + 1 :]
    name = words[2]
    if "--mpi" in words:
        words.remove("--mpi")
        name = mpi_variant(name)
    read_options(find_factory(name), name, options, None)

    store = words.index("--store") + 1
    words[store] = str(tmp_path)
    assert words[:2] == ["checkpointable", "run"]
    assert main(["run", "tests.runner.test_delta_runs:Sweep", *words[3:]]) == 0
    assert (tmp_path / name_of(40)).exists()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_slurm_example_is_a_script(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
