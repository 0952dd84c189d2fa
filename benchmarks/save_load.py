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

import mmap
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import safetensors.numpy as safetensors
import xxhash
from attrs import frozen

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks._measure import Goal, measure, options, report, write
from checkpointable import Array, LocalStore, archive, load_file, save_file

BLOCK = 1 << 20


@frozen
class State:
    position: Array[np.float32]
    velocity: Array[np.float32]


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def saving(folder: Path, state: State, rounds: int) -> dict[str, list[float]]:
    arrays = {"position": np.asarray(state.position), "velocity": np.asarray(state.velocity)}
    views = [array.view(np.uint8).data for array in arrays.values()]
    warm = [np.ones_like(array) for array in arrays.values()]
    store = LocalStore(folder / "store")

    def with_safetensors() -> None:
        safetensors.save_file(arrays, folder / "theirs")
        sync(folder / "theirs")
        sync(folder)

    def raw() -> None:
        with (folder / "raw").open("xb", buffering=0) as file:
            for view in views:
                rest = view
                while rest:
                    rest = rest[file.write(rest) or 0 :]
            os.fsync(file.fileno())
        sync(folder)

    image = mmap.mmap(-1, sum(map(len, views)))
    np.frombuffer(image, np.uint8)[:] = np.concatenate([np.frombuffer(v, np.uint8) for v in views])

    def raw_direct() -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_DIRECT
        file = os.open(folder / "direct", flags, 0o600)
        try:
            os.posix_fallocate(file, 0, len(image))
            for begin in range(0, len(image), 4 * BLOCK):
                os.pwrite(file, memoryview(image)[begin : begin + 4 * BLOCK], begin)
            os.fsync(file)
        finally:
            os.close(file)
        sync(folder)

    def memcpy() -> None:
        for into, array in zip(warm, arrays.values(), strict=True):
            np.copyto(into, array)

    def digest() -> None:
        for view in views:
            for begin in range(0, len(view), BLOCK):
                xxhash.xxh3_128_digest(view[begin : begin + BLOCK])

    def clear() -> None:
        for path in (*folder.iterdir(), *store.path.glob("step-*")):
            if path.is_file():
                path.unlink()

    variants = {
        "save_file": lambda: save_file(state, folder / "ours"),
        "archive.save, LocalStore": lambda: archive.save(store, state, 1),
        "safetensors + fsync": with_safetensors,
        "raw write + fsync": raw,
        "raw direct write + fsync": raw_direct,
        "memcpy, warm": memcpy,
        "xxh3 of the bytes": digest,
    }
    return measure(variants, rounds, after=clear)


def loading(folder: Path, state: State, rounds: int) -> dict[str, list[float]]:
    arrays = {"position": np.asarray(state.position), "velocity": np.asarray(state.velocity)}
    safetensors.save_file(arrays, folder / "theirs")
    save_file(state, folder / "ours")
    size = sum(array.nbytes for array in arrays.values())
    warm = np.ones(size, np.uint8)

    def read(into: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> None:
        with (folder / "theirs").open("rb", buffering=0) as file:
            rest = into.data
            while rest:
                rest = rest[file.readinto(rest) or 0 :]

    variants = {
        "load_file": lambda: load_file(folder / "ours", State),
        "safetensors load_file": lambda: safetensors.load_file(folder / "theirs"),
        "raw read, fresh memory": lambda: read(np.empty(size, np.uint8)),
        "raw read, warm memory": lambda: read(warm),
    }
    return measure(variants, rounds, after=lambda: None)


def main() -> None:
    parser = options(__doc__, rounds=5, least=5)
    parser.add_argument("--mib", type=int, default=512, help="size of the state, default 512")
    parser.add_argument("--dir", type=Path, help="where to write; default: for temporary files")
    args = parser.parse_args()
    random = np.random.default_rng(1)
    half = args.mib * (1 << 20) // 8
    state = State(random.random(half, np.float32), random.random(half, np.float32))
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
