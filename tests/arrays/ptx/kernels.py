"""Every CUDA kernel, and what it is launched with: a new kernel is a new row of `ARGUMENTS`."""

import ast
import functools
import gc
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from checkpointable.kernels.ising import STATE

ROOT = Path(__file__).parents[3]


def array(dtype: Any, dimensions: int = 1) -> np.ndarray[Any, Any]:
    """A stand-in for a device array in C order, of any size."""
    return np.zeros((1,) * dimensions, dtype)


F4, F8, U1, U4 = map(array, (np.float32, np.float64, np.uint8, np.uint32))
U8, I4, I8 = map(array, (np.uint64, np.int32, np.int64))
PLANE, MATRIX = array(np.float32, 2), array(np.float64, 2)

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "checkpointable.arrays.cuda.xxh3.digest_kernel": (U8, U8, 1, U8),
    "checkpointable.arrays.cuda.strided.copy_kernel": (U8, U1, U8, 1),
    "checkpointable.arrays.cuda.strided.move_kernel": (U8, U8, 1, 1, True),
    "checkpointable.kernels.ising.programs.half_sweep_kernel": (
        array(np.int8, 2), array(STATE, 2), array(np.int64, 2), array(np.int64, 2), U8, 1, True,
    ),
    "checkpointable.kernels.nbody.programs.drift_kernel": (MATRIX, MATRIX, 1.0),
    "checkpointable.kernels.nbody.programs.kick_kernel": (MATRIX, MATRIX, 1.0),
    "checkpointable.kernels.nbody.programs.pull_kernel": (MATRIX, 1.0, 1.0, MATRIX),
    "checkpointable.kernels.pagerank.programs.add_kernel": (F8, F8),
    "checkpointable.kernels.pagerank.programs.gather_kernel": (I8, I4, F8, F8, 1.0, F8, F8),
    "checkpointable.kernels.pagerank.programs.split_kernel": (F8, I8, F8, F8),
    "checkpointable.kernels.sketch.programs.carry_kernel": (I8,),
    "checkpointable.kernels.sketch.programs.count_kernel": (U8, True, I8, U4, I8, U8, I8),
    "checkpointable.kernels.wave.programs.observe_kernel": (
        PLANE, PLANE, PLANE, array(np.int64, 2), I8, np.float32(1), 1,
    ),
    "checkpointable.kernels.wave.programs.update_kernel": (PLANE, PLANE, PLANE, F4, F4),
    "examples.cupy_arrays.diffuse": (F8, F8),
    "examples.heat_cuda.diffuse": (F8, F8),
    "examples.own_stream.diffuse": (F8, F8),
    "examples.persistent.smooth": (MATRIX, 1),
}  # fmt: skip
"""Values of the types that a kernel is launched with."""


def sources() -> Iterator[tuple[str, Path]]:
    """All modules that may have kernels of this package."""
    for path in sorted([*ROOT.glob("checkpointable/**/*.py"), *ROOT.glob("examples/*.py")]):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if path.name != "__main__.py" and "cuda" in path.read_text():
            yield name.removesuffix(".__init__"), path


def name(dispatcher: Any) -> str:
    """The name of a kernel in the table."""
    return f"{dispatcher.py_func.__module__}.{dispatcher.py_func.__qualname__}"


def dispatchers() -> list[Any]:
    """All dispatchers that `cuda.jit` made, device functions included."""
    from numba.cuda.dispatcher import CUDADispatcher

    return [made for made in gc.get_objects() if isinstance(made, CUDADispatcher)]


@functools.cache
def kernels_by_name() -> dict[str, list[Any]]:
    """The kernels after all modules are imported, by name; a name may have several."""
    modules = [importlib.import_module(module).__name__ for module, _ in sources()]
    kernels: dict[str, list[Any]] = {}
    for dispatcher in dispatchers():
        ours = dispatcher.py_func.__module__ in modules
        if ours and not dispatcher.targetoptions["device"]:
            kernels.setdefault(name(dispatcher), []).append(dispatcher)
    return kernels


def written() -> set[tuple[str, str]]:
    """Module and name of every function that is decorated as a kernel."""
    return {
        (module, node.name)
        for module, path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and any(map(_makes_a_kernel, node.decorator_list))
    }


def _makes_a_kernel(decorator: ast.expr) -> bool:
    text = ast.unparse(decorator)
    return bool(re.match(r"(\w+\.)*(kernel|cuda\.jit)\b", text)) and "device=True" not in text
