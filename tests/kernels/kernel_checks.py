"""What the tests of all kernels share."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import attrs
import numpy as np

from checkpointable import Checkpointable, Shard, SteppableKernel

C = TypeVar("C")


def snapshot(kernel: Checkpointable[C]) -> C:
    return asyncio.run(kernel.checkpoint())


def restore(kernel: Checkpointable[C], checkpoint: C) -> None:
    asyncio.run(kernel.restore(checkpoint))


def assert_same(one: Any, other: Any) -> None:
    """Assert that two checkpoints are equal, bit for bit."""
    assert type(one) is type(other)
    for field in attrs.fields(type(one)):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, Shard):
            assert_same(a, b)
        elif isinstance(a, np.ndarray):
            assert (a.dtype, a.shape) == (b.dtype, b.shape), field.name
            assert a.tobytes() == b.tobytes(), field.name
        else:
            assert a == b, field.name


def run_in_pieces(make: Callable[[], Any], until: int, stops: Iterable[int]) -> Any:
    """Run to `until`; at each stop, restore into a fresh kernel. Return the last kernel."""
    kernel: SteppableKernel[Any] = make()
    for stop in [*sorted(stops), until]:
        kernel.advance(stop - kernel.step)
        fresh = make()
        restore(fresh, snapshot(kernel))
        kernel = fresh
    return kernel
