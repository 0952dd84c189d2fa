"""The kernels that gather bytes: any strides, any alignment."""

# What is seen of numba.cuda without its package are stubs with other parameters.
# pyright: reportCallIssue=false, reportArgumentType=false

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numba import cuda

from checkpointable.arrays.cuda import memory, strided
from tests.helpers.equality import same

STATE = np.dtype([("s0", np.uint64), ("s1", np.uint8)], align=True)
DTYPES = [np.dtype(d) for d in (np.int8, np.float16, np.float32, np.complex128, "V3", "S5")]
DTYPES += [STATE]


@st.composite
def views(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Arrays of few elements, as slices, with steps of either sign, axes in any order."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(1, 7), max_size=3))
    size = int(np.prod(shape)) * dtype.itemsize
    noise = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, size, np.uint8)
    array = np.ndarray(shape, dtype, noise.data)
    array = array.transpose(draw(st.permutations(range(array.ndim))))
    steps = st.sampled_from([1, 1, 2, 3, -1, -2])
    key: Any = (..., *(slice(None, None, draw(steps)) for _ in range(array.ndim)))
    return np.asarray(array[key])


def content(view: np.ndarray[Any, Any]) -> bytes:
    """All bytes of the elements, including those between the fields of a record."""
    return view.view(f"V{view.itemsize}").tobytes()


def on_device(view: np.ndarray[Any, Any]) -> memory.Array:
    """The view itself, as a device array: strides are kept, as of slices of a device array."""
    return type(cuda.device_array(1, np.uint8))(view)


@given(views(), st.integers(0, 9))
def test_any_strides_to_bytes_and_back(view: np.ndarray[Any, Any], begin: int) -> None:
    packed = cuda.to_device(np.zeros(view.nbytes + 10, np.uint8))
    address, stream = memory.address_of(packed) + begin, memory.side_stream()
    strided.copy(on_device(view), address, stream)
    data = packed.copy_to_host()
    assert data[begin : begin + view.nbytes].tobytes() == content(view)
    assert not data[:begin].any()
    assert not data[begin + view.nbytes :].any()
    before = content(view)
    view.view(f"V{view.itemsize}")[...] = np.void(b"\x07" * view.itemsize)
    strided.copy(on_device(view), address, stream, back=True)
    assert content(view) == before


@given(views(), st.data())
def test_some_elements_of_any_strides(view: np.ndarray[Any, Any], data: st.DataObject) -> None:
    if view.flags.c_contiguous:
        return
    first = data.draw(st.integers(0, view.size - 1))
    count = data.draw(st.integers(1, view.size - first))
    packed = cuda.to_device(np.zeros(count * view.itemsize, np.uint8))
    address, stream = memory.address_of(packed), memory.side_stream()
    strided.copy(on_device(view), address, stream, first=first, count=count)
    begin, end = first * view.itemsize, (first + count) * view.itemsize
    assert packed.copy_to_host().tobytes() == content(view)[begin:end]


pieces = st.lists(st.tuples(st.integers(0, 70), st.integers(1, 200)), min_size=1, max_size=8)
Gather = Callable[[Any, Any, Any, Any, int, Any], None]


def by_kernel(*arguments: Any) -> None:
    strided.GATHER.kernel[5, 32, 0](*arguments)


@given(pieces)
def test_blocks_at_any_place(places: list[tuple[int, int]]) -> None:
    check_gathered(strided.GATHER.loop, places)


def test_the_kernel_gathers_as_the_loop_does() -> None:
    check_gathered(by_kernel, [(3, 25), (40, 200)])


def check_gathered(gather: Gather, places: list[tuple[int, int]]) -> None:
    """In the last words of the array as well: there may be no memory beyond them."""
    words = np.random.default_rng(0).integers(0, 2**64, 270 // 8 + 1, np.uint64)
    data = words.view(np.uint8)[:270]
    places = [*places, (270 - 13, 13), (270 - 1, 1), (0, 8)]
    at, sizes = (np.array(numbers, np.uint64) for numbers in zip(*places, strict=True))
    homes = 32 * np.arange(len(places), dtype=np.uint64)
    out = np.full(32 * len(places), 7, np.uint64)
    gather(words, at, sizes, homes, 25, out)
    for home, (begin, size) in zip(homes.tolist(), places, strict=True):
        block_bytes = out[home : home + 32].view(np.uint8)
        assert block_bytes[:size].tobytes() == data[begin : begin + size].tobytes()
        assert not block_bytes[size : -(-size // 8) * 8].any()
        assert (block_bytes[-(-size // 8) * 8 :].view(np.uint64) == 7).all()


def test_the_kernel_moves_as_the_loop_does() -> None:
    array = np.arange(60, dtype=np.int32).reshape(3, 4, 5)[::-1, ::2, ::-2]
    into = np.zeros(array.size, np.int32)
    begin = array.__array_interface__["data"][0] - memory.BASE
    target = into.__array_interface__["data"][0] - memory.BASE
    everything = memory.at(memory.BASE, 2**60, np.uint8)
    shape, strides = np.array(array.shape), np.array(array.strides)
    for back in (False, True):
        strided.MOVE.kernel[2, 32, 0](
            everything, begin, target, shape, strides, 0, array.size, 4, back
        )
        assert same(into, array.reshape(-1))
        array, into = array.copy()[...], into
