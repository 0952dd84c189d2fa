"""A file of numbers, summarised in one pass: each value is counted exactly once.

Everything kept is an integer, so that the answer depends neither on the batches, nor on the
threads, nor on how often the run was killed and resumed.
"""

import hashlib
import math
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from attrs import frozen

from checkpointable import Array, InvalidKernel, KernelMetadata, capture, checkpoint, reinstate
from checkpointable.kernels._checks import on_host, require, require_fit, require_sound
from checkpointable.kernels._target import Device, choose_target
from checkpointable.kernels.sketch.layout import (
    BINS,
    LIMBS,
    REGISTERS,
    distinct_values,
    exact_sum,
    rounded,
)

END = 1 << 16  # bytes at either end of the file that are part of its identity
DEVICE_THREADS = 1 << 16  # fill any device; each then strides over a batch
MOST = 1 << 30  # values in a batch, so that no limb of the sum overflows


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
    """The state of a `Sketch` after `step` batches, when `offset` values were read.

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

    `count` is all of them, `nans` how many are NaN. `total` is the sum: of int64 exact, an int of
    any size; of float64 the exact sum rounded once, as `math.fsum`, but infinite where that
    overflows and NaN or infinite as IEEE 754 adds those. `minimum` and `maximum` leave NaN out and
    are None if nothing is left. `distinct` estimates the number of different values (0 and -0 are
    one, all NaN are one) with a standard error of 0.8%.
    """

    count: int
    nans: int
    total: float | int
    minimum: float | int | None
    maximum: float | int | None
    distinct: float


class Sketch:
    """Count, exact sum, extremes, histogram and number of distinct values of a file.

    One step reads one batch; steps after the last, `total_steps`, do nothing but count.

    `path`
        a file of little-endian numbers and nothing else. It must not change during the run.
    `dtype`
        what they are: "float64" or "int64".
    `batch`
        how many are read in one step, up to 2^30.
    `device`
        "cpu", "cuda", or "auto" for CUDA where there is a device.

    Raises `InvalidKernel` if the file is missing, cannot be read, or is no whole number of values;
    `advance` raises it too if the file has become shorter.

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

    def __init__(
        self,
        path: Path,
        *,
        dtype: Literal["float64", "int64"] = "float64",
        batch: int = 1 << 20,
        device: Device = "auto",
    ) -> None:
        require(dtype in ("float64", "int64"), f"{dtype=}", option="dtype",
                hint="use float64 or int64")  # fmt: skip
        require(1 <= batch <= MOST, f"{batch=}", option="batch", hint="use 1 to 2^30 values")
        self.path = Path(path)
        size, ends = _identity(self.path)
        require(size % 8 == 0, f"{size} bytes are no whole number of 8-byte values", option="path",
                hint="the file must hold float64 or int64 values and nothing else")  # fmt: skip

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

    @property
    def metadata(self) -> KernelMetadata:
        """Who this kernel is."""
        return KernelMetadata(id="sketch", version="1", domain="analytics",
                              description="exact and approximate aggregates of a file")  # fmt: skip

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
                                hint="sketch a file that nobody changes")  # fmt: skip
        return values

    async def checkpoint(self) -> SketchCheckpoint:
        """Return a snapshot of the state."""
        return await capture(SketchCheckpoint, self)

    async def restore(self, checkpoint: SketchCheckpoint) -> None:
        """Continue from `checkpoint`.

        Raises `InvalidCheckpoint` if it is of another file, dtype or batch, or if what was
        counted is not what was read.
        """
        require_fit(checkpoint, SketchCheckpoint, self, self.setup)
        offset = min(checkpoint.step * self.setup.batch, self.setup.size // 8)
        require_sound(checkpoint.offset == offset, f"{offset} values were to be read", "offset")
        counted = _total(checkpoint.histogram) + _total(checkpoint.specials)
        require_sound(counted == offset, f"{counted} values are counted, not {offset}", "histogram")
        await reinstate(checkpoint, self)

    def checkpoint_size_estimate(self) -> int:
        """Return the size of a checkpoint's arrays in bytes."""
        return 8 * BINS + 4 * REGISTERS + 8 * (LIMBS + 2 + 3)

    def counts(self) -> Any:
        """Return the histogram of the finite values so far, (16384,) int64; see `bin_edges`."""
        return self._target.fetch(self.histogram)

    def summary(self) -> Summary:
        """Return what is known of the values read so far."""
        fetch = self._target.fetch
        nans, infinities, minus_infinities = (int(count) for count in fetch(self.specials))
        is_float = self.setup.dtype == "float64"
        exact = exact_sum(fetch(self.limbs))
        total: float | int = rounded(exact) if is_float else exact
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
            minimum=None if empty else _value(smallest, is_float),
            maximum=None if empty else _value(largest, is_float),
            distinct=distinct_values(fetch(self.registers)),
        )


def _total(counts: Any) -> int:
    return int(on_host(counts).sum())


def _value(key: int, is_float: bool) -> float | int:
    """Return the value whose order (see `_sketch_programs`) is `key`."""
    sign = 1 << 63
    bits = key ^ sign if key & sign or not is_float else key ^ (2**64 - 1)
    return np.uint64(bits).view(np.float64 if is_float else np.int64).item()


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
