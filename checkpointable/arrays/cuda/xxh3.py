"""XXH3-128, as kernels that Numba compiles.

Source: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md (XXH3, 128 bits, seed 0, the
default secret). A warp computes a block: 32 threads read 256 adjacent bytes at a time, and one of
them does the rest, and all of a short block.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Numba infers the types of what it compiles.

# Numba describes what is used within kernels as classes, not as what it becomes there.
# pyright: reportCallIssue=false, reportArgumentType=false, reportOperatorIssue=false, reportOptionalSubscript=false

from typing import Any

import numpy as np
from numba import cuda, prange

from checkpointable.arrays.cuda.programs import Jit, Program, cpu, gpu, kernel, loop

_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)


def _secret(offset: int, count: int) -> Any:
    return np.frombuffer(_SECRET, "<u8", count, offset).copy()


SECRET, SECRET_3 = _secret(0, 24), _secret(3, 23)
LAST, LAST_MIDDLE = _secret(192 - 64 - 7, 8), _secret(136 - 17 - 16, 4)
MERGE_LOW, MERGE_HIGH = _secret(11, 8), _secret(192 - 64 - 11, 8)
START = np.array(
    [0xC2B2AE3D, 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63,
     0x85EBCA77, 0x27D4EB2F165667C5, 0x9E3779B1], np.uint64,
)  # fmt: skip
P1, P2, P3, P4, Q1, Q2 = START[1], START[2], START[3], START[4], START[7], START[5]
# As uint64, since Numba makes signed numbers from mixed integers.
MX1, MX2 = np.uint64(0x165667919E3779F9), np.uint64(0x9FB21C651E98DF25)
LOW, BYTE = np.uint64(0xFFFFFFFF), np.uint64(0xFF)
U0, U1, U2, U3, U4, U6, U7, U8 = (np.uint64(k) for k in (0, 1, 2, 3, 4, 6, 7, 8))
U9, U10, U13, U16, U19, U24, U28 = (np.uint64(k) for k in (9, 10, 13, 16, 19, 24, 28))
U29, U32, U33, U35, U37, U47, U54 = (np.uint64(k) for k in (29, 32, 33, 35, 37, 47, 54))
U64, U128, U240, U256 = (np.uint64(k) for k in (64, 128, 240, 256))


def make(jit: Jit) -> tuple[Any, Any, Any, Any, Any]:
    """Return the element functions (word, lane, added, scrambled, finish).

    All of them take the memory as an array of words, and a block's place in it in bytes.
    """

    @jit
    def word(words, at):
        """Return the 8 bytes there; no aligned word without one of them is read."""
        shift = (at & U7) << U3
        low = words[at >> U3]
        if shift == U0:
            return low
        return (low >> shift) | (words[(at >> U3) + U1] << (U64 - shift))

    @jit
    def half(words, at):
        """Return the 4 bytes there."""
        shift = (at & U7) << U3
        low = words[at >> U3] >> shift
        if shift > U32:
            low |= words[(at >> U3) + U1] << (U64 - shift)
        return low & LOW

    @jit
    def byte(words, at):
        return (words[at >> U3] >> ((at & U7) << U3)) & BYTE

    @jit
    def product(a, b):
        """Return low and high word of a · b."""
        low = (a & LOW) * (b & LOW)
        one, other = (a >> U32) * (b & LOW), (a & LOW) * (b >> U32)
        middle = (low >> U32) + (one & LOW) + other
        high = (a >> U32) * (b >> U32) + (one >> U32) + (middle >> U32)
        return (middle << U32) | (low & LOW), high

    @jit
    def fold(a, b):
        low, high = product(a, b)
        return low ^ high

    @jit
    def avalanche(x):
        x = (x ^ (x >> U37)) * MX1
        return x ^ (x >> U32)

    @jit
    def avalanche_64(x):
        """The avalanche of XXH64."""
        x = (x ^ (x >> U33)) * P2
        x = (x ^ (x >> U29)) * P3
        return x ^ (x >> U32)

    @jit
    def swap_32(x):
        x = ((x & np.uint64(0x00FF00FF)) << U8) | ((x >> U8) & np.uint64(0x00FF00FF))
        return ((x << U16) | (x >> U16)) & LOW

    @jit
    def added(own, other, key):
        """Return what a stripe adds to a lane."""
        keyed = own ^ key
        return other + (keyed & LOW) * (keyed >> U32)

    @jit
    def scrambled(state, key):
        """Return the state of a lane after a KiB."""
        return (state ^ (state >> U47) ^ key) * Q1

    @jit
    def lane(words, at, size, number, secret):
        """Return the final state of a lane, for a block of more than 240 bytes."""
        state, other = START[number], number ^ U1
        rounds = (size - U1) >> U10
        for k in range(rounds):
            begin = at + (np.uint64(k) << U10)
            if begin & U7 == U0:
                first = begin >> U3
                for n in range(16):
                    i = first + (np.uint64(n) << U3)
                    key = secret[np.uint64(n) + number]
                    state += added(words[i + number], words[i + other], key)
            else:
                for n in range(16):
                    i = begin + (np.uint64(n) << U6)
                    key = secret[np.uint64(n) + number]
                    own, partner = word(words, i + (number << U3)), word(words, i + (other << U3))
                    state += added(own, partner, key)
            state = scrambled(state, secret[U16 + number])
        begin = at + (rounds << U10)
        for n in range((size - U1 - (rounds << U10)) >> U6):
            i = begin + (np.uint64(n) << U6)
            own, partner = word(words, i + (number << U3)), word(words, i + (other << U3))
            state += added(own, partner, secret[np.uint64(n) + number])
        i = at + size - U64
        own, partner = word(words, i + (number << U3)), word(words, i + (other << U3))
        return state + added(own, partner, LAST[number])

    @jit
    def merged(lanes, first, keys, start):
        result = start
        for i in range(0, 8, 2):
            result += fold(lanes[first + i] ^ keys[i], lanes[first + i + 1] ^ keys[i + 1])
        return avalanche(result)

    @jit
    def up_to_3(words, at, size):
        first, last = byte(words, at), byte(words, at + size - U1)
        middle = byte(words, at + (size >> U1))
        low = (first << U16) | (middle << U24) | last | (size << U8)
        swapped = swap_32(low)
        high = ((swapped << U13) | (swapped >> U19)) & LOW
        low ^= (SECRET[0] & LOW) ^ (SECRET[0] >> U32)
        high ^= (SECRET[1] & LOW) ^ (SECRET[1] >> U32)
        return avalanche_64(low), avalanche_64(high)

    @jit
    def up_to_8(words, at, size):
        both = half(words, at) + (half(words, at + size - U4) << U32)
        low, high = product(both ^ SECRET[2] ^ SECRET[3], P1 + (size << U2))
        high += low << U1
        low ^= high >> U3
        low = (low ^ (low >> U35)) * MX2
        return low ^ (low >> U28), avalanche(high)

    @jit
    def up_to_16(words, at, size):
        begin, end = word(words, at), word(words, at + size - U8)
        low, high = product(begin ^ end ^ SECRET[4] ^ SECRET[5], P1)
        low += (size - U1) << U54
        end ^= SECRET[6] ^ SECRET[7]
        high += end + (end & LOW) * (Q2 - U1)
        low ^= (swap_32(high & LOW) << U32) | swap_32(high >> U32)
        result, carry = product(low, P2)
        return avalanche(result), avalanche(carry + high * P2)

    @jit
    def mixed(words, low, high, one, other, keys, key):
        """Mix in 32 bytes: 16 at one place, 16 at the other, with four keys."""
        a, b = word(words, one), word(words, one + U8)
        c, d = word(words, other), word(words, other + U8)
        low = (low + fold(a ^ keys[key], b ^ keys[key + 1])) ^ (c + d)
        high = (high + fold(c ^ keys[key + 2], d ^ keys[key + 3])) ^ (a + b)
        return low, high

    @jit
    def up_to_240(words, at, size):
        low, high = size * P1, U0
        end = at + size
        if size <= U128:
            for k in range(((size - U1) >> np.uint64(5)) + U1):
                i = ((size - U1) >> np.uint64(5)) - np.uint64(k)
                one, other = at + (i << U4), end - ((i + U1) << U4)
                low, high = mixed(words, low, high, one, other, SECRET, 4 * np.int64(i))
        else:
            for i in range(4):
                one = at + np.uint64(32 * i)
                low, high = mixed(words, low, high, one, one + U16, SECRET, 4 * i)
            low, high = avalanche(low), avalanche(high)
            for i in range(4, np.int64(size) // 32):
                one = at + np.uint64(32 * i)
                low, high = mixed(words, low, high, one, one + U16, SECRET_3, 4 * (i - 4))
            low, high = mixed(words, low, high, end - U16, end - U32, LAST_MIDDLE, 0)
        return avalanche(low + high), U0 - avalanche(low * P1 + high * P4 + size * P2)

    @jit
    def finish(words, at, size, lanes, first, out, block):
        """Write high and low word of a block's digest; `lanes` has those of a long block."""
        if size > U240:
            low = merged(lanes, first, MERGE_LOW, size * P1)
            high = merged(lanes, first, MERGE_HIGH, ~(size * P2))
        elif size > U16:
            low, high = up_to_240(words, at, size)
        elif size > U8:
            low, high = up_to_16(words, at, size)
        elif size >= U4:
            low, high = up_to_8(words, at, size)
        elif size > U0:
            low, high = up_to_3(words, at, size)
        else:
            low = avalanche_64(SECRET[8] ^ SECRET[9])
            high = avalanche_64(SECRET[10] ^ SECRET[11])
        out[2 * block] = high
        out[2 * block + 1] = low

    return word, lane, added, scrambled, finish


