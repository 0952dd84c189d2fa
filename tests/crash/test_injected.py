"""SIGKILL, or an error, at every system call of every workload: strace puts it there.

The files are in memory: neither takes from a file what was written, so no disk need be waited for.
"""

import errno
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import pytest

from tests.crash import promises, workloads
from tests.crash.killed_process import Victims, acknowledged, lay, victims
from tests.crash.recorder import need_strace

LIKELY = ["EIO", "ENOSPC", "EDQUOT", "EINTR", "EACCES", "EMFILE", "EOPNOTSUPP"]
AT_ONCE = 3
"""So many of them are tried at each call, by turns; with EVERY_ERRNO all that there are."""
WITH_ERRORS = [w for w in workloads.IN_ONE_THREAD if w != "saves_and_prunes"]
if not os.environ.get("EVERY_ERRNO"):  # it makes many calls, and takes three minutes
    WITH_ERRORS.remove("forks")
# Calls that change no file and reach none, and whose number differs from run to run.
_ASIDE = {"mmap", "munmap", "brk", "mprotect", "mremap", "madvise", "futex", "getpid", "getppid"}
_ASIDE |= {"getrandom", "exit_group"}


@pytest.fixture(scope="module")
def prey() -> Iterator[Victims]:
    need_strace()
    with victims() as result:
        yield result


def calls(prey: Victims, workload: str, way: str, folder: Path) -> list[tuple[str, int]]:
    """The calls of a workload, each with how many of its name have come so far."""
    lay(workload, folder / "whole")
    trace = ["-y", "-o", str(folder / "log"), "-e", "trace=all"]
    assert prey.run(workload, folder / "whole", trace, way) == 0
    result, count, begun = [], Counter[str](), False
    for line in (folder / "log").read_text().splitlines():
        if match := re.match(r"\d+ +(\w+)\(", line):
            count[match[1]] += 1
            begun |= match[1] == "getppid"
            if begun and match[1] not in _ASIDE and "/acks" not in line:
                result.append((match[1], count[match[1]]))
    return result


@pytest.mark.parametrize("way", ["", "no_tmpfile"], ids=["O_TMPFILE", "named"])
@pytest.mark.parametrize("workload", workloads.IN_ONE_THREAD)
def test_killed_at_every_call(
    prey: Victims,
    workload: str,
    way: str,
    memory: Path,
    record_property: Callable[[str, object], None],
) -> None:
    points = calls(prey, workload, way, memory)
    for name, number in points:
        root = memory / "killed"
        lay(workload, root)
        inject = ["-e", f"inject={name}:signal=SIGKILL:when={number}"]
        code = prey.run(workload, root, ["-o", os.devnull, "-e", f"trace={name}", *inject], way)
        where = f"killed at call {number} of {name}"
        assert code == -9, where
        assert promises.check(root, acknowledged(root)) is None, where
        assert promises.write_check(root, acknowledged(root)) is None, where
        shutil.rmtree(root)
    record_property("kills, one at each system call", len(points))


@pytest.mark.parametrize("way", ["", "no_tmpfile"], ids=["O_TMPFILE", "named"])
@pytest.mark.parametrize("workload", WITH_ERRORS)
def test_an_error_at_every_call(
    prey: Victims,
    workload: str,
    way: str,
    memory: Path,
    record_property: Callable[[str, object], None],
) -> None:
    points = calls(prey, workload, way, memory)
    succeeded = 0
    wrong = []
    every = sorted(errno.errorcode.values()) if os.environ.get("EVERY_ERRNO") else []
    turns = cycle(LIKELY)
    tried = [every or [next(turns) for _ in range(AT_ONCE)] for _ in points]
    for (name, number), errors in zip(points, tried, strict=True):
        for error in errors:
            root = memory / "failed"
            lay(workload, root)
            number_of = getattr(errno, error)  # strace does not know all names
            inject = ["-e", f"inject={name}:error={number_of}:when={number}"]
            code = prey.run(workload, root, ["-o", os.devnull, "-e", f"trace={name}", *inject], way)
            where = f"{error} at call {number} of {name}"
            stderr = memory / "failed.errors"
            if code not in (0, 3):
                wrong.append(
                    (where, code, stderr.read_text().splitlines()[-1] if stderr.exists() else "")
                )
            succeeded += not code
            for check in (promises.check, promises.write_check):
                if (broken := check(root, acknowledged(root))) is not None:
                    wrong.append((where, code, broken))
            shutil.rmtree(root)
            stderr.unlink(missing_ok=True)
    record_property("errors, each at one system call", sum(map(len, tried)))
    record_property("errors that a save outlived", succeeded)
    assert not wrong, "\n".join(map(str, wrong))
