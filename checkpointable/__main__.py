"""`python -m checkpointable` is the command `checkpointable`."""

import sys

from checkpointable.cli import main

if __name__ == "__main__":
    sys.exit(main())
