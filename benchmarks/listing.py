"""How long `archive.entries` takes over 10,000 checkpoint names, and that it opens none of them.

The files are empty, so any attempt to read one would fail; and an audit hook counts the files that
are opened while listing. Beside it: `os.scandir` and a stat of each.

    python -m benchmarks.listing --files 10000 --rounds 9 --dir PATH
"""

import os
import sys
import tempfile
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks._measure import measure, options, report, write
from checkpointable import LocalStore, archive


def scan(folder: Path) -> int:
    with os.scandir(folder) as found:
        return sum(item.stat(follow_symlinks=False).st_size for item in found)


def main() -> None:
    parser = options(__doc__, rounds=9, least=5)
    parser.add_argument("--files", type=int, default=10_000, help="default 10,000")
    parser.add_argument("--dir", type=Path, help="where to write; default: for temporary files")
    args = parser.parse_args()
    opened: list[str] = []

    def watch(event: str, details: tuple[object, ...]) -> None:
        if event == "open" and str(details[0]).endswith(".safetensors"):
            opened.append(str(details[0]))

    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        folder = Path(name).resolve()
        for step in range(args.files):
            (folder / archive.name_of(step * 100)).touch()
        store = LocalStore(folder)
        sys.addaudithook(watch)
        listed = archive.entries(store)
        variants = {
            "archive.entries": lambda: archive.entries(store),
            "os.scandir with stat": lambda: scan(folder),
        }
        seconds = measure(variants, args.rounds, after=lambda: None)
        found = report(
            f"Listing {args.files:,} checkpoints", seconds, [], against="os.scandir with stat"
        )
        found |= {"files": args.files, "listed": len(listed), "opened": len(opened)}
        print(f"listed: {len(listed):,}, opened: {len(opened)}")
        write("listing", args.device, folder, found)
    if len(listed) != args.files or opened:
        sys.exit("a listing must give every checkpoint and open none")


if __name__ == "__main__":
    main()
