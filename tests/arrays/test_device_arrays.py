"""capture and reinstate with arrays that live on a device."""

import asyncio
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest

from checkpointable import Array, InvalidCheckpoint, capture, reinstate
from checkpointable.arrays.interop import owned
from checkpointable.arrays.kinds import is_array, layout
from tests.helpers.equality import same


@attrs.frozen
class State:
    field: Array[np.float32]
    states: Array[np.void]
    layers: list[Array[np.int8]]


def originals() -> list[Any]:
    states = np.zeros(3, [("s0", np.uint64), ("s1", np.uint64)])
    states["s1"] = [1, 2, 3]
    return [np.arange(6, dtype=np.float32).reshape(2, 3), states, np.ones(4, np.int8)]


def check_round_trip(place: Any, fetch: Any) -> None:
    """What is captured from the device comes back into the same device memory."""
    field, states, layer = originals()
    kernel = SimpleNamespace(field=place(field), states=place(states), layers=[place(layer)])
    checkpoint = asyncio.run(capture(State, kernel))
    assert same(checkpoint, State(field, states, [layer]))

    fresh = SimpleNamespace(
        field=place(field * 0), states=place(states[::-1].copy()), layers=[place(layer * 7)]
    )
    before = fresh.field, fresh.states, fresh.layers[0]
    asyncio.run(reinstate(checkpoint, fresh))
    after = fresh.field, fresh.states, fresh.layers[0]
    assert all(a is b for a, b in zip(before, after, strict=True))
    assert all(same(fetch(a), b) for a, b in zip(after, originals(), strict=True))

    misfit = SimpleNamespace(
        field=place(field * 0), states=place(states), layers=[place(np.ones(5, np.int8))]
    )
    with pytest.raises(InvalidCheckpoint, match=r"layers\[0\]"):
        asyncio.run(reinstate(checkpoint, misfit))
    assert same(fetch(misfit.field), field * 0)


def numba_arrays() -> None:
    """Run in a process of its own: Numba reads NUMBA_ENABLE_CUDASIM once, at import."""
    from numba import cuda

    check_round_trip(cuda.to_device, lambda array: array.copy_to_host())


def test_numba_device_arrays_in_the_simulator() -> None:
    code = "from tests.arrays.test_device_arrays import numba_arrays; numba_arrays()"
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, check=True)


@pytest.fixture
def gpu() -> Any:
    from numba import cuda

    if not cuda.is_available():
        pytest.skip("needs a real CUDA device")
    return cuda


@pytest.mark.gpu
def test_numba_device_arrays(gpu: Any) -> None:
    check_round_trip(gpu.to_device, lambda array: array.copy_to_host())


class Foreign:
    """An array like those of CuPy, torch and others: not of Numba, but with the CUDA interface."""

    def __init__(self, array: Any) -> None:
        self.array = array

    @property
    def __cuda_array_interface__(self) -> Any:
        interface = self.array.__cuda_array_interface__
        return interface | {"descr": self.array.dtype.descr}  # which Numba leaves out


@pytest.mark.gpu
def test_arrays_with_the_cuda_array_interface(gpu: Any) -> None:
    check_round_trip(
        lambda array: Foreign(gpu.to_device(array)), lambda foreign: foreign.array.copy_to_host()
    )


@pytest.mark.parametrize("dtype", ["<f4", "|i1", ">c16", [("a", "<i4"), ("b", "<f8")]])
def test_the_layout_of_a_cuda_array_is_read_without_cuda(dtype: Any) -> None:
    described = np.zeros((2, 3), dtype)
    foreign = SimpleNamespace(
        __cuda_array_interface__={
            "shape": described.shape,
            "typestr": described.dtype.str,
            "descr": described.dtype.descr,
            "data": (0, False),
            "version": 3,
        }
    )
    assert is_array(foreign)
    assert layout(foreign) == (described.dtype, (2, 3))


def test_the_layout_of_a_numba_array_is_read_without_its_stream() -> None:
    class Bound(SimpleNamespace):
        copy_to_host = copy_to_device = is_c_contiguous = None

        @property
        def __cuda_array_interface__(self) -> Any:
            return int(self.stream)  # numba-cuda fails so, for a stream of cuda.core

    bound = Bound(
        dtype=np.dtype("<f4"),
        shape=(2, 3),
        stream=None,
    )
    assert is_array(bound)
    assert layout(bound) == (np.dtype("<f4"), (2, 3))


@pytest.mark.parametrize("value", [3, "text", [1.0], np.float32(1), np.ma.zeros(2), np.ndarray])
def test_other_values_are_not_arrays(value: Any) -> None:
    assert not is_array(value)


def test_an_owned_copy_is_contiguous_and_shares_nothing() -> None:
    array = np.arange(12).reshape(3, 4)[:, ::-2]
    copy = owned(array)
    assert same(copy, array)
    assert copy.flags.c_contiguous
    assert not np.shares_memory(copy, array)


def maker(module: str, **members: Any) -> Any:
    """An object whose class is of another module."""
    return type("Stream", (), {"__module__": module, **members})()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (maker("cuda.core", __cuda_stream__=lambda self: (0, 7)), True),
        (maker("torch.cuda.streams", cuda_stream=7), True),
        (maker("cupy.cuda.stream", ptr=7), True),
        (maker("numba.cuda.cudadrv.driver", handle=7), True),
        (maker("ticker", handle=7, ptr=7, cuda_stream=7), False),
        (sys.stdin, False),
        (iter([1]), False),
        (7, False),
        (None, False),
    ],
)
def test_only_cuda_streams_are_streams(value: Any, expected: bool) -> None:
    """The attribute `stream` of a kernel may be its data."""
    from checkpointable.arrays.cuda.memory import is_stream

    assert is_stream(value) == expected
