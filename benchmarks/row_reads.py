"""Reading a few rows of a large array: from opening the file to having them.

One float32 array of `--mib`, rows of 4 KiB; 1 row, and 1 percent of the rows, from its middle, out
of a warm page cache. Ours verifies the blocks that it touches, of 1 MiB; the others verify nothing.

    python -m benchmarks.row_reads --mib 1024 --rounds 9 --dir PATH
"""

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import _limits, _plot
from benchmarks._measure import RESULTS, measure, options, report, write
from checkpointable import Array, load_file, save_file

OURS = "checkpointable, lazy, verified"
RAW = "raw read of the rows"
PACKAGES = ("checkpointable", "numpy", "safetensors", "h5py", "zarr")

Rows = Callable[[int, int], Any]


@frozen
class State:
    field: Array[np.float32]


def readers(root: Path, field: Any) -> dict[str, Rows]:
    """What reads rows, with each library that is installed; each opens the file anew."""
    ours = root / "ours.safetensors"
    save_file(State(field), ours)
    np.save(root / "array.npy", field)
    row = field[0].nbytes

    def raw(begin: int, end: int) -> Any:
        found: Any = np.empty((end - begin, *field.shape[1:]), field.dtype)
        with (root / "array.npy").open("rb", buffering=0) as file:
            file.seek(128 + begin * row)
            file.readinto(memoryview(found).cast("B"))
        return found

    found: dict[str, Rows] = {
        RAW: raw,
        OURS: lambda begin, end: load_file(ours, State, arrays="lazy").field[begin:end],
        "checkpointable, mmap, copied": lambda begin, end: np.array(
            load_file(ours, State, arrays="mmap").field[begin:end]
        ),
        "numpy.load, mmap, copied": lambda begin, end: np.array(
            np.load(root / "array.npy", mmap_mode="r")[begin:end]
        ),
    }
    for name, make in (("safetensors", _safetensors), ("h5py", _h5py), ("zarr", _zarr)):
        try:
            found[name] = make(root, field)
        except ImportError as error:
            print(f"{name}: left out, {error}")
    return found


def _safetensors(root: Path, field: Any) -> Rows:
    library = import_module("safetensors")
    import_module("safetensors.numpy").save_file({"field": field}, root / "st")

    def rows(begin: int, end: int) -> Any:
        with library.safe_open(root / "st", framework="np") as file:
            return file.get_slice("field")[begin:end]

    return rows


def _h5py(root: Path, field: Any) -> Rows:
    File = import_module("h5py").File
    with File(root / "h5", "w") as file:
        file["field"] = field

    def rows(begin: int, end: int) -> Any:
        with File(root / "h5", "r") as file:
            return file["field"][begin:end]

    return rows


def _zarr(root: Path, field: Any) -> Rows:
    library = import_module("zarr")
    library.create_group(root / "zarr").create_array("field", data=field)
    return lambda begin, end: library.open_group(root / "zarr", mode="r")["field"][begin:end]


def main() -> None:
    parser = options(__doc__, rounds=9, least=5)
    parser.add_argument("--mib", type=int, default=1024, help="size of the array, default 1024")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where JSON and PNG go")
    parser.add_argument("--dir", type=Path, help="where to write; default: for temporary files")
    given = parser.parse_args()
    field = _limits.random_floats(given.mib << 18).reshape(-1, 1024)
    with tempfile.TemporaryDirectory(dir=given.dir) as folder:
        root = Path(folder).resolve()
        by_name = readers(root, field)
        middle, results = len(field) // 2, dict[str, Any]()
        for what, count in (("one row", 1), ("1% of the rows", len(field) // 100)):
            for name, rows in by_name.items():
                if not np.array_equal(rows(middle, middle + count), field[middle:][:count]):
                    raise ValueError(f"{name} gives something else")
            seconds = measure(
                {name: partial(rows, middle, middle + count) for name, rows in by_name.items()},
                given.rounds,
                after=lambda: None,
            )
            title = f"Reading {what} of {given.mib} MiB"
            results[what] = report(title, seconds, [], against=RAW)
            picture = given.results / f"partial_{'row' if count == 1 else 'percent'}.png"
            _plot.bars(picture, title, results[what], (RAW,))
        write("partial", given.device, root, results, results=given.results, packages=PACKAGES)


if __name__ == "__main__":
    main()
