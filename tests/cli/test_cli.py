"""The command line, through its real entry point, on a kernel that needs NumPy only."""

import os
import pty
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import orjson
import pytest
from attrs import frozen

from checkpointable import Array, KernelMetadata, LocalStore, archive, load_file
from checkpointable.cli import main
from checkpointable.cli.run._policies import read_when
from checkpointable.format import layout
from checkpointable.format.reader import read_header
from checkpointable.runner import when as policy
from checkpointable.stores.local.file import open_reader

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


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tinykernels.py").write_text(KERNELS)
    (tmp_path / "broken_module.py").write_text("import does_not_exist_at_all")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "tinykernels", raising=False)
    return tmp_path


class Cli:
    """Run the command within this process; quicker, and what it prints is the same."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: str | Path) -> Result:
        self.capsys.readouterr()
        code = main([*map(str, words)])
        out, err = self.capsys.readouterr()
        return Result(code, out, err)


@pytest.fixture
def cli(here: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


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


# --- run -----------------------------------------------------------------------------------------


def test_run_to_the_end_and_resume(here: Path) -> None:
    first = process("run", "tinykernels:Tiny", "--every", "10", cwd=here)
    assert (first.code, first.err) == (0, "")
    lines = first.out.splitlines()
    assert lines[0] == (
        "tinykernels:Tiny: starts at step 0, runs to step 20, saved in runs/tinykernels.Tiny"
    )
    assert [line[:14] for line in lines[1:3]] == ["saved step 10:", "saved step 20:"]
    assert lines[3].startswith("done: step 20 (20 steps in ")
    assert "  sum: 80.0" in lines
    assert lines[-1] == "shut down"

    again = process("run", "tinykernels:Tiny", "--until", "25", cwd=here)
    assert (again.code, again.err) == (0, "")
    lines = again.out.splitlines()
    assert lines[0] == (
        "tinykernels:Tiny: resumed from step 20 (step-000000000020.safetensors), "
        "runs to step 25, saved in runs/tinykernels.Tiny"
    )
    assert lines[2].startswith("done: step 25 (5 steps in ")
    assert "  sum: 100.0" in lines


def test_run_has_nothing_to_do(cli: Cli) -> None:
    assert cli("run", "tinykernels:Tiny").code == 0
    again = cli("run", "tinykernels:Tiny", "--until", "7")
    assert again.code == 0
    assert "nothing to do: it is at step 20 already" in again.out
    assert "runs to" not in again.out


def test_run_tells_events_as_json(cli: Cli) -> None:
    first = cli("run", "tinykernels:Tiny", "--every", "10", "--store", "here", "--json")
    assert (first.code, first.err) == (0, "shut down\n")  # what the kernel prints
    *told, summary = first.events
    assert told == [
        orjson.loads(line) for line in Path("here/events.jsonl").read_bytes().splitlines()
    ]
    assert [event["event"] for event in told] == ["Started", "Saved", "Saved", "Finished"]
    started, saved, _, finished = told
    assert (started["step"], started["until"]) == (0, 20)
    assert (saved["step"], saved["name"]) == (10, archive.name_of(10))
    assert saved["bytes"] == file_of(10, "here").stat().st_size
    assert (finished["step"], finished["saves"]) == (20, 2)
    assert summary["summary"]["sum"] == 80.0
    (restored, *_) = cli("run", "tinykernels:Tiny", "--store", "here", "--json").events
    assert (restored["event"], restored["name"]) == ("Restored", archive.name_of(20))
    assert (restored["step"], restored["until"]) == (20, 20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_asks_to_be_started_again(here: Path, number: int) -> None:
    words = ("run", "tinykernels:Endless", "--store", "here", "--json")
    endless = command(*words, "--until", str(10**15), "--every", "5000")
    with subprocess.Popen(
        endless, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout is not None
        assert job.stderr is not None
        for line in job.stdout:
            if orjson.loads(line)["event"] == "Saved":
                break
        job.send_signal(number)
        out, err = job.communicate(timeout=60)
    stopped = Result(job.returncode, out, err).events[-1]
    assert (job.returncode, err, stopped["event"]) == (75, "shut down\n", "Stopped")
    assert archive.entries(LocalStore(here / "here"))[-1].name == stopped["name"]
    assert archive.entries(LocalStore(here / "here"))[-1].step == stopped["step"]

    more = process(*words, "--until", str(stopped["step"] + 3), cwd=here)
    assert more.code == 0
    assert more.events[0]["event"] == "Restored"
    assert more.events[0]["step"] == stopped["step"]
    assert more.events[-1]["summary"]["sum"] == 4 * (stopped["step"] + 3)


def test_run_passes_over_a_damaged_checkpoint_and_says_why(cli: Cli) -> None:
    assert cli("run", "tinykernels:Tiny", "--every", "10").code == 0
    damage(file_of(20))
    again = cli("run", "tinykernels:Tiny")
    assert again.code == 0
    why = "the data is damaged (array 'field', block 0 of 1)"
    assert again.err == f"warning: passed over {archive.name_of(20)}: {why}\n"
    assert f"resumed from step 10 ({archive.name_of(10)})" in again.out
    damage(file_of(10))
    Path("runs/tinykernels.Tiny/step-000000000020.1.safetensors").unlink()
    events = cli("run", "tinykernels:Tiny", "--json")
    assert events.code == 1
    assert events.events[-1]["error"] == "NoCheckpoint"
    assert events.events[-1]["exit_code"] == 1


def test_run_keeps_as_many_as_asked(cli: Cli) -> None:
    assert cli("run", "tinykernels:Tiny", "--every", "2", "--keep", "4").code == 0
    steps = [entry.step for entry in archive.entries(LocalStore("runs/tinykernels.Tiny"))]
    assert steps == [14, 16, 18, 20]


def test_run_keeps_what_a_policy_says(cli: Cli) -> None:
    words = ("--every", "2", "--keep", "last:1,nth:8", "--overhead", "1%", "--mtbf", "1h")
    assert cli("run", "tinykernels:Tiny", *words, "--grace", "30s", "--latency", "0.5s").code == 0
    steps = [entry.step for entry in archive.entries(LocalStore("runs/tinykernels.Tiny"))]
    assert steps == [2, 8, 16, 20]


@pytest.mark.parametrize(
    ("every", "share", "mtbf", "when"),
    [
        ([], None, None, policy.every(seconds=60)),
        (["30s", "100"], None, None, policy.every(steps=100, seconds=30)),
        ([], "1%", None, policy.overhead(max=0.01)),
        ([], "0.05", None, policy.overhead(max=0.05)),
        ([], None, "1d", policy.young_daly(mtbf=86400)),
        ([], "2%", "6h", policy.young_daly(mtbf=21600, max=0.02)),
        (["5m"], "1%", None, policy.every(seconds=300) | policy.overhead(max=0.01)),
    ],
)
def test_options_say_when_to_save(
    every: list[str], share: str | None, mtbf: str | None, when: policy.When
) -> None:
    assert read_when(every, share, mtbf) == when


def test_run_gives_the_kernel_its_options_by_their_types(cli: Cli) -> None:
    words = ["--size", "2", "--start", "1", "--model", "down", "--pace", "calm"]
    words += ["--log", "some/where", "--loud"]
    told = cli("run", "tinykernels:Tiny", "--device", "cpu", "--", *words)
    assert told.code == 0
    summary = ["sum: 42.0", "model: down", "pace: Pace.CALM", "log: some/where", "loud: True"]
    for line in [*summary, "device: cpu"]:
        assert f"  {line}\n" in told.out


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("nbody --until 3 -- --n 10", "relative error of the energy: "),
        ("pagerank", "rank of node 34: 0.1009191823"),
    ],
)
def test_run_has_kernels_that_need_no_file(cli: Cli, words: str, shown: str) -> None:
    told = cli("run", *words.split())
    assert (told.code, told.err) == (0, "")
    assert f"  {shown}" in told.out


def test_run_refuses_to_continue_with_another_graph(cli: Cli) -> None:
    Path("edges.txt").write_text("1 2\n2 3\n")
    assert cli("run", "pagerank", "--until", "3").code == 0
    told = cli("run", "pagerank", "--until", "5", "--", "--path", "edges.txt")
    assert told.code != 0
    assert "where: setup.graph" in told.err


def test_run_shows_the_kernels_options(cli: Cli) -> None:
    shown = cli("run", "tinykernels:Tiny", "--", "--help")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("Usage: checkpointable run tinykernels:Tiny -- [OPTIONS]")
    assert "Counts upward." in shown.out
    assert "how many numbers it has, and how it moves." in " ".join(shown.out.split())
    for option in ("--size", "--start", "--model", "--pace", "--log", "--loud"):
        assert option in shown.out
    for absent in ("--hook", "--device"):
        assert absent not in shown.out
    assert not Path("runs").exists()
    assert cli("run", "tinykernels:with_size", "--until", "1", "--", "--size", "3").code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("frobnicate", "No such command 'frobnicate'"),
        ("run", "Missing argument 'NAME'"),
        ("run wav", "no kernel is named 'wav': there are ising, nbody, pagerank, "),
        ("run nowhere_to_be:Found", "there is no module 'nowhere_to_be'"),
        ("run tinykernels:Absent", "module 'tinykernels' has no class or function 'Absent'"),
        ("run tinykernels:Endless", "give --until N: tinykernels:Endless has no int attribute"),
        ("run tinykernels:Tiny --until few", "Invalid value for '--until'"),
        ("run tinykernels:Tiny --keep 0", "Invalid value for '--keep'"),
        ("run tinykernels:Tiny --every soon", "--every: 'soon' is neither a time"),
        ("run tinykernels:Tiny --every 0s", "--every: '0s' must be above 0"),
        (
            "run tinykernels:Tiny --keep last:3,some:2",
            "'some:2' is not a number from 1, nor last:N",
        ),
        ("run tinykernels:Tiny --overhead 0%", "--overhead: '0%' is not a share of the run"),
        ("run tinykernels:Tiny --mtbf 5", "--mtbf: '5' is not a time, as 30s, 5m or 1h"),
        ("run tinykernels:Tiny --grace 0s", "--grace: '0s' must be above 0"),
        ("run tinykernels:Tiny --latency now", "--latency: 'now' is not a time"),
        ("run tinykernels:Tiny --every 5 --every 6", "--every: '6' is the second number of steps"),
        ("run tinykernels:Tiny --device abacus", "Invalid value for '--device'"),
        ("run tinykernels:with_size --device cpu -- --size 2", "has no choice of --device"),
        ("run tinykernels:needs_device", "give --device auto, cpu or cuda"),
        ("run tinykernels:with_size", "Missing option '--size'"),
        ("run tinykernels:Tiny --size 3", "the kernel's own options come after --"),
        ("run tinykernels:Tiny -- --sighs 3", "No such option: --sighs"),
        ("run tinykernels:Tiny -- --size three", "Invalid value for '--size'"),
        ("run tinykernels:Tiny -- --model over", "Invalid value for '--model'"),
        ("show tinykernels.py 3", "tinykernels.py is a file, and STEP is for directories"),
        ("ls", "Missing argument"),
    ],
)
def test_wrong_usage(cli: Cli, words: str, message: str) -> None:
    told = cli(*words.split())
    assert (told.code, told.out) == (64, "")
    assert told.err.startswith("error: ")
    assert message in told.err
    assert " --help\n" in told.err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("Nothing", "InvalidKernel", "advance is missing"),
        ("Stringy", "UnsupportedType", "str is not a class with fields"),
        ("array_needed", "InvalidKernel", "its parameter 'field' cannot be given"),
        ("unresolved", "InvalidKernel", "its signature cannot be read: name 'Unknown'"),
        ("Other", "SchemaMismatch", "the checkpoint holds TinyCheckpoint version 1"),
        ("with_size -- --size 5", "InvalidCheckpoint", "float64 of shape (4,)"),
    ],
)
def test_what_does_not_fit_is_told_with_a_hint(
    cli: Cli, name: str, error: str, message: str
) -> None:
    assert cli("run", "tinykernels:Tiny", "--store", "here").code == 0
    words = ("run", "--store", "here", *f"tinykernels:{name}".split())
    told = cli(*words)
    assert told.code == 78
    assert told.err.startswith("error: ")
    assert message in told.err
    assert "  hint: " in told.err
    assert "Traceback" not in told.err
    event = cli(*words[:1], "--json", *words[1:]).events[-1]
    assert (event["event"], event["error"], event["exit_code"]) == ("error", error, 78)
    assert message in event["what"]
    assert event["hint"]


@pytest.mark.parametrize(
    ("name", "frame", "message"),
    [
        ("tinykernels:Breaks", "in advance", "ZeroDivisionError: by the kernel"),
        ("tinykernels:unlucky", "in unlucky", "LookupError: no luck"),
        ("broken_module:Kernel", "in <module>", "No module named 'does_not_exist_at_all'"),
    ],
)
def test_an_error_of_the_kernels_own_comes_with_its_traceback(
    cli: Cli, name: str, frame: str, message: str
) -> None:
    told = cli("run", name)
    assert told.code == 1
    assert frame in told.err
    assert message in told.err
    assert f"{os.sep}cli{os.sep}" not in told.err
    event = cli("run", name, "--json").events[-1]
    assert (event["event"], event["exit_code"]) == ("error", 1)
    assert event["what"] in told.err


def test_a_second_interrupt_ends_it_at_once(cli: Cli) -> None:
    told = cli("run", "tinykernels:Interrupted")
    assert told.code == 130
    assert "interrupted; what was saved before stays" in told.err
    assert "Traceback" not in told.err
    assert archive.entries(LocalStore("runs/tinykernels.Interrupted")) == []


def test_two_runs_cannot_share_a_store(cli: Cli) -> None:
    with LocalStore("here").lock():
        told = cli("run", "tinykernels:Tiny", "--store", "here")
    assert told.code == 1
    assert f"another writer holds the store: pid {os.getpid()}" in told.err


def test_run_shows_a_bar_on_a_terminal(here: Path) -> None:
    assert process("run", "tinykernels:Tiny", "--until", "3", cwd=here).code == 0
    screen, terminal = pty.openpty()
    words = command("run", "tinykernels:Tiny", "--every", "10")
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm"}
    with subprocess.Popen(
        words, cwd=here, stdout=terminal, stderr=subprocess.PIPE, env=environment
    ) as job:
        os.close(terminal)
        seen = b""
        while part := _read(screen):
            seen += part
        assert job.stderr is not None
        assert job.stderr.read() == b""
    os.close(screen)
    assert job.returncode == 0
    text = seen.decode()
    assert "resumed from step 3" in text
    assert "20/20, " in text
    assert re.search(r"saved 20 \S+ \S+ ago, stall ", text)
    assert "saved step" not in text
    assert "done: step 20 (17 steps in " in text
    assert "\x1b[?25h" in text  # the cursor is shown again


def _read(screen: int) -> bytes:
    try:
        return os.read(screen, 65536)
    except OSError:  # the other end is closed
        return b""


# --- ls, show, verify ----------------------------------------------------------------------------


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


@pytest.fixture
def sample(here: Path) -> Path:
    kernel = KernelMetadata("\x1b[2Jclear", version="1")
    return here / archive.save(LocalStore(here), SAMPLE, 7, kernel=kernel).name


@pytest.fixture
def three(cli: Cli) -> Path:
    assert cli("run", "tinykernels:Tiny", "--every", "8", "--store", "three").code == 0
    return Path("three")


def test_show_a_file_as_text(cli: Cli, sample: Path) -> None:
    shown = cli("show", sample)
    assert (shown.code, shown.err) == (0, "")
    size = f"{sample.stat().st_size / 2**20:.1f} MiB"
    lines = shown.out.splitlines()
    assert lines[:4] == [
        str(sample),
        "  kernel   \\x1b[2Jclear, version 1",
        "  schema   Sample, version 1",
        "  step     7",
    ]
    assert lines[5] == f"  size     {size}, every byte verified"
    for line in [
        "  step: 7",
        "  low: -inf",
        "  label: '\\x1b[2Jclear'",
        "  when: datetime 2026-01-02 03:04:05+00:00",
        "  pair: tuple of 2",
        "    0: 1",
        "    1: Part",
        "      a: 5",
        "      inner: array[int16] (2,) 4 B",
        "  color: Color.RED",
        "  table: dict of 1",
        "    (1, 'x'): list of 2: 0.5, nan",
        f"  big: {2**100}",
        "  many: list of 1000: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, ...",
        "  floats: array[float64] (300,1000) 2.3 MiB",
    ]:
        assert line in lines
    table = {line.split()[0]: line.split()[1:] for line in lines[lines.index("arrays") + 1 :]}
    assert table["name"] == ["dtype", "shape", "bytes", "min", "max", "mean", "NaN"]
    assert table["small"] == ["bfloat16", "(3,)", "6", "B", "0.5", "1.5", "1", "1"]
    assert table["waves"] == ["complex128", "(2,)", "32", "B", "-", "-", "-", "1"]
    assert table["extreme"][-4:] == ["9.223e+18", "9.223e+18", "9.223e+18", "0"]
    assert table["flags"][-4:] == ["False", "True", "0.25", "0"]
    assert "\x1b" not in shown.out


def test_show_a_file_as_json(cli: Cli, sample: Path) -> None:
    (shown,) = cli("show", sample, "--json").events
    assert (shown["step"], shown["kernel"]["version"], shown["path"]) == (7, "1", str(sample))
    assert shown["size"] == sample.stat().st_size
    assert shown["schema"]["name"] == "Sample"
    assert shown["tree"]["low"] == {"$float": "-inf"}
    assert shown["tree"]["many"] == [*range(1000)]
    figures = ("dtype", "shape", "min", "max", "mean", "nan_count")
    found = {a["name"]: [a[key] for key in figures] for a in shown["arrays"]}
    assert found.keys() == FIGURES.keys()
    mean = found["floats"].pop(4)
    assert mean == pytest.approx(FIGURES["floats"][4], rel=1e-12)
    assert found == FIGURES | {"floats": FIGURES["floats"][:4] + FIGURES["floats"][5:]}


def test_show_the_newest_of_a_store_or_a_step(cli: Cli, three: Path) -> None:
    newest = cli("show", three)
    assert newest.out.startswith(f"three/{archive.name_of(20)} (newest of 3)\n")
    assert "  kernel   tiny, version 3\n" in newest.out
    older = cli("show", three, "8")
    assert older.out.startswith(f"three/{archive.name_of(8)}\n")
    damage(three / archive.name_of(20))
    sound = cli("show", three)
    assert sound.code == 0
    assert sound.out.startswith(f"three/{archive.name_of(16)} (newest that verifies of 3)\n")
    assert sound.err.startswith(f"warning: passed over {archive.name_of(20)}: the data is damaged")
    assert orjson.loads(cli("show", three, "--json").out)["step"] == 16


def test_show_what_cannot_be_shown(cli: Cli, three: Path) -> None:
    newest = three / archive.name_of(20)
    damage(newest)
    for words in ([newest], [three, "20"]):
        told = cli("show", *words)
        assert (told.code, told.out) == (1, "")
        assert "error: " in told.err
        assert "three" in told.err
    assert "array 'field', block 0 of 1" in cli("show", newest).err
    absent = cli("show", three, "9")
    assert absent.code == 1
    assert "no checkpoint of step 9" in absent.err
    assert "the store holds 3 checkpoints, from step 8 to 20" in absent.err
    assert cli("show", "nowhere").code == 1
    text = cli("show", "tinykernels.py")
    assert text.code == 1
    assert "tinykernels.py" in text.err
    assert "Traceback" not in text.err


def test_ls(cli: Cli, three: Path) -> None:
    kernel_free = load_file(three / archive.name_of(8), sys.modules["tinykernels"].TinyCheckpoint)
    archive.save(LocalStore(three), kernel_free, 8)
    os.utime(three / archive.name_of(16), (10**9, 10**9))
    listed = cli("ls", three)
    assert (listed.code, listed.err) == (0, "")
    lines = listed.out.splitlines()
    titles = ["step", "attempt", "kind", "size", "created", "(UTC)", "age", "name"]
    assert lines[0].split() == titles
    steps = [line.split()[0] for line in lines[1:-1]]
    assert steps == ["8", "8", "16", "20"]
    assert lines[2].split()[1] == "1"
    assert "2001-09-09 01:46:40" in lines[3]
    sizes = [path.stat().st_size for path in three.glob("*.safetensors")]
    assert lines[-1] == f"4 checkpoints, {sum(sizes) / 1024:.1f} KiB, in three"

    events = cli("ls", three, "--json").events
    assert [(e["step"], e["attempt"]) for e in events] == [(8, 0), (8, 1), (16, 0), (20, 0)]
    assert {e["name"]: e["size"] for e in events} == {
        path.name: path.stat().st_size for path in three.glob("*.safetensors")
    }
    assert events[2]["created"] == "2001-09-09T01:46:40+00:00"


def test_ls_opens_none_of_ten_thousand(
    cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(10_000):
        (here / archive.name_of(step)).touch()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a checkpoint was opened")

    monkeypatch.setattr(LocalStore, "open", refuse)
    monkeypatch.setattr("checkpointable.stores.local.store.open_reader", refuse)
    listed = cli("ls", here)
    assert listed.code == 0
    assert len(listed.out.splitlines()) == 10_002
    assert listed.out.splitlines()[-1] == f"10000 checkpoints, 0 B, in {here}"
    assert len(cli("ls", here, "--json").events) == 10_000


def test_ls_of_nothing(cli: Cli, here: Path) -> None:
    assert cli("ls", here) == Result(0, f"no checkpoints in {here}\n", "")
    absent = cli("ls", "absent")
    assert absent.code == 1
    assert "no such directory" in absent.err
    assert cli("ls", "absent", "--json").events[0]["error"] == "NoCheckpoint"
    assert not Path("absent").exists()


def test_verify(cli: Cli, three: Path, sample: Path) -> None:
    sound = cli("verify", three, sample)
    assert (sound.code, sound.err) == (0, "")
    assert sound.out.splitlines()[-1] == "4 checkpoints: 4 ok, 0 not"
    assert sound.out.startswith(f"ok       three/{archive.name_of(8)}  step 8, ")

    damage(three / archive.name_of(16))
    (three / archive.name_of(30)).write_bytes(b"garbage")
    with open_reader(sample) as reader:
        header = read_header(reader)
        begin = header.data_offset + header.arrays["floats"].offset
    damage(sample, begin + layout.BLOCK)
    bad = cli("verify", three, sample)
    assert (bad.code, bad.err) == (1, "")
    lines = bad.out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "damaged", "ok", "damaged", "damaged", "5"]
    block = "the data is damaged (array 'field', block 0 of 1)"
    assert lines[1] == f"damaged  three/{archive.name_of(16)}: {block}"
    assert "(array 'floats', block 1 of 3)" in lines[4]
    assert lines[-1] == "5 checkpoints: 2 ok, 3 not"

    events = cli("verify", three, "--json").events
    assert [event["ok"] for event in events] == [True, False, True, False]
    assert (events[1]["error"], events[1]["what"]) == ("CorruptCheckpoint", "the data is damaged")
    assert cli("verify", three / archive.name_of(8)).code == 0


def test_with_a_key_it_signs_and_believes_only_what_is_signed(cli: Cli, three: Path) -> None:
    Path("key").write_bytes(b"k" * 32)
    Path("other").write_bytes(b"o" * 32)
    run = ("run", "tinykernels:Tiny", "--store", "signed", "--key", "key")
    assert cli(*run).code == 0
    assert "nothing to do" in cli(*run).out
    name = archive.name_of(20)
    assert cli("verify", "signed", "--key", "key").code == 0
    for words in (("signed", "--key", "other"), (three, "--key", "key")):
        told = cli("verify", *words)
        assert told.code == 1
        assert "sign" in told.out
    assert "  signed   with the key given\n" in cli("show", "signed", "--key", "key").out
    assert "  signed   yes; " in cli("show", f"signed/{name}").out
    assert "another key" in cli("show", f"signed/{name}", "--key", "other").err
    assert cli("show", "signed", "--json").events[0]["signed"]


@pytest.mark.parametrize("command", [["run", "tinykernels:Tiny"], ["show", "x"], ["verify", "x"]])
def test_a_bad_key_is_wrong_usage(cli: Cli, command: list[str]) -> None:
    Path("short").write_bytes(b"k")
    for key, message in (("short", "at least 16 random bytes"), ("none", "No such file")):
        told = cli(*command, "--key", key)
        assert told.code == 64
        assert message in told.err
        assert "hint: make one by: head -c 32 /dev/urandom" in told.err


# --- around it -----------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_says_how_to_install_it(here: Path, missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; import checkpointable.cli as cli; "
    done = subprocess.run(
        [sys.executable, "-c", program + "sys.exit(cli.main(['ls', '.']))"],
        cwd=here, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (78, "")
    assert f"needs {missing}, which is not installed" in done.stderr
    assert "install it with: pip install 'checkpointable[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_looking_at_checkpoints_imports_no_numba(here: Path, sample: Path) -> None:
    program = (
        "import sys, checkpointable.cli as cli\n"
        f"assert cli.main(['show', {str(sample)!r}]) == 0\n"
        "assert cli.main(['run', 'tinykernels:Tiny']) == 0\n"
        "sys.exit('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=here, stdout=subprocess.DEVNULL)
    assert done.returncode == 0


def test_the_reader_of_the_output_may_leave(here: Path) -> None:
    for step in range(3000):
        (here / archive.name_of(step)).touch()
    listing = command("ls", ".", "--json")
    with subprocess.Popen(
        listing, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout is not None
        assert job.stderr is not None
        job.stdout.readline()
        job.stdout.close()
        assert job.stderr.read() == ""
    assert job.returncode == 1


def test_a_full_disk_under_the_output_is_told(here: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command("ls", "."), cwd=here, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: ")
    assert b"No space left on device" in done.stderr.splitlines()[0]
    assert b"Traceback" not in done.stderr


def test_help_and_version(cli: Cli) -> None:
    assert cli("--version").out == f"checkpointable {version('checkpointable')}\n"
    shown = cli("--help")
    assert shown == cli()
    assert shown.code == 0
    for name in ("run", "ls", "show", "verify", "schema"):
        assert name in shown.out
        assert "--json" in cli(name, "--help").out
