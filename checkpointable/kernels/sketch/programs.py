"""The device code of `sketch`. Importing it imports Numba.

All values are handled as the 64 bits that store them.
"""

# Numba's stubs describe what is used in kernels as classes, not as what it is there.
# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportOptionalSubscript=false

# mypy: allow-untyped-defs, allow-untyped-calls
# Numba infers the types of what it compiles.

from typing import Any

import numpy as np
from numba import cuda, prange

from checkpointable.kernels.decorators import Jit, cpu, gpu, kernel, loop, serial
from checkpointable.kernels.sketch.layout import LIMBS
from checkpointable.kernels.target import Program

# As uint64, since Numba makes mixed integers signed.
ZERO, ONE, TWO = np.uint64(0), np.uint64(1), np.uint64(2)
SIGN = np.uint64(1 << 63)
INFINITY, NAN = np.uint64(0x7FF << 52), np.uint64(0xFFF << 51)
FRACTION, IMPLICIT = np.uint64((1 << 52) - 1), np.uint64(1 << 52)
EXPONENTS, BIAS = np.uint64(0x7FF), np.uint64(1023)
LOW32 = np.uint64((1 << 32) - 1)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX1, MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
U5, U14, U27, U30, U31, U32 = (np.uint64(k) for k in (5, 14, 27, 30, 31, 32))
U50, U52, U63 = (np.uint64(k) for k in (50, 52, 63))

PARTS = 16  # of a batch on the CPU, one core each at most; each takes 200 kB


def make(jit: Jit) -> tuple[Any, ...]:
    """Return the element functions (special, order, bin_of, register, fixed_point, carry)."""

    @jit
    def magnitude(bits):
        """Return |v| of an int64."""
        return (~bits) + ONE if bits & SIGN else bits

    @jit
    def leading_zeros(x):
        """Return the number of zero bits above the highest set bit, or 63 if none is set."""
        zeros = 0
        width = 32
        while width > 0:
            if x >> np.uint64(64 - width) == ZERO:
                zeros += width
                x = x << np.uint64(width)
            width //= 2
        return zeros

    @jit
    def special(bits, is_float):
        """Return 0 for NaN, 1 for infinity, 2 for minus infinity, -1 for a number."""
        if not is_float or (bits & INFINITY) != INFINITY:
            return -1
        if (bits & FRACTION) != ZERO:
            return 0
        return 2 if bits & SIGN else 1

    @jit
    def order(bits, is_float):
        """Return an unsigned integer that sorts as the value does."""
        return ~bits if is_float and bits & SIGN else bits ^ SIGN

    @jit
    def bin_of(bits, is_float):
        """Return the bin: the sign, exponent and top two fraction bits of the value as a float."""
        if is_float:
            return bits >> U50
        size = magnitude(bits)
        if size == ZERO:
            return ZERO
        exponent = np.uint64(63 - leading_zeros(size))
        aligned = size << (U63 - exponent)
        quarter = (aligned << ONE) >> np.uint64(62)
        return ((bits & SIGN) >> U50) | ((BIAS + exponent) << TWO) | quarter

    @jit
    def register(bits, is_float):
        """Return the HyperLogLog register of the value, and its rank."""
        if is_float and bits == SIGN:  # -0.0 is equal to 0.0
            bits = ZERO
        if special(bits, is_float) == 0:  # all NaN count as one value
            bits = NAN
        z = bits + GOLDEN
        z = (z ^ (z >> U30)) * MIX1
        z = (z ^ (z >> U27)) * MIX2
        z = z ^ (z >> U31)
        rank = min(leading_zeros(z << U14), 50) + 1
        return z >> U50, rank

    @jit
    def fixed_point(bits, is_float):
        """Return the value in fixed point: number of the first limb, three limbs, and sign."""
        negative = bits & SIGN != ZERO
        if is_float:
            exponent = (bits >> U52) & EXPONENTS
            digits = bits & FRACTION
            shift = ZERO
            if exponent != ZERO:
                digits |= IMPLICIT
                shift = exponent - ONE
        else:
            digits = magnitude(bits)
            shift = ZERO
        within = shift & U31
        low = digits << within
        high = (digits >> ONE) >> (U63 - within)
        sign = -1 if negative else 1
        return shift >> U5, np.int64(low & LOW32), np.int64(low >> U32), np.int64(high), sign

    @jit
    def carry(limbs):
        """Bring all limbs but the last into 0 to 2^32 - 1, so that 2^30 more values fit."""
        for k in range(limbs.shape[0] - 1):
            excess = limbs[k] >> 32
            limbs[k] -= excess << 32
            limbs[k + 1] += excess

    return special, order, bin_of, register, fixed_point, carry


