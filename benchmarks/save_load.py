"""Saving and loading a state of two float32 arrays, beside safetensors and the machine's limits.

Saving, every file durable in the end (file and directory synced):

- `save_file`, and `archive.save` to a `LocalStore`: digests of every block, seal, atomic name;
- `safetensors.numpy.save_file`, then fsync of file and directory;
- the limits: the same bytes written raw and synced, through the page cache and past it (from
  aligned memory), a memcpy into warm memory, XXH3 of the bytes.

Loading, from a warm page cache:

- `load_file`: every block verified;
- `safetensors.numpy.load_file`, which verifies nothing;
- the limits: the bytes read raw into fresh memory, and into warm memory.

All in one process, in interleaved rounds; times are medians, ratios the medians of the rounds'.

    python -m benchmarks.save_load --mib 512 --rounds 5 --dir PATH
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import safetensors.numpy as safetensors
from attrs import frozen

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import _limits
from benchmarks._measure import Goal, measure, options, report, write
from checkpointable import Array, LocalStore, archive, load_file, save_file


@frozen
class State:
    position: Array[np.float32]
    velocity: Array[np.float32]


def saving(folder: Path, state: State, rounds: int) -> dict[str, list[float]]:
    arrays = {"position": np.asarray(state.position), "velocity": np.asarray(state.velocity)}
    data = _limits.views(arrays)
    store = LocalStore(folder / "store")

    def with_safetensors() -> None:
        safetensors.save_file(arrays, folder / "theirs")
        _limits.sync(folder / "theirs")
        _limits.sync(folder)

    def clear() -> None:
        for path in (*folder.iterdir(), *store.path.glob("step-*")):
            if path.is_file():
                path.unlink()

    variants = {
        "save_file": lambda: save_file(state, folder / "ours"),
        "archive.save, LocalStore": lambda: archive.save(store, state, 1),
        "safetensors + fsync": with_safetensors,
        "raw write + fsync": lambda: _limits.write_raw(folder / "raw", data),
        "raw direct write + fsync": lambda: _limits.write_direct(folder / "direct", data),
        "memcpy, warm": _limits.copier(arrays),
        "xxh3 of the bytes": lambda: _limits.digest(data),
    }
    return measure(variants, rounds, after=clear)


def loading(folder: Path, state: State, rounds: int) -> dict[str, list[float]]:
    arrays = {"position": np.asarray(state.position), "velocity": np.asarray(state.velocity)}
    theirs = folder / "theirs"
    safetensors.save_file(arrays, theirs)
    save_file(state, folder / "ours")
    size = sum(array.nbytes for array in arrays.values())
    warm = np.ones(size, np.uint8)

    variants = {
        "load_file": lambda: load_file(folder / "ours", State),
        "safetensors load_file": lambda: safetensors.load_file(theirs),
        "raw read, fresh memory": lambda: _limits.read_raw(theirs, np.empty(size, np.uint8)),
        "raw read, warm memory": lambda: _limits.read_raw(theirs, warm),
    }
    return measure(variants, rounds, after=lambda: None)


def main() -> None:
    parser = options(__doc__, rounds=5, least=5)
    parser.add_argument("--mib", type=int, default=512, help="size of the state, default 512")
    parser.add_argument("--dir", type=Path, help="where to write; default: for temporary files")
    args = parser.parse_args()
    half = args.mib * _limits.BLOCK // 8
    both = _limits.random_floats(2 * half)
    state = State(both[:half], both[half:])
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        folder = Path(name).resolve()
        (folder / "store").mkdir()
        found = {
            "mib": args.mib,
            "save": report(
                f"Saving {args.mib} MiB",
                saving(folder, state, args.rounds),
                [
                    Goal("save_file", "safetensors + fsync", 1.3),
                    Goal("archive.save, LocalStore", "safetensors + fsync", 1.3),
                ],
                against="safetensors + fsync",
                mib=args.mib,
            ),
            "load": report(
                f"Loading {args.mib} MiB",
                loading(folder, state, args.rounds),
                [Goal("load_file", "safetensors load_file", 1.3)],
                against="safetensors load_file",
                mib=args.mib,
            ),
        }
        write("save_load", args.device, folder, found)


if __name__ == "__main__":
    main()
