"""What all commands have in common: usage, keys, help, imports, output that fails."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from checkpointable import archive
from tests.cli.common import Cli, command


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
        ("show tinykernels.py 3", "tinykernels.py is a file, but STEP is for directories"),
        ("ls", "Missing argument"),
    ],
)
def test_wrong_usage(cli: Cli, words: str, message: str) -> None:
    result = cli(*words.split())
    assert (result.code, result.out) == (64, "")
    assert result.err.startswith("error: ")
    assert message in result.err
    assert " --help\n" in result.err
    assert not Path("runs").exists()


def test_with_a_key_it_signs_and_believes_only_what_is_signed(cli: Cli, three: Path) -> None:
    Path("key").write_bytes(b"k" * 32)
    Path("other").write_bytes(b"o" * 32)
    run = ("run", "tinykernels:Tiny", "--store", "signed", "--key", "key")
    assert cli(*run).code == 0
    assert "nothing to do" in cli(*run).out
    name = archive.name_of(20)
    assert cli("verify", "signed", "--key", "key").code == 0
    for words in (("signed", "--key", "other"), (three, "--key", "key")):
        result = cli("verify", *words)
        assert result.code == 1
        assert "sign" in result.out
    assert "  signed   with the key given\n" in cli("show", "signed", "--key", "key").out
    assert "  signed   yes; " in cli("show", f"signed/{name}").out
    assert "another key" in cli("show", f"signed/{name}", "--key", "other").err
    assert cli("show", "signed", "--json").events[0]["signed"]


@pytest.mark.parametrize("command", [["run", "tinykernels:Tiny"], ["show", "x"], ["verify", "x"]])
def test_a_bad_key_is_wrong_usage(cli: Cli, command: list[str]) -> None:
    Path("short").write_bytes(b"k")
    for key, message in (("short", "at least 16 random bytes"), ("none", "No such file")):
        result = cli(*command, "--key", key)
        assert result.code == 64
        assert message in result.err
        assert "hint: make one with: head -c 32 /dev/urandom" in result.err


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


@pytest.mark.parametrize("name", ["diff", "replay", "bisect", "fork", "report"])
def test_each_command_says_how_it_is_used(cli: Cli, name: str) -> None:
    shown = cli(name, "--help")
    assert shown.code == 0
    assert "--json" in shown.out
    assert f"  {name} " in cli("--help").out
