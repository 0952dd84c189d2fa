"""A file of numbers, summarised in one pass: each value is counted exactly once.

The state consists of integers, so the result does not depend on the batches, the threads, or how
often the run was killed and resumed.
"""

import hashlib
import math
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from attrs import frozen

from checkpointable import Array, InvalidKernel, KernelMetadata, capture, checkpoint, reinstate
from checkpointable.kernels.checks import check_checkpoint, check_option, check_value, on_host
from checkpointable.kernels.sketch.layout import (
    BINS,
    LIMBS,
    REGISTERS,
    distinct_values,
    exact_sum,
    rounded,
)
from checkpointable.kernels.target import Device, choose_target

END = 1 << 16  # bytes at each end of the file that are part of its identity
DEVICE_THREADS = 1 << 16  # fill any device; each strides over the batch
MAX_BATCH = 1 << 30  # values, so that no limb of the sum overflows


@frozen
class SketchSetup:
    """What a checkpoint and the kernel that restores it must share.

    `size` in bytes and `ends`, the SHA-256 of the first and last 64 KiB, identify the file; its
    name may change.
    """

    dtype: str
    batch: int
    size: int
    ends: str


@checkpoint("sketch")
@frozen
class SketchCheckpoint:
    """The state of a `Sketch` after `step` batches, `offset` values in all.

    `histogram` is (16384,) int64, `registers` (16384,) uint32, `limbs` (70,) int64, `extremes`
    (2,) uint64, `specials` (3,) int64: the counts of NaN, infinity and minus infinity.
    """

    step: int
    offset: int
    setup: SketchSetup
    histogram: Array[np.int64]
    registers: Array[np.uint32]
    limbs: Array[np.int64]
    extremes: Array[np.uint64]
    specials: Array[np.int64]


@frozen
class Summary:
    """What a sketch knows of the values read so far.

    `count` is their number, `nans` the number of NaN among them. `total` is the sum. For int64 it
    is exact, an int of any size; for float64 it is the exact sum rounded once, as by `math.fsum`,
    but infinite where that overflows; NaN and infinities add as in IEEE 754. `minimum` and
    `maximum` leave out NaN, and are None if no value is left. `distinct` estimates the number of
    different values (0 and -0 are one, all NaN are one) with a standard error of 0.8%.
    """

    count: int
    nans: int
    total: float | int
    minimum: float | int | None
    maximum: float | int | None
    distinct: float


