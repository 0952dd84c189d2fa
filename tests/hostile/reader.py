"""Read every file of a store in every way: `python -m tests.hostile.reader STORE`.

Opens, or tries to, the path BEGIN when all is imported and made that ever will be; what is opened
from then on is opened because of the files. Which errors they raise is not asked here.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

from checkpointable import LocalStore, archive
from checkpointable.format.reader import opened
from tests.hostile import classes, oracle

BEGIN = "/hostile-files-begin"


def main() -> None:
    store = LocalStore(sys.argv[1])
    for data in classes.files():
        oracle.judge(data)
    with suppress(OSError):
        Path(BEGIN).read_bytes()
    for entry in archive.entries(store):
        for cls in classes.CLASSES.values():
            with suppress(Exception):
                archive.load(store, entry.name, cls)
        with suppress(Exception):
            archive.verify(store, entry.name)
        with suppress(Exception), store.open(entry.name) as reader:
            oracle.shown(opened(reader))
    for name in sorted(os.listdir(sys.argv[1])):  # noqa: PTH208  # links and pipes among them
        with suppress(Exception), store.open(name):
            print(f"opened {name}")


if __name__ == "__main__":
    main()
