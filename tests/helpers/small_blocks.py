"""Small blocks, so that small arrays have many: the one place where tests change the format.

As a parameter the size would pass through every function that reads, writes or lists a file, and
never be anything but 1 MiB outside of tests.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

from checkpointable.format import layout, selection


@contextmanager
def small_blocks(
    size: int = 64, *, slab: int | None = None, max_delta_ratio: int = 1000
) -> Iterator[None]:
    """Within the context a block has `size` bytes, and a slab of boxes that are read `slab`.

    A delta is made though it takes up to `max_delta_ratio` times as much as a full checkpoint,
    since the header of so small a file takes most of it.
    """
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(layout, "BLOCK", size))
        ratio = "checkpointable.archive.steps._MAX_DELTA_RATIO"
        stack.enter_context(mock.patch(ratio, max_delta_ratio))
        if slab is not None:
            stack.enter_context(mock.patch.object(selection, "SLAB", slab))
        yield
