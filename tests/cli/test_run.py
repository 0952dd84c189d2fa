"""`checkpointable run`, on a kernel that needs NumPy only."""

import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import orjson
import pytest

from checkpointable import LocalStore, archive
from checkpointable.cli.run._policies import read_when
from checkpointable.runner import when as policy
from tests.cli.common import Cli, Result, command, damage, file_of, process


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
    *result, summary = first.events
    assert result == [
        orjson.loads(line) for line in Path("here/events.jsonl").read_bytes().splitlines()
    ]
    assert [event["event"] for event in result] == ["Started", "Saved", "Saved", "Finished"]
    started, saved, _, finished = result
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
    result = cli("run", "tinykernels:Tiny", "--device", "cpu", "--", *words)
    assert result.code == 0
    summary = ["sum: 42.0", "model: down", "pace: Pace.CALM", "log: some/where", "loud: True"]
    for line in [*summary, "device: cpu"]:
        assert f"  {line}\n" in result.out


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("nbody --until 3 -- --n 10", "relative error of the energy: "),
        ("pagerank", "rank of node 34: 0.1009191823"),
    ],
)
def test_run_has_kernels_that_need_no_file(cli: Cli, words: str, shown: str) -> None:
    result = cli("run", *words.split())
    assert (result.code, result.err) == (0, "")
    assert f"  {shown}" in result.out


def test_run_refuses_to_continue_with_another_graph(cli: Cli) -> None:
    Path("edges.txt").write_text("1 2\n2 3\n")
    assert cli("run", "pagerank", "--until", "3").code == 0
    result = cli("run", "pagerank", "--until", "5", "--", "--path", "edges.txt")
    assert result.code != 0
    assert "where: setup.graph" in result.err


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
    result = cli(*words)
    assert result.code == 78
    assert result.err.startswith("error: ")
    assert message in result.err
    assert "  hint: " in result.err
    assert "Traceback" not in result.err
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
    result = cli("run", name)
    assert result.code == 1
    assert frame in result.err
    assert message in result.err
    assert f"{os.sep}cli{os.sep}" not in result.err
    event = cli("run", name, "--json").events[-1]
    assert (event["event"], event["exit_code"]) == ("error", 1)
    assert event["what"] in result.err


def test_a_second_interrupt_ends_it_at_once(cli: Cli) -> None:
    result = cli("run", "tinykernels:Interrupted")
    assert result.code == 130
    assert "interrupted; what was saved before stays" in result.err
    assert "Traceback" not in result.err
    assert archive.entries(LocalStore("runs/tinykernels.Interrupted")) == []


def test_two_runs_cannot_share_a_store(cli: Cli) -> None:
    with LocalStore("here").lock():
        result = cli("run", "tinykernels:Tiny", "--store", "here")
    assert result.code == 1
    assert f"another writer holds the store: pid {os.getpid()}" in result.err


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
