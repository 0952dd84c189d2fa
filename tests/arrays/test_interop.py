"""Arrays of other libraries, on the host: captured and restored in place.

Each is tested where it is installed, as by `nox -s interop`; `test_gpu.py` tests them on a device.
"""

import asyncio
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest

from checkpointable import Array, InvalidCheckpoint, InvalidKernel, capture, reinstate
from tests.helpers.equality import same

FIELD = np.arange(12, dtype=np.float32).reshape(3, 4)


@attrs.frozen
class State:
    field: Array[np.float32]


def captured(array: Any) -> tuple[Any, State]:
    kernel = SimpleNamespace(field=array)
    return kernel, asyncio.run(capture(State, kernel))


def test_a_tensor_of_torch_is_written_in_place() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(24, dtype=torch.float32).reshape(3, 8)[:, ::2]
    kernel, state = captured(tensor)
    assert same(state.field, np.arange(24, dtype=np.float32).reshape(3, 8)[:, ::2].copy())
    tensor.zero_()
    assert np.asarray(state.field).any()
    asyncio.run(reinstate(state, kernel))
    assert kernel.field is tensor
    assert same(tensor.numpy().copy(), state.field)


def test_a_tensor_with_a_gradient_is_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(InvalidKernel, match=r"torch\.Tensor cannot be read: .*detach"):
        captured(torch.ones(3, requires_grad=True))


def test_an_array_of_jax_is_replaced_where_it_was() -> None:
    jax = pytest.importorskip("jax")
    kernel, state = captured(jax.numpy.asarray(FIELD))
    assert same(state.field, FIELD)
    place = kernel.field.sharding
    kernel.field = kernel.field * 0
    asyncio.run(reinstate(state, kernel))
    assert isinstance(kernel.field, jax.Array)
    assert kernel.field.sharding == place
    assert same(np.array(kernel.field), FIELD)


def test_an_array_of_jax_that_does_not_fit_is_refused() -> None:
    jax = pytest.importorskip("jax")
    kernel, state = captured(jax.numpy.asarray(FIELD))
    kernel.field = before = kernel.field[1:]
    with pytest.raises(InvalidCheckpoint, match="the kernel has float32 of shape"):
        asyncio.run(reinstate(state, kernel))
    assert kernel.field is before


def test_a_dtype_that_dlpack_does_not_know() -> None:
    jax = pytest.importorskip("jax")

    @attrs.frozen
    class Half:
        field: Array[Any]

    kernel = SimpleNamespace(field=jax.numpy.asarray(FIELD, jax.numpy.bfloat16))
    state = asyncio.run(capture(Half, kernel))
    assert state.field.dtype == kernel.field.dtype
    assert np.asarray(state.field).tobytes() == np.asarray(kernel.field).tobytes()