special_cpu, order_cpu, bin_cpu, register_cpu, fixed_point_cpu, carry_cpu = make(cpu)
special_gpu, order_gpu, bin_gpu, register_gpu, fixed_point_gpu, carry_gpu = make(gpu)


@loop
def count_loop(values, is_float, histogram, registers, limbs, extremes, specials):
    # Each part has its own counts, added up at the end: no two cores write to the same place.
    part_histogram = np.zeros((PARTS, histogram.size), np.int64)
    part_registers = np.zeros((PARTS, registers.size), np.uint32)
    part_limbs = np.zeros((PARTS, limbs.size), np.int64)
    part_extremes = np.zeros((PARTS, 2), np.uint64)
    part_specials = np.zeros((PARTS, 3), np.int64)
    for part in prange(PARTS):
        smallest, largest = extremes[0], extremes[1]
        for k in range(part * values.size // PARTS, (part + 1) * values.size // PARTS):
            bits = values[k]
            number, rank = register_cpu(bits, is_float)
            part_registers[part, number] = max(part_registers[part, number], np.uint32(rank))
            kind = special_cpu(bits, is_float)
            if kind != 0:
                smallest = min(smallest, order_cpu(bits, is_float))
                largest = max(largest, order_cpu(bits, is_float))
            if kind >= 0:
                part_specials[part, kind] += 1
            else:
                part_histogram[part, bin_cpu(bits, is_float)] += 1
                limb, low, middle, high, sign = fixed_point_cpu(bits, is_float)
                part_limbs[part, limb] += sign * low
                part_limbs[part, limb + ONE] += sign * middle
                part_limbs[part, limb + TWO] += sign * high
        part_extremes[part, 0] = smallest
        part_extremes[part, 1] = largest
    for part in range(PARTS):
        histogram += part_histogram[part]
        limbs += part_limbs[part]
        specials += part_specials[part]
        extremes[0] = min(extremes[0], part_extremes[part, 0])
        extremes[1] = max(extremes[1], part_extremes[part, 1])
        for number in range(registers.size):
            registers[number] = max(registers[number], part_registers[part, number])


@kernel
def count_kernel(values, is_float, histogram, registers, limbs, extremes, specials):
    # The limbs are summed in shared memory first: nearly all values fall into a few of them.
    block_limbs = cuda.shared.array(LIMBS, np.int64)
    for k in range(cuda.threadIdx.x, LIMBS, cuda.blockDim.x):
        block_limbs[k] = 0
    cuda.syncthreads()
    for k in range(cuda.grid(1), values.size, cuda.gridsize(1)):
        bits = values[k]
        number, rank = register_gpu(bits, is_float)
        # Reading before each atomic is safe, since these are monotonic, and spares most of them.
        if registers[number] < rank:
            cuda.atomic.max(registers, number, np.uint32(rank))
        kind = special_gpu(bits, is_float)
        if kind != 0:
            key = order_gpu(bits, is_float)
            if key < extremes[0]:
                cuda.atomic.min(extremes, 0, key)
            if key > extremes[1]:
                cuda.atomic.max(extremes, 1, key)
        if kind >= 0:
            cuda.atomic.add(specials, kind, 1)
        else:
            cuda.atomic.add(histogram, bin_gpu(bits, is_float), 1)
            limb, low, middle, high, sign = fixed_point_gpu(bits, is_float)
            cuda.atomic.add(block_limbs, limb, sign * low)
            cuda.atomic.add(block_limbs, limb + ONE, sign * middle)
            cuda.atomic.add(block_limbs, limb + TWO, sign * high)
    cuda.syncthreads()
    for k in range(cuda.threadIdx.x, LIMBS, cuda.blockDim.x):
        if block_limbs[k] != 0:
            cuda.atomic.add(limbs, k, block_limbs[k])


@serial
def carry_loop(limbs):
    carry_cpu(limbs)


@kernel
def carry_kernel(limbs):
    if cuda.grid(1) == 0:
        carry_gpu(limbs)


COUNT = Program(count_loop, count_kernel)
"""(values, is_float, histogram, registers, limbs, extremes, specials): count in all values."""

CARRY = Program(carry_loop, carry_kernel)
"""(limbs): normalise the exact sum."""
