"""Figures of an array in a file, computed block by block in memory for one block."""

import math
from typing import Any

import numpy as np
from attrs import define

from checkpointable.format import AnyArray, Opened, StoredArray, layout, read_block


@define
class Statistics:
    """Figures of an array; None where its dtype, or an array without a number, has none.

    Minimum, maximum and mean leave NaN (and NaT) out. Times are text.
    """

    min: int | float | str | None = None
    max: int | float | str | None = None
    mean: int | float | str | None = None
    nan_count: int | None = None


def statistics(checkpoint: Opened, placed: StoredArray) -> Statistics:
    """Read an array, verify each block, and return its figures.

    Raises `CorruptCheckpoint`, naming array and block, if one is damaged.
    """
    buffer = memoryview(bytearray(min(layout.BLOCK, placed.nbytes)))
    dtype = computable(placed.dtype)
    nans = count = 0
    total: Any = 0
    low: Any = None
    high: Any = None
    for index in range(placed.blocks):
        block = read_block(checkpoint, placed, index, buffer)
        if dtype is None:
            continue
        numbers: AnyArray = np.frombuffer(block, placed.dtype).astype(dtype, copy=False)
        if dtype.kind in "fcmM":
            missing = np.isnan(numbers)
            nans += int(np.count_nonzero(missing))
            numbers = numbers[~missing] if missing.any() else numbers
        if numbers.size and dtype.kind != "c":
            low = numbers.min() if low is None else min(low, numbers.min())
            high = numbers.max() if high is None else max(high, numbers.max())
            with np.errstate(invalid="ignore"):  # inf - inf
                total = total if dtype.kind in "mM" else total + _sum(numbers)
            count += numbers.size
    if dtype is None:
        return Statistics()
    if not count:
        return Statistics(nan_count=nans)
    mean = None if dtype.kind in "mM" else plain(total / count)
    return Statistics(plain(low), plain(high), mean, nans)


def computable(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """The dtype to compute in; None if there is nothing to compute."""
    if dtype.type.__module__ == "ml_dtypes":
        return np.dtype(np.complex64 if "complex" in dtype.name else np.float32)
    if dtype.kind in "mM" and np.datetime_data(dtype)[0] == "generic":  # without a unit
        return None
    return dtype if dtype.kind in "biufcmM" and layout.BLOCK % dtype.itemsize == 0 else None


def _sum(numbers: AnyArray) -> Any:
    """The sum: exact for integers, in the widest type for floats."""
    if numbers.dtype.kind == "f":
        return numbers.sum(dtype=np.longdouble)
    wide = numbers.astype(np.uint64 if numbers.dtype.kind == "u" else np.int64, copy=False)
    return (int((wide >> 32).sum()) << 32) + int((wide & 0xFFFFFFFF).sum())


def plain(value: Any) -> int | float | str:
    """The value as a Python type; as text if JSON has no such number."""
    if isinstance(value, np.bool | np.integer):
        return value.item()
    if isinstance(value, np.datetime64 | np.timedelta64):
        return str(value)
    number = float(value)
    return number if math.isfinite(number) else str(value)