_, lane_cpu, _, _, finish_cpu = make(cpu)
word_gpu, _, added_gpu, scrambled_gpu, finish_gpu = make(gpu)

WARPS = 4
"""Blocks that a CUDA block computes at a time."""

SHARED = 8 * WARPS
ALL = 0xFFFFFFFF  # threads of a warp


@loop
def digest_loop(words, table, n, out):
    for i in prange(n):
        at, size = table[i], table[n + i]
        lanes = np.empty(8, np.uint64)
        if size > U240:
            for number in range(8):
                lanes[number] = lane_cpu(words, at, size, np.uint64(number), SECRET)
        finish_cpu(words, at, size, lanes, 0, out, i)


@gpu
def other(value, distance):
    """The value of the thread whose number differs in one bit."""
    return np.uint64(cuda.shfl_xor_sync(ALL, np.int64(value), distance))


@gpu
def load_kib(words, at):
    """Return a thread's four words of a KiB, the first of them at a byte."""
    return (
        word_gpu(words, at),
        word_gpu(words, at + U256),
        word_gpu(words, at + U256 + U256),
        word_gpu(words, at + U256 + U256 + U256),
    )


@gpu
def aligned_kib(words, i):
    """As `load_kib`, without a branch that would keep later loads from beginning."""
    return words[i], words[i + 32], words[i + 64], words[i + 96]


