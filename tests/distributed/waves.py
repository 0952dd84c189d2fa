"""A kernel of many ranks, cheap to start: the same bits on any number of them, however it is cut.

Each step changes one row of the global field, so that deltas are small, and in a way that shows a
step lost, done twice or done in another order.
"""

from pathlib import Path

import attrs
import numpy as np

from checkpointable import (
    Array,
    Coordinator,
    HealthStatus,
    Shard,
    archive,
    capture,
    open_store,
    reinstate,
)
from checkpointable.arrays.boxes import Box
from checkpointable.distributed.coordinator import SingleProcess
from tests.helpers.small_blocks import small_blocks

SHAPE = (24, 16)
POINTS = 3  # fewer than there may be ranks


@attrs.frozen
class WavesCheckpoint:
    step: int
    name: str
    field: Shard[np.float64]
    points: Shard[np.int32]
    table: Array[np.int64]


class Waves:
    """Its own box of the global field and of the points; the table is the same on all."""

    def __init__(self, ranks: Coordinator, cut: str = "rows") -> None:
        self.step, self.name = 0, "waves"
        self.table = np.arange(5)
        self.box = box_of(cut, ranks.rank, ranks.size)
        self.own_points = part_of(POINTS, ranks.rank, ranks.size)
        rows, columns = (slice(n, n + m) for n, m in zip(*self.box, strict=True))
        self.cells = np.arange(np.prod(SHAPE), dtype=float).reshape(SHAPE)[rows, columns].copy()
        self.counts = np.zeros(self.own_points[1], np.int32)

    @property
    def field(self) -> Shard[np.float64]:
        return Shard(self.cells, SHAPE, self.box[0])

    @property
    def points(self) -> Shard[np.int32]:
        return Shard(self.counts, (POINTS,), (self.own_points[0],))

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            row, column = self.step % SHAPE[0] - self.box[0][0], self.box[0][1]
            if 0 <= row < len(self.cells):
                columns = np.arange(column, column + self.cells.shape[1])
                self.cells[row] = self.cells[row] * 1.1 + np.sin(columns + self.step)
            self.counts += self.counts + self.step
            self.table += self.step
            self.step += 1

    def health_check(self) -> HealthStatus:
        return HealthStatus(bool(np.isfinite(self.cells).all()), "it has a NaN")

    async def checkpoint(self) -> WavesCheckpoint:
        return await capture(WavesCheckpoint, self)

    async def restore(self, checkpoint: WavesCheckpoint) -> None:
        await reinstate(checkpoint, self)


def part_of(length: int, rank: int, size: int) -> tuple[int, int]:
    """The beginning and the length of a rank's part."""
    begin, end = length * rank // size, length * (rank + 1) // size
    return begin, end - begin


def box_of(cut: str, rank: int, size: int) -> Box:
    """A rank's box of the field, which is cut into rows, columns, or a grid of two columns."""
    parts = {"rows": (size, 1), "columns": (1, size), "grid": (size // 2, 2)}[cut]
    at = (rank // parts[1], rank % parts[1])
    (row, rows), (column, columns) = map(part_of, SHAPE, at, parts)
    return (row, column), (rows, columns)


def is_right(kernel: Waves) -> bool:
    """Whether it has the bits of one that has never stopped, nor known of other ranks."""
    alone = Waves(SingleProcess())
    alone.advance(kernel.step)
    begin, length = kernel.own_points
    return (
        kernel.cells.tobytes() == alone.cells[kernel.field.box].tobytes()
        and kernel.counts.tobytes() == alone.counts[begin : begin + length].tobytes()
        and kernel.table.tobytes() == alone.table.tobytes()
    )


def newest_in(place: str | Path, key: bytes | None = None) -> tuple[int, bool]:
    """The newest step in a store, and whether one rank reads from it what it should."""
    with small_blocks():
        result = archive.latest(open_store(place), WavesCheckpoint, key=key)
    assert result is not None
    assert not result.skipped
    checkpoint, kernel = result.checkpoint, Waves(SingleProcess())
    kernel.step, kernel.table = checkpoint.step, np.asarray(checkpoint.table)
    kernel.cells = np.asarray(checkpoint.field.local)
    kernel.counts = np.asarray(checkpoint.points.local)
    return result.entry.step, is_right(kernel)
