"""Every CUDA kernel compiles to machine code. Needs numba-cuda and its toolkit, but no device."""

import importlib
import os
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from checkpointable.kernels.target import Target
from tests.arrays.ptx.kernels import ARGUMENTS, ROOT, dispatchers, kernels_by_name, name, written
from tests.kernels.compare_devices import ising, nbody, pageranks, sketches, wave

ARCHITECTURES = [(8, 0), (9, 0), (10, 0)]


def what_is_missing() -> str:
    from numba import config, cuda

    if config.ENABLE_CUDASIM:  # type: ignore[attr-defined]
        return "NUMBA_ENABLE_CUDASIM is set"
    if getattr(cuda, "implementation", None) != "NVIDIA":
        return "needs numba-cuda: checkpointable[cuda13]"
    pathfinder = importlib.import_module("cuda.pathfinder")
    for library in ("nvvm", "nvrtc", "nvJitLink"):
        try:
            pathfinder.load_nvidia_dynamic_lib(library)
        except RuntimeError:
            return f"needs {library}: checkpointable[cuda13]"
    return ""


@pytest.fixture(autouse=True, scope="module")
def needed() -> None:
    """Skip where nothing can be compiled; fail in `nox -s ptx`, which cannot pass that way."""
    if missing := what_is_missing():
        (pytest.fail if os.environ.get("REQUIRE_PTX") == "1" else pytest.skip)(missing)


@pytest.mark.parametrize("extra", ["cuda12", "cuda13"])
def test_numba_cuda_gets_a_numpy_that_it_compiles_with(extra: str) -> None:
    """It uses `numpy.row_stack`, which NumPy 2.5 no longer has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "numpy<2.5" in project["optional-dependencies"][extra]


def test_every_kernel_is_in_the_table() -> None:
    assert set(kernels_by_name()) == set(ARGUMENTS)


def test_every_kernel_exists_when_its_module_is_imported() -> None:
    functions = [made.py_func for same in kernels_by_name().values() for made in same]
    assert written() <= {(function.__module__, function.__name__) for function in functions}


def test_kernels_are_launched_as_the_table_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    launched = set()

    def launch(self: Target, program: Any, threads: int, *arguments: Any) -> None:
        typeof = program.kernel.typeof_pyval
        in_table = ARGUMENTS[name(program.kernel)]
        launched.add(name(program.kernel))
        assert [*map(typeof, arguments)] == [*map(typeof, in_table)], name(program.kernel)

    monkeypatch.setattr(Target, "launch", launch)
    for make in (wave, ising, nbody, *pageranks(tmp_path), *sketches(tmp_path)):
        make("cpu").advance(1)
    gallery = {kernel for kernel in ARGUMENTS if kernel.startswith("checkpointable.kernels.")}
    assert launched == gallery


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids="sm_{0[0]}{0[1]}".format)
@pytest.mark.parametrize("kernel", ARGUMENTS)
def test_it_compiles(
    kernel: str, architecture: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler: Any = importlib.import_module("numba.cuda.dispatcher")
    context = SimpleNamespace(device=SimpleNamespace(compute_capability=architecture))
    monkeypatch.setattr(compiler, "get_current_device", lambda: context.device)
    monkeypatch.setattr("numba.cuda.cudadrv.devices.get_context", lambda: context)
    target = "sm_{}{}".format(*architecture)
    for dispatcher in kernels_by_name()[kernel]:
        types = tuple(map(dispatcher.typeof_pyval, ARGUMENTS[kernel]))
        # From PTX, and, as on a device, with the optimisation at link time that is the default.
        for lto in (False, True):
            for made in dispatchers():  # also of the device functions that it calls
                made.overloads.clear()
            options = dispatcher.targetoptions | {"lto": lto}
            compiled = compiler._Kernel(dispatcher.py_func, types, **options)
            ptx = compiled.inspect_asm(architecture)
            assert f".target {target}\n" in ptx
            assert ".visible .entry" in ptx
            assert compiled.library.get_cubin(architecture).code.startswith(b"\x7fELF")
