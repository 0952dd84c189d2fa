"""`checkpointable run --supervise`, on kernels that need NumPy only."""

import signal
import subprocess
from importlib import import_module
from pathlib import Path

import orjson
import pytest

from tests.cli.common import KERNELS, Cli, command, file_of, process

TROUBLED = """
import os, signal
from pathlib import Path

class Once(Tiny):
    def advance(self, steps):
        super().advance(steps)
        if self.step >= 15 and not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def no_delay(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "tinykernels.py").write_text(KERNELS + TROUBLED)
    module = import_module("checkpointable.supervisor.supervise")
    monkeypatch.setattr(module, "exponential", lambda: lambda failures: 0.0)


def test_it_is_the_same_run(here: Path) -> None:
    alone = process("run", "tinykernels:Tiny", "--store", "alone", "--json", cwd=here)
    words = ("run", "tinykernels:Tiny", "--supervise", "--json")
    watched = process(*words, "--store", "watched", "--json", cwd=here)
    kinds = [[event["event"] for event in result.events] for result in (alone, watched)]
    assert kinds[0] == kinds[1]
    assert (watched.code, watched.err) == (alone.code, alone.err)
    assert file_of(20, "watched").exists()


def test_a_kernel_that_is_killed_is_started_again(cli: Cli) -> None:
    reported = cli("run", "tinykernels:Once", "--supervise", "--every", "5", "--store", "here")
    assert reported.code == 0
    (line,) = reported.err.splitlines()
    assert line.startswith("warning: ended at step 1")
    assert "(signal SIGKILL, by a person or for lack of memory): attempt 2 begins in 0 s" in line
    assert file_of(20, "here").exists()


def test_json_has_the_supervisors_events(here: Path) -> None:
    words = ("run", "tinykernels:Once", "--supervise", "--every", "5", "--json")
    events = process(*words, cwd=here).events
    assert [e["event"] for e in events if e["event"] in ("Restarted", "Finished")] == [
        "Restarted",
        "Finished",
    ]


def test_it_gives_up_with_a_report(cli: Cli) -> None:
    reported = cli("run", "tinykernels:Breaks", "--supervise")
    assert reported.code == 1
    report = reported.err[reported.err.index("error: 5 attempts without one new checkpoint") :]
    assert report.count("  cause: ZeroDivisionError: by the kernel\n") == 5


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("tinykernels:Absent", 64, "has no class or function 'Absent'"),
        ("tinykernels:Nothing", 78, "is not a checkpointable kernel"),
    ],
)
def test_what_is_wrong_is_told_once(cli: Cli, words: str, code: int, message: str) -> None:
    reported = cli("run", words, "--supervise")
    assert reported.code == code
    assert reported.err.count("error:") == reported.err.count(message) == 1


def test_the_kernels_options_are_shown_without_a_supervisor(cli: Cli) -> None:
    shown = cli("run", "tinykernels:Tiny", "--supervise", "--", "--help")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("Usage: checkpointable run tinykernels:Tiny -- [OPTIONS]")


def test_a_signal_saves_and_asks_to_be_started_again(here: Path) -> None:
    words = ("run", "tinykernels:Endless", "--until", str(10**15), "--every", "100", "--supervise")
    with subprocess.Popen(
        command(*words, "--store", "here", "--json"), cwd=here, stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        while b'"Saved"' not in running.stdout.readline():
            pass
        running.send_signal(signal.SIGTERM)
        events = [orjson.loads(line) for line in running.stdout]
        assert running.wait() == 75
    assert events[-1]["event"] == "Stopped"
    assert file_of(events[-1]["step"], "here").exists()
