"""Checkpoint classes that between them have every kind of field, and one valid file of each."""

import datetime
from collections import deque
from contextlib import suppress
from decimal import Decimal
from enum import Enum, Flag
from pathlib import PurePosixPath
from typing import Any, Literal, cast
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import attrs
import numpy as np
from attrs import frozen

from checkpointable import Array, checkpoint, migrate
from checkpointable.archive import codec
from checkpointable.format import container
from checkpointable.tree.hooks import hooks
from checkpointable.tree.tree import to_tree


class Color(Enum):
    RED = 1
    BLUE = 2


class Mode(Flag):
    FAST = 1
    SAFE = 2


@frozen
class Circle:
    radius: float


@frozen
class Square:
    side: int
    corner: tuple[int, float]


@frozen
class Scalars:
    flag: bool
    count: int
    ratio: float
    name: str
    raw: bytes
    big: int
    odd: float
    maybe: int | None
    shape: Circle | Square
    color: Color
    mode: Mode
    at: datetime.datetime
    day: datetime.date
    span: datetime.timedelta
    z: complex
    price: Decimal
    id: UUID
    where: PurePosixPath
    one: np.float32
    kind: Literal["a", 2]


@frozen
class Bag:
    items: list[int]
    table: dict[str, float]
    pairs: dict[int, str]
    tags: set[str]
    recent: deque[int]
    either: list[int] | dict[str, int] | list[str]
    shapes: list[Circle | Square | None]
    rest: tuple[bool, ...]
    nested: "Bag | None"
    field: Array[np.float64] | None


@frozen
class Grid:
    step: int
    field: Array[np.float64]
    none: Array[np.float32]
    point: np.ndarray[tuple[()], np.dtype[np.complex128]]
    records: Array[np.void]
    anything: list[Array[np.generic]]


@checkpoint("trail", version=3, added={"speed": 2}, removed={"log": 3})
@frozen
class Walk:
    step: int
    at: Array[np.float64]
    speed: float = 1.0


@migrate("trail", 2)
def _wider(tree: dict[str, Any]) -> dict[str, Any]:
    tree["at"] = tree["at"].astype(np.float64)
    return tree


CLASSES: dict[str, type[Any]] = {"Scalars": Scalars, "Bag": Bag, "Grid": Grid, "trail": Walk}
"""The classes by the names of their schemas."""

_RECORD = np.dtype([("a", "<i4"), ("b", "<f8", (2,))], align=True)

SCALARS = Scalars(
    True, 3, 0.5, "naïve", b"\0\xff", 2**70, float("-inf"), None, Square(2, (1, 0.5)),
    Color.RED, Mode.FAST | Mode.SAFE, datetime.datetime(2026, 1, 2, 3, 4, tzinfo=ZoneInfo("UTC")),
    datetime.date(2026, 1, 2), datetime.timedelta(1, 2, 3), 1 - 2j, Decimal("1.50"),
    UUID(int=7), PurePosixPath("a/b"), np.float32(0.1), 2,
)  # fmt: skip

_INNER = Bag([], {}, {}, set(), deque(), {}, [], (), None, None)
BAG = Bag(
    [1, -2], {"x": 1.0, "y": 2}, {1: "a", 2**65: "b"}, {"one"}, deque([1, 2], 3), ["a"],
    [Circle(1.0), None, Square(1, (2, 3.0))], (True, False), _INNER, np.arange(3.0),
)  # fmt: skip

GRID = Grid(
    1, np.arange(6.0).reshape(2, 3), np.zeros((0, 4), np.float32), np.array(1j),
    np.zeros(2, _RECORD), [np.array([True, False]), np.array(["2026"], "M8[s]")],
)  # fmt: skip


def files() -> list[bytes]:
    """A valid file of each class, and of versions 1 and 2 of `Walk`."""
    walk = Walk(5, np.ones(4), 2.0)
    same: dict[str, Any] = {
        "created": "2026-01-02T03:04:05.000+00:00",
        "nonce": "0" * 32,
        "writer": {},
    }
    packs = []
    for value in (SCALARS, BAG, GRID, walk):
        meta = attrs.evolve(codec.encode(value, step=7).header.meta, **same)
        packs.append(container.pack(meta, to_tree(value, type(value))[1]))
    made = [b"".join(packed.chunks()) for packed in packs]
    old = {"step": 4, "at": {"$array": "at"}, "log": [1, "$x", None]}
    for version, tree in ((1, old), (2, old | {"speed": 1.5})):
        meta = packs[-1].header.meta
        schema = meta.schema | {"version": version, "fingerprint": "0" * 16}
        older = container.pack(
            attrs.evolve(meta, schema=schema, tree=tree), {"at": np.ones(4, "<f4")}
        )
        made.append(b"".join(older.chunks()))
    return made


def warm() -> None:
    """Have all hooks of the classes made, so that what is compiled or imported later is told."""
    for cls in CLASSES.values():
        hooks(cast(Any, cls))
    with suppress(ZoneInfoNotFoundError):
        ZoneInfo("Europe/nowhere")
