"""What the tests of the commands share: kernels, checkpoints, and the command itself."""

import subprocess
import sys
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import ml_dtypes
import numpy as np
import orjson
import pytest
from attrs import frozen

from checkpointable import Array, LocalStore, archive
from checkpointable.cli import main
from checkpointable.format import layout

KERNELS = '''
import signal
from enum import Enum
from pathlib import Path
from typing import Literal

import numpy as np
from attrs import frozen

from checkpointable import Array, KernelMetadata, capture, checkpoint, reinstate


class Pace(Enum):
    QUICK = "quick"
    CALM = "calm"


@frozen
class TinyCheckpoint:
    step: int
    field: Array[np.float64]


class Tiny:
    """Counts upward.

    `size`, `pace`
        how many numbers it has,
        and how it moves.
    """

    total_steps = 20
    metadata = KernelMetadata("tiny", version="3")

    def __init__(
        self,
        *,
        size: int = 4,
        start: float = 0.0,
        model: Literal["up", "down"] = "up",
        pace: Pace = Pace.QUICK,
        log: Path | None = None,
        loud: bool = False,
        hook: object = None,
        device: Literal["auto", "cpu"] = "auto",
    ) -> None:
        self.step = 0
        self.field = np.full(size, start)
        self.given = {"model": model, "pace": pace, "log": log, "loud": loud, "device": device}

    def advance(self, steps: int) -> None:
        self.step += steps
        self.field += steps

    async def checkpoint(self) -> TinyCheckpoint:
        return await capture(TinyCheckpoint, self)

    async def restore(self, checkpoint: TinyCheckpoint) -> None:
        await reinstate(checkpoint, self)

    def summary(self) -> dict[str, object]:
        return {"sum": float(self.field.sum()), **self.given}

    def shutdown(self) -> None:
        print("shut down")


class Endless(Tiny):
    total_steps = None


class Nothing:
    total_steps = 1


class Stringy(Tiny):
    async def checkpoint(self) -> str: ...


@checkpoint("other")
@frozen
class OtherCheckpoint(TinyCheckpoint): ...


class Other(Tiny):
    async def checkpoint(self) -> OtherCheckpoint:
        return await capture(OtherCheckpoint, self)


class Breaks(Tiny):
    def advance(self, steps: int) -> None:
        raise ZeroDivisionError("by the kernel")


def unresolved(size: "Unknown" = 1) -> Tiny: ...


class Interrupted(Tiny):
    def advance(self, steps: int) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def needs_device(device: str) -> Tiny: ...


def array_needed(field: np.ndarray) -> Tiny: ...


def unlucky() -> Tiny:
    raise LookupError("no luck")


def with_size(size: int) -> Tiny:
    return Tiny(size=size)
'''


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.out.splitlines()]


