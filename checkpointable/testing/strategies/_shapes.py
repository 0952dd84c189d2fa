"""Shapes of arrays that belong together."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from attrs import frozen
from hypothesis import strategies as st

Shape = tuple[int, ...]


@frozen
class Shapes:
    """How the shapes of one checkpoint's arrays are related, as long as nothing else is asked."""

    rank: int
    sides: tuple[int, int, int, int]
    relation: str  # "equal", "staggered" (n or n + 1), or "free"

    def draw(self, draw: st.DrawFn, rank: int | None) -> Shape:
        """A shape of this rank; of any if None."""
        if self.relation == "free":
            rank = draw(st.integers(0, 4)) if rank is None else rank
            return tuple(draw(st.integers(0, 4)) for _ in range(rank))
        sides = (self.sides * 8)[: self.rank if rank is None else rank]
        if self.relation == "staggered":
            return tuple(n + draw(st.integers(0, 1)) for n in sides)
        return sides


all_shapes = st.builds(
    Shapes,
    rank=st.integers(0, 3),
    sides=st.tuples(*[st.integers(0, 4)] * 4),
    relation=st.sampled_from(["equal", "equal", "staggered", "free"]),
)


def likely_shapes(others: dict[str, Any], rank: int | None, sides: tuple[int, ...]) -> list[Shape]:
    """Shapes of this rank that a class may want for an array, by what its other fields hold.

    Those of the other arrays, an axis more or less, one more or less along the axes; and what an
    int n, or one of `sides`, can mean: (n,), (n, n), (n, n, n).
    """
    found: dict[Shape, None] = {}
    for value in others.values():
        if isinstance(value, np.ndarray):
            found.update(dict.fromkeys(_variants(value.shape)))
    counts = [v for v in others.values() if type(v) is int and 0 <= v <= 64]
    for count in dict.fromkeys([*counts, *sides]):
        found.update(dict.fromkeys([(count,), (count, count), (count,) * 3]))
    found[()] = None
    return [
        shape
        for shape in found
        if min(shape, default=0) >= 0 and len(shape) == (len(shape) if rank is None else rank)
    ]


def _variants(shape: Shape) -> Iterator[Shape]:
    yield shape
    for step in (1, -1):
        yield tuple(n + step for n in shape)
        for axis in range(len(shape)):
            yield tuple(n + step * (i == axis) for i, n in enumerate(shape))
    yield shape[::-1]
    for axis in range(len(shape)):
        yield shape[:axis] + shape[axis + 1 :]
        yield (shape[axis],)
    for side in (1, 2, 3):
        yield (*shape, side)
        yield (side, *shape)
