"""What the golden files hold: the classes, old versions among them, and the values."""

import datetime
import enum
import struct
from collections import deque
from decimal import Decimal
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Literal, NamedTuple
from uuid import UUID

import attrs
import ml_dtypes
import numpy as np

from checkpointable import Array, checkpoint, migrate
from checkpointable.kernels.ising import IsingCheckpoint, IsingSetup
from checkpointable.kernels.nbody import NBodyCheckpoint, NBodySetup
from checkpointable.kernels.pagerank import PageRankCheckpoint, PageRankSetup
from checkpointable.kernels.pagerank.graph import GraphIdentity
from checkpointable.kernels.sketch import SketchCheckpoint, SketchSetup
from checkpointable.kernels.wave import WaveCheckpoint, WaveSetup


class Color(enum.Enum):
    RED = "red"
    GREEN = (1, 2)


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: float


@attrs.frozen
class Node:
    value: int
    next: "Node | Point | None"


ZONE = datetime.timezone(datetime.timedelta(hours=5, minutes=45), "NPT")


def state(s0: int, s1: int, n: int) -> Any:
    """A structured array, the padding of which is zero."""
    dtype = np.dtype([("s0", np.uint64), ("s1", np.uint64), ("n", np.int8)], align=True)
    made = np.zeros(1, dtype)
    made["s0"], made["s1"], made["n"] = s0, s1, n
    return made


@checkpoint("everything")
@attrs.frozen
class Everything:
    """A field of each kind that a checkpoint can hold."""

    truth: bool
    numbers: list[int]
    floats: tuple[float, ...]
    complex_number: complex
    texts: list[str]
    data: bytes
    nothing: None
    color: Color
    access: Access
    moment: datetime.datetime
    day: datetime.date
    hour: datetime.time
    span: datetime.timedelta
    uuid: UUID
    decimal: Decimal
    posix: PurePosixPath
    windows: PureWindowsPath
    literal: Literal["a", 1, True]
    scalars: tuple[np.float32, np.int64, np.datetime64, np.str_, np.bytes_, np.void]
    pair: tuple[int, str]
    some: set[int]
    frozen: frozenset[str]
    recent: deque[int]
    by_name: dict[str, int]
    by_pair: dict[tuple[int, int], str]
    chain: Node
    either: list[int] | list[str] | int | Point
    floats32: Array[np.float32]
    any_arrays: list[Array[Any]]


EVERYTHING = Everything(
    truth=True,
    numbers=[0, -1, 2**63, 2**64, -(2**200)],
    floats=(0.1, -0.0, float("inf"), struct.unpack(">d", bytes.fromhex("fff8000000001234"))[0]),
    complex_number=complex(1.5, float("-inf")),
    texts=["", "ä\0\U0001f30d", "\ud800"],
    data=b"\0\xff",
    nothing=None,
    color=Color.GREEN,
    access=Access.READ | Access.WRITE,
    moment=datetime.datetime(2026, 10, 25, 2, 30, 0, 1, ZONE, fold=1),
    day=datetime.date(2026, 11, 23),
    hour=datetime.time(23, 59, 59, 999999),
    span=datetime.timedelta(-1, 5, 7),
    uuid=UUID(int=2**127 + 5),
    decimal=Decimal("-1.50E+7"),
    posix=PurePosixPath("/a/b.txt"),
    windows=PureWindowsPath("c:\\a"),
    literal=True,
    scalars=(
        np.float32(0.1), np.int64(-5), np.datetime64("2026-11-23T12", "h"), np.str_("a\0"),
        np.bytes_(b"b\0"), state(1, 2, 3)[0],
    ),
    pair=(1, "one"),
    some={1, 2, 3},
    frozen=frozenset({"x"}),
    recent=deque([1, 2], maxlen=5),
    by_name={"a": 1, "b.c": 2, "$d": 3},
    by_pair={(1, 2): "x"},
    chain=Node(1, Node(2, Point(3, 0.5))),
    either=["text"],
    floats32=np.arange(6, dtype=np.float32).reshape(2, 3),
    any_arrays=[
        np.array(3 + 4j), np.zeros((0, 3), ">i2"), np.array(["2026-11-23", "NaT"], "M8[D]"),
        state(1, 2, 3), np.array([1.5, -2], ml_dtypes.bfloat16),
        np.array(["a", "bc"]), np.asfortranarray(np.eye(2, 3)), np.array([True, False]),
    ],
)  # fmt: skip