@gpu
def after_kib(state, own, keys):
    """Return a lane's state after a KiB, of which each of four threads has four stripes."""
    found = added_gpu(own[0], other(own[0], 1), keys[0])
    found += added_gpu(own[1], other(own[1], 1), keys[1])
    found += added_gpu(own[2], other(own[2], 1), keys[2])
    found += added_gpu(own[3], other(own[3], 1), keys[3])
    found += other(found, 8)
    found += other(found, 16)
    return scrambled_gpu(state + found, keys[4])


@kernel
def digest_kernel(words, table, n, out):
    # A warp computes a block: thread 8 g + k, of lane k, the stripes 4 j + g of each KiB. What the
    # stripes of a KiB add does not depend on the state. The next 4 KiB are loaded meanwhile.
    lanes = cuda.shared.array(SHARED, np.uint64)
    thread, warp = np.int64(cuda.threadIdx.x) & 31, np.int64(cuda.threadIdx.x) >> 5
    k, group = thread & 7, thread >> 3
    keys = (SECRET[group + k], SECRET[4 + group + k], SECRET[8 + group + k],
            SECRET[12 + group + k], SECRET[16 + k])  # fmt: skip
    for block in range(cuda.blockIdx.x * WARPS + warp, n, cuda.gridDim.x * WARPS):
        at, size = table[block], table[n + block]
        if size > U240:
            state, own_at = START[k], at + (np.uint64(thread) << U3)
            rounds, done = np.int64((size - U1) >> U10), 0
            if at & U7 == U0 and rounds >= 4:
                i = np.int64(own_at >> U3)
                a, b = aligned_kib(words, i), aligned_kib(words, i + 128)
                c, d = aligned_kib(words, i + 256), aligned_kib(words, i + 384)
                while done + 8 <= rounds:
                    i += 512
                    e, f = aligned_kib(words, i), aligned_kib(words, i + 128)
                    g, h = aligned_kib(words, i + 256), aligned_kib(words, i + 384)
                    state = after_kib(after_kib(state, a, keys), b, keys)
                    state = after_kib(after_kib(state, c, keys), d, keys)
                    a, b, c, d = e, f, g, h
                    done += 4
                state = after_kib(after_kib(state, a, keys), b, keys)
                state = after_kib(after_kib(state, c, keys), d, keys)
                done += 4
            own_at += np.uint64(done) << U10
            while done < rounds:
                state = after_kib(state, load_kib(words, own_at), keys)
                done += 1
                own_at += U1 << U10
            stripes = np.int64((size - U1 - (np.uint64(rounds) << U10)) >> U6)
            found = U0
            for j in range(4):
                own = U0
                if 4 * j + group < stripes:
                    own = word_gpu(words, own_at + (np.uint64(j) << U8))
                partner = other(own, 1)
                if 4 * j + group < stripes:
                    found += added_gpu(own, partner, keys[j])
            own = U0
            if group == 0:
                own = word_gpu(words, at + size - U64 + (np.uint64(k) << U3))
            partner = other(own, 1)
            if group == 0:
                found += added_gpu(own, partner, LAST[k])
            found += other(found, 8)
            found += other(found, 16)
            if group == 0:
                lanes[8 * warp + k] = state + found
        cuda.syncwarp()
        if thread == 0:
            finish_gpu(words, at, size, lanes, 8 * warp, out, block)
        cuda.syncwarp()


DIGEST = Program(digest_loop, digest_kernel, block=32 * WARPS)
"""(words, table, n, out): the digests of n blocks, high word first; the table has where all begin,
in bytes, and then all sizes."""
