"""What the values of one checkpoint share, and what its class refused."""

import typing
from functools import lru_cache
from typing import Any

import attrs
from attrs import define, frozen
from hypothesis import reject
from hypothesis.errors import Unsatisfiable

from checkpointable.annotations import fields_of, is_record, is_union, members_of, plain, type_name
from checkpointable.errors import CheckpointableError
from checkpointable.testing._arrays import Shapes


@define
class Tally:
    """How often a strategy made a checkpoint, how often it gave up, and what refused its draws."""

    cls: Any
    made: int = 0
    given_up: int = 0
    refusals: dict[str, int] = attrs.field(factory=dict)
    reasons: dict[str, str] = attrs.field(factory=dict)
    verdict: str = ""

    def refused(self, where: str, why: str) -> None:
        """Note that a draw was refused, at which class or field and why."""
        self.refusals[where] = self.refusals.get(where, 0) + 1
        self.reasons[where] = why

    def give_up(self) -> typing.NoReturn:
        """Reject the example; an error if this happens nearly always, from then on every time."""
        self.given_up += 1
        if self.given_up >= 30 and self.made * 10 < self.given_up:
            self.verdict = self._verdict()
        self.check()
        reject()

    def check(self) -> None:
        """Raise what was found out before: an example must not fail only sometimes."""
        if self.verdict:
            raise Unsatisfiable(self.verdict)

    def _verdict(self) -> str:
        name = type_name(self.cls)
        where = max(self.refusals, key=self.refusals.__getitem__)
        owner, _, field = where.rpartition(".")
        hint = f"checkpoints({owner or where}, {field or 'field'}=...)"
        if (owner or where) != name:
            hint = f"checkpoints({name}, field={hint})"
        error = CheckpointableError(
            f"{name} refuses nearly everything that is drawn for it: {self.reasons[where]}",
            where=where,
            hint=f"pass a strategy for what is refused: {hint}",
        )
        return str(error)


@frozen
class Plan:
    """What all values of one checkpoint share: lengths of arrays, and how deep it may nest."""

    tally: Tally
    shapes: Shapes = Shapes()
    depth: int = 3

    def deeper(self) -> "Plan":
        """The plan of a record within."""
        return attrs.evolve(self, depth=self.depth - 1)

    def relaxed(self) -> "Plan":
        """The plan with arrays of any shape."""
        return attrs.evolve(self, shapes=attrs.evolve(self.shapes, alike=False))

    def choices(self, union: Any) -> tuple[Any, ...]:
        """The members to draw; where it nests deep, only those that come to an end soonest."""
        every = members_of(union)
        if self.depth > 0:
            return every
        least = min(map(height, every))
        return tuple(m for m in every if height(m) == least)


@lru_cache(maxsize=1000)
def height(tp: Any) -> float:
    """How many records the shallowest value nests; infinite if every one contains another.

    >>> height(int), height(list[int])
    (0, 0)
    """
    return _height(tp, ())


def _height(tp: Any, above: tuple[Any, ...]) -> float:
    tp = plain(tp)
    if is_record(tp):
        if tp in above:
            return float("inf")
        return 1 + max((_height(f.type, (*above, tp)) for f in fields_of(tp)), default=0)
    if is_union(tp):
        return min(_height(m, above) for m in members_of(tp))
    args = typing.get_args(tp)
    if typing.get_origin(tp) is tuple and args and args[-1] is not Ellipsis:
        return max(_height(arg, above) for arg in args)
    return 0
