"""A process that forks writers, which are killed: `python -m tests.stores.object.killed_processes`.

Each line of its input is an address, a prefix and a name; for each it says the pid of a new
process that saves there, and then how that ended. It uses no obstore itself: forks could not.
"""

import os
import sys

from checkpointable.stores.object import bucket
from checkpointable.stores.object.store import ObjectStore
from tests.stores.object.places import remote

PART = 5 << 20  # the least that S3 takes
CHUNK = bytes(range(256)) * (1 << 12)
CHUNKS = 6


def main() -> None:
    bucket.PART = PART
    for line in sys.stdin:
        address, prefix, name = line.split()
        if not (pid := os.fork()):
            try:
                store = ObjectStore(remote(address), prefix)
                store.create(name, CHUNKS * len(CHUNK), [CHUNK] * CHUNKS)
            except BaseException as error:
                print(error, file=sys.stderr)
                os._exit(1)
            os._exit(0)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