class Cli:
    """Run the command within this process; quicker, and what it prints is the same."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: str | Path | int) -> Result:
        self.capsys.readouterr()
        code = main([*map(str, words)])
        out, err = self.capsys.readouterr()
        return Result(code, out, err)


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "checkpointable", *map(str, words)]


def process(*words: str | Path, cwd: Path) -> Result:
    done = subprocess.run(command(*words), cwd=cwd, capture_output=True, text=True, timeout=60)
    return Result(done.returncode, done.stdout, done.stderr)


def damage(path: Path, offset: int = 4100) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def file_of(step: int, store: str = "runs/tinykernels.Tiny") -> Path:
    return Path(store) / archive.name_of(step)


class Color(Enum):
    RED = 1


@frozen
class Part:
    a: int
    inner: Array[np.int16]


@frozen
class Sample:
    step: int
    low: float
    label: str
    when: datetime
    pair: tuple[int, Part | None]
    color: Color
    table: dict[tuple[int, str], list[float]]
    big: int
    many: list[int]
    floats: Array[np.float64]
    extreme: Array[np.int64]
    unsigned: Array[np.uint64]
    flags: Array[np.bool]
    waves: Array[np.complex128]
    times: Array[np.datetime64]
    states: Array[np.void]
    empty: Array[np.float32]
    small: Array[Any]
    infinite: Array[np.float32]
    swapped: Array[np.float32]
    words: Array[np.str_]


FLOATS = np.random.default_rng(7).normal(size=(300, 1000))  # three blocks
FLOATS[0, :3] = np.nan
FLOATS[299, 998:] = 1.7e308  # their sum is beyond float64


SAMPLE = Sample(
    step=7,
    low=float("-inf"),
    label="\x1b[2Jclear",
    when=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    pair=(1, Part(5, np.array([-3, 9], np.int16))),
    color=Color.RED,
    table={(1, "x"): [0.5, float("nan")]},
    big=2**100,
    many=list(range(1000)),
    floats=FLOATS,
    extreme=np.array([2**63 - 1, 2**63 - 1, 2**63 - 4]),
    unsigned=np.array([2**64 - 1, 1], np.uint64),
    flags=np.array([True, False, False, False]),
    waves=np.array([1 + 2j, complex("nan")]),
    times=np.array(["2026-01-01", "NaT", "2025-01-01"], "M8[D]"),
    states=np.zeros(3, [("s", "u8"), ("t", "f4")]),
    empty=np.zeros((0, 3), np.float32),
    small=np.array([0.5, 1.5, np.nan], ml_dtypes.bfloat16),
    infinite=np.array([np.inf, -np.inf], np.float32),
    swapped=np.array([1, 2, 6], ">f4"),
    words=np.array(["ab", "c"]),
)


# name: dtype, shape, min, max, mean, count of NaN
FIGURES: dict[str, list[Any]] = {
    "floats": ["float64", [300, 1000], np.nanmin(FLOATS), 1.7e308, 1.7e308 / (300_000 - 3) * 2, 3],
    "extreme": ["int64", [3], 2**63 - 4, 2**63 - 1, float(2**63 - 2), 0],
    "unsigned": ["uint64", [2], 1, 2**64 - 1, float(2**63), 0],
    "flags": ["bool", [4], False, True, 0.25, 0],
    "waves": ["complex128", [2], None, None, None, 1],
    "times": ["datetime64[D]", [3], "2025-01-01", "2026-01-01", None, 1],
    "states": ["[('s', '<u8'), ('t', '<f4')]", [3], None, None, None, None],
    "empty": ["float32", [0, 3], None, None, None, 0],
    "small": ["bfloat16", [3], 0.5, 1.5, 1.0, 1],
    "infinite": ["float32", [2], "-inf", "inf", "nan", 0],
    "swapped": [">f4", [3], 1.0, 6.0, 3.0, 0],
    "words": ["<U2", [2], None, None, None, None],
    "pair[1].inner": ["int16", [2], -3, 9, 3.0, 0],
}


BLOCK = layout.BLOCK


@attrs.frozen
class Shot:
    step: int
    energy: float
    label: str
    field: Array[Any]


def shot(step: int, field: Any = None, energy: float = 0.0, label: str = "x") -> Shot:
    return Shot(step, energy, label, np.zeros(4) if field is None else field)


def save(step: int, *args: Any, base: str | None = None, where: str = "run", **more: Any) -> str:
    return archive.save(LocalStore(where), shot(step, *args, **more), step, base=base).name


WALKS = '''
import numpy as np
from attrs import frozen
from checkpointable import Array, capture, reinstate

@frozen
class WalkCheckpoint:
    step: int
    place: Array[np.float64]
    speed: Array[np.float64]

class Walk:
    """Walks.

    `gain`
        how fast it gets faster
    """
    def __init__(self, *, gain: float = 0.5, size: int = 3) -> None:
        self.step, self.gain = 0, gain
        self.place, self.speed = np.zeros(size), np.ones(size)
    def advance(self, steps: int) -> None:
        for _ in range(steps):
            self.place += self.speed
            self.speed[-1] += self.gain
            self.step += 1
    async def checkpoint(self) -> WalkCheckpoint:
        return await capture(WalkCheckpoint, self)
    async def restore(self, checkpoint: WalkCheckpoint) -> None:
        await reinstate(checkpoint, self)
'''