@checkpoint("walk", version=1)
@attrs.frozen
class Walk1:
    steps: int
    xyz: Array[np.float64]
    note: str


@checkpoint("walk", version=2)
@attrs.frozen
class Walk2:
    step: int
    xyz: Array[np.float64]
    note: str


@checkpoint("walk", version=3, added={"color": 3}, removed={"note": 3})
@attrs.frozen
class Walk:
    step: int
    position: Array[np.float32]
    color: Color = Color.RED


@migrate("walk", 1)
def steps_are_one_step(tree: dict[str, Any]) -> dict[str, Any]:
    tree["step"] = tree.pop("steps")
    return tree


@migrate("walk", 2)
def positions_are_rows_of_single_precision(tree: dict[str, Any]) -> dict[str, Any]:
    tree["position"] = tree.pop("xyz").reshape(-1, 3).astype(np.float32)
    return tree


WALK = Walk(7, np.arange(6, dtype=np.float32).reshape(2, 3))

WAVE = WaveCheckpoint(
    step=3,
    setup=WaveSetup("prem", 4, 500.0, 10.0, 0.0, 60.0, 2, 1.0, 0.5),
    pressure=np.arange(16, dtype=np.float32).reshape(4, 4),
    pressure_before=-np.ones((4, 4), np.float32),
    seismograms=np.zeros((2, 4), np.float32),
)

ISING = IsingCheckpoint(
    step=2,
    setup=IsingSetup(2, 2.25, 1, 0),
    spins=np.array([[1, -1], [-1, 1]], np.int8),
    states=np.array([[(1, 2)], [(3, 2**64 - 1)]], [("s0", "<u8"), ("s1", "<u8")]),
    energy=np.array([[-4], [8]]),
    energy_sum=np.array([[0], [2**40]]),
)

SKETCH = SketchCheckpoint(
    step=1,
    offset=25,
    setup=SketchSetup("<f8", 25, 200, "00" * 32),
    histogram=np.arange(8),
    registers=np.arange(8, dtype=np.uint32),
    limbs=np.arange(70),
    extremes=np.array([1, 2**64 - 1], np.uint64),
    specials=np.array([1, 0, 2]),
)

NBODY = NBodyCheckpoint(
    step=4,
    setup=NBodySetup(2, 1, 0.05, 0.0078125),
    positions=np.array([[0.5, 0.0, -0.0], [-0.5, 5e-324, 1e300]]),
    velocities=np.arange(6.0).reshape(2, 3),
    energy_at_start=-0.1,
)

PAGERANK = PageRankCheckpoint(
    step=1,
    setup=PageRankSetup(GraphIdentity(3, 4, "0f" * 16), 0.85),
    ranks=np.array([0.25, 0.25, 0.5]),
    residual=np.array([np.inf]),
)

WRITTEN: dict[str, Any] = {
    "everything-1": EVERYTHING,
    "walk-1": Walk1(7, np.arange(6.0), "first"),
    "walk-2": Walk2(7, np.arange(6.0), "second"),
    "walk-3": WALK,
    "wave-1": WAVE,
    "ising-1": ISING,
    "sketch-1": SKETCH,
    "nbody-1": NBODY,
    "pagerank-1": PAGERANK,
}
"""What was written under each schema and version: `tests/golden/<format>/<key>.safetensors`."""

TODAY: dict[str, Any] = {
    "everything": EVERYTHING,
    "walk": WALK,
    "wave": WAVE,
    "ising": ISING,
    "sketch": SKETCH,
    "nbody": NBODY,
    "pagerank": PAGERANK,
}
"""As what it is loaded today."""