class Sketch:
    """Count, exact sum, extremes, histogram and number of distinct values of a file.

    One step reads one batch; steps after the last, `total_steps`, only increase `step`.

    `path`
        a file of little-endian numbers and nothing else. It must not change during the run.
    `dtype`
        of the numbers: "float64" or "int64".
    `batch`
        how many numbers one step reads, up to 2^30.
    `device`
        "cpu", "cuda", or "auto" for CUDA where there is a device.

    Raises `InvalidKernel` if the file is missing, cannot be read, or does not hold a whole number
    of values; `advance` raises it too if the file has become shorter.

    The result is the same, bit for bit, on the CPU and on CUDA.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "numbers")
    ...     np.array([1e100, 1.0, -1e100]).astype("<f8").tofile(path)
    ...     sketch = Sketch(path=path, batch=2, device="cpu")
    ...     sketch.advance(sketch.total_steps)
    >>> sketch.summary().total, sketch.summary().maximum
    (1.0, 1e+100)
    """

    metadata = KernelMetadata(id="sketch", version="1", domain="analytics",
                              description="exact and approximate aggregates of a file")  # fmt: skip

    def __init__(
        self,
        path: Path,
        *,
        dtype: Literal["float64", "int64"] = "float64",
        batch: int = 1 << 20,
        device: Device = "auto",
    ) -> None:
        check_option("dtype", f"{dtype=}", valid=dtype in ("float64", "int64"),
                     hint="use float64 or int64")  # fmt: skip
        check_option("batch", f"{batch=}", valid=1 <= batch <= MAX_BATCH,
                     hint="use 1 to 2^30 values")  # fmt: skip
        self.path = Path(path)
        size, ends = _identity(self.path)
        check_option(
            "path",
            f"{size} bytes are not a whole number of 8-byte values",
            valid=size % 8 == 0,
            hint="the file must hold float64 or int64 values and nothing else",
        )

        from checkpointable.kernels.sketch import programs

        self._programs = programs
        self._target = choose_target(device)
        self.setup = SketchSetup(dtype, batch, size, ends)
        self.total_steps = -(-size // 8 // batch)
        self.step = 0
        self.offset = 0
        place = self._target.place
        self.histogram = place(np.zeros(BINS, np.int64))
        self.registers = place(np.zeros(REGISTERS, np.uint32))
        self.limbs = place(np.zeros(LIMBS, np.int64))
        self.extremes = place(np.array([2**64 - 1, 0], np.uint64))
        self.specials = place(np.zeros(3, np.int64))

    def advance(self, steps: int) -> None:
        """Count in the next `steps` batches, or what is left of the file."""
        launch = self._target.launch
        for _ in range(steps):
            values = self._read(min(self.setup.batch, self.setup.size // 8 - self.offset))
            if values.size:
                launch(
                    self._programs.COUNT, min(values.size, DEVICE_THREADS),
                    self._target.place(values), self.setup.dtype == "float64", self.histogram,
                    self.registers, self.limbs, self.extremes, self.specials,
                )  # fmt: skip
                launch(self._programs.CARRY, 1, self.limbs)
            self.offset += values.size
            self.step += 1
        self._target.wait()

    def _read(self, count: int) -> Any:
        if count == 0:
            return np.empty(0, np.uint64)
        try:
            values = np.fromfile(self.path, "<u8", count, offset=8 * self.offset)
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if values.size < count:
            raise InvalidKernel("the file has become shorter", where=str(self.path),
                                hint="sketch a file that does not change")  # fmt: skip
        return values

    async def checkpoint(self) -> SketchCheckpoint:
        """Return a snapshot of the state."""
        return await capture(SketchCheckpoint, self)

    async def restore(self, checkpoint: SketchCheckpoint) -> None:
        """Continue from `checkpoint`.

        Raises `InvalidCheckpoint` if it is of another file, dtype or batch, or if it counts other
        values than were read.
        """
        check_checkpoint(checkpoint, SketchCheckpoint, self, self.setup)
        offset = min(checkpoint.step * self.setup.batch, self.setup.size // 8)
        valid = checkpoint.offset == offset
        check_value("offset", f"expected {offset} values, got {checkpoint.offset}", valid=valid)
        counts = (checkpoint.histogram, checkpoint.specials)
        counted = sum(int(on_host(count).sum()) for count in counts)
        valid = counted == offset
        check_value("histogram", f"it counts {counted} values, not {offset}", valid=valid)
        await reinstate(checkpoint, self)

    def checkpoint_size_estimate(self) -> int:
        """Return the size of a checkpoint's arrays in bytes."""
        return 8 * BINS + 4 * REGISTERS + 8 * (LIMBS + 2 + 3)

    def counts(self) -> Any:
        """Return the histogram of the finite values so far, (16384,) int64; see `bin_edges`."""
        return self._target.fetch(self.histogram)

    def summary(self) -> Summary:
        """Return the aggregates of the values read so far."""
        fetch = self._target.fetch
        nans, infinities, minus_infinities = (int(count) for count in fetch(self.specials))
        dtype = self.setup.dtype
        exact = exact_sum(fetch(self.limbs))
        total: float | int = rounded(exact) if dtype == "float64" else exact
        if nans or (infinities and minus_infinities):
            total = math.nan
        elif infinities or minus_infinities:
            total = math.inf if infinities else -math.inf
        smallest, largest = (int(key) for key in fetch(self.extremes))
        empty = smallest > largest
        return Summary(
            count=self.offset,
            nans=nans,
            total=total,
            minimum=None if empty else _value(smallest, dtype),
            maximum=None if empty else _value(largest, dtype),
            distinct=distinct_values(fetch(self.registers)),
        )


def _value(key: int, dtype: str) -> float | int:
    """Return the value whose order (see `programs`) is `key`."""
    sign = 1 << 63
    bits = key ^ sign if key & sign or dtype == "int64" else key ^ (2**64 - 1)
    value: float | int = np.uint64(bits).view(dtype).item()
    return value


def _identity(path: Path) -> tuple[int, str]:
    """Return the file's size and the SHA-256 of its two ends."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            for start in (0, max(0, size - END)):
                file.seek(start)
                digest.update(file.read(END))
    except OSError as error:
        raise _unreadable(path, error) from error
    return size, digest.hexdigest()


def _unreadable(path: Path, error: OSError) -> InvalidKernel:
    return InvalidKernel(f"the file cannot be read: {error.strerror}", where=str(path),
                         hint="name a file of float64 or int64 values")  # fmt: skip
