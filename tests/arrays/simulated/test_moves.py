"""The kernels that gather bytes: any strides, any alignment."""

# What is seen of numba.cuda without its package are stubs with other parameters.
# pyright: reportCallIssue=false, reportArgumentType=false

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numba import cuda

from checkpointable.arrays.cuda import memory, strided
from checkpointable.arrays.cuda.views import view_of
from tests.helpers.equality import same

BYTES = np.random.default_rng(2).integers(0, 256, 210_000, np.uint8)
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


def move(view: Any, address: int, *, back: bool = False) -> None:
    tables, stream = strided.Tables(), memory.side_stream()
    strided.move_arrays(tables, [view_of(on_device(view))], [address], stream, back=back)


@given(views(), st.integers(0, 9))
def test_any_strides_to_bytes_and_back(view: np.ndarray[Any, Any], begin: int) -> None:
    packed = cuda.to_device(np.zeros(view.nbytes + 10, np.uint8))
    address = memory.address_of(packed) + begin
    move(view, address)
    data = packed.copy_to_host()
    assert data[begin : begin + view.nbytes].tobytes() == content(view)
    assert not data[:begin].any()
    assert not data[begin + view.nbytes :].any()
    before = content(view)
    view.view(f"V{view.itemsize}")[...] = np.void(b"\x07" * view.itemsize)
    move(view, address, back=True)
    assert content(view) == before


@given(views(), st.data())
def test_some_elements_of_any_strides(view: np.ndarray[Any, Any], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, view.size - 1))
    count = data.draw(st.integers(1, view.size - first))
    packed = cuda.to_device(np.zeros(count * view.itemsize, np.uint8))
    address, stream = memory.address_of(packed), memory.side_stream()
    source = view_of(on_device(view))
    strided.move_part(strided.Tables(), source, address, first, count, stream)
    begin, end = first * view.itemsize, (first + count) * view.itemsize
    assert packed.copy_to_host().tobytes() == content(view)[begin:end]


def test_more_axes_than_a_row_has() -> None:
    array = np.arange(2 * 4**8, dtype=np.int16).reshape(2, *[4] * 8)
    view = array[(slice(None), *[slice(None, None, 2)] * 8)]
    packed = cuda.to_device(np.zeros(view.size, np.int16))
    move(view, memory.address_of(packed))
    assert same(packed.copy_to_host(), view.reshape(-1))


@given(views())
def test_axes_are_merged_and_units_are_wide(view: np.ndarray[Any, Any]) -> None:
    unit, axes = strided._axes(view_of(on_device(view)))
    lengths = [length for length, _ in axes]
    assert unit * np.prod(lengths) == view.nbytes
    for (_, stride), (length, inner) in itertools.pairwise(axes):
        assert stride != length * inner


Copy = Callable[[Any, Any, Any, int], None]


def by_kernel(words: Any, octets: Any, table: Any, n: int) -> None:
    """The simulator copies host arrays to and fro: here, the memory itself is meant."""
    places = table.copy()
    places[: 2 * n] += np.uint64(octets.ctypes.data - memory.BASE)
    strided.COPY.kernel[3, 32, 0](memory.words(), memory.words(1), places, n)


pieces = st.lists(
    st.tuples(st.integers(0, 70), st.integers(0, 9), st.integers(1, 200)), min_size=1, max_size=8
)


@given(pieces)
def test_pieces_of_any_place(places: list[tuple[int, int, int]]) -> None:
    check_copied(strided.COPY.loop, places)


def test_the_kernel_copies_as_the_loop_does() -> None:
    check_copied(by_kernel, [(3, 0, 25), (40, 5, 200), (8, 16, 7)])


def check_copied(copy: Copy, places: list[tuple[int, int, int]]) -> None:
    """In the last words of the array as well: there may be no memory beyond them."""
    room, end = 256, 270
    places = [*places, (end - 13, 0, 13), (end - 1, 3, 1), (0, 0, 8)]
    words = np.random.default_rng(0).integers(0, 2**64, room * (len(places) + 2) // 8, np.uint64)
    data, before = words.view(np.uint8), words.view(np.uint8).copy()
    targets = [room * (i + 2) + shift for i, (_, shift, _) in enumerate(places)]
    table = np.array([*targets, *(b for b, _, _ in places), *(n for _, _, n in places)], np.uint64)
    copy(words, data, table, len(places))
    for target, (begin, _, size) in zip(targets, places, strict=True):
        before[target : target + size] = before[begin : begin + size]
    assert same(data, before)


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 200_000)), max_size=4))
def test_pieces_are_cut(drawn: list[tuple[int, int]]) -> None:
    source, targets, end = BYTES, [], 0
    for _, size in drawn:
        targets.append(end)
        end += size + 3
    target = np.zeros(end, np.uint8)
    strided.copy_pieces(
        strided.Tables(), [target.ctypes.data + t for t in targets],
        [source.ctypes.data + b for b, _ in drawn], [n for _, n in drawn], memory.side_stream(),
    )  # fmt: skip
    expected = np.zeros(end, np.uint8)
    for at, (begin, size) in zip(targets, drawn, strict=True):
        expected[at : at + size] = source[begin : begin + size]
    assert same(target, expected)


def test_the_kernel_moves_as_the_loop_does() -> None:
    array = np.arange(60, dtype=np.int32).reshape(3, 4, 5)[::-1, ::2, ::-2]
    into = np.zeros(array.size, np.int32)
    unit, rows = strided._rows(view_of(on_device(array)), into.ctypes.data, 0, array.size)
    table = rows.reshape(-1).view(np.uint64)
    expected = array.reshape(-1).copy()
    strided.MOVE.kernel[2, 32, 0](memory.words(unit), table, 0, len(rows), False)
    assert same(into, expected)
    array[...] = 0
    strided.MOVE.kernel[2, 32, 0](memory.words(unit), table, 0, len(rows), True)
    assert same(array.reshape(-1), expected)


def test_a_table_is_put_again_when_it_changed() -> None:
    tables, stream = strided.Tables(), memory.side_stream()
    for numbers in ([1, 2, 3], [1, 2, 3], [1, 2, 4], [5] * 100, [1, 2]):
        table = np.array(numbers, np.uint64)
        assert same(tables.put(table, stream).copy_to_host(), table)
