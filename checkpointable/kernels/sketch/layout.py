"""What the arrays of a sketch mean; used by the device code and on the host."""

import math
from typing import Any

import numpy as np

BINS = 1 << 14
"""Histogram bins: by sign, 11 bits of exponent and 2 of fraction, the top 14 bits of a float64."""

REGISTERS = 1 << 14
"""HyperLogLog registers: 2^14, for a standard error of 1.04 / √2^14 = 0.8%."""

LIMBS = 70
"""32-bit limbs of the exact sum: 2^-1074 to 2^1024, and room for 2^64 values of that size."""

RANKS = 50
"""Bits of a hash that determine its rank: 64 less those that choose the register."""

Float64 = np.ndarray[Any, np.dtype[np.float64]]


def bin_edges() -> Float64:
    """Return the smallest magnitude in each bin of either sign, (8193,) float64.

    Bin k < 8192 holds the values v with edges[k] <= v < edges[k + 1], four bins to a factor of
    two; bin 8192 + k those with edges[k] <= -v < edges[k + 1]. The last four are always empty.

    >>> edges = bin_edges()
    >>> [float(edge) for edge in edges[4 * 1023 : 4 * 1024 + 1]]
    [1.0, 1.25, 1.5, 1.75, 2.0]
    """
    bits = np.arange(BINS // 2 + 1, dtype=np.uint64) << np.uint64(50)
    edges = bits.view(np.float64)
    edges[4 * 0x7FF :] = math.inf
    return edges


def exact_sum(limbs: Any) -> int:
    """Return the sum that the limbs represent, in units of 2^-1074 for float64 and 1 for int64."""
    return sum(int(limb) << (32 * k) for k, limb in enumerate(limbs))


def rounded(total: int) -> float:
    """Return total · 2^-1074 correctly rounded, infinite if it is too large for a float.

    >>> rounded(3 << 1074), rounded(-(1 << 2200))
    (3.0, -inf)
    """
    try:
        return total / (1 << 1074)  # integer division in Python rounds correctly
    except OverflowError:
        return math.inf if total > 0 else -math.inf


def distinct_values(registers: Any) -> float:
    """Return HyperLogLog's estimate of the number of different values, from its registers.

    Flajolet, Fusy, Gandouet and Meunier (2007), HyperLogLog, DMTCS AH, figure 3, with linear
    counting below 2.5 values per register. With a 64-bit hash, large numbers need no correction.

    >>> distinct_values(np.zeros(REGISTERS, np.uint32))
    0.0
    """
    ranks = np.bincount(registers, minlength=RANKS + 2)
    # Exact in integers, so the order of the terms does not matter.
    harmonic: int = sum(int(count) << (RANKS + 1 - k) for k, count in enumerate(ranks))
    alpha = 0.7213 / (1 + 1.079 / REGISTERS)
    estimate: float = alpha * REGISTERS**2 * 2 ** (RANKS + 1) / harmonic
    if estimate <= 2.5 * REGISTERS and ranks[0]:
        return REGISTERS * math.log(REGISTERS / int(ranks[0]))
    return estimate
