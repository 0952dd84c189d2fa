"""A fault is made in a process of its own, in a mount namespace if it needs a disk."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from checkpointable import StoreError

WAYS = pytest.mark.parametrize("way", ["", "no_tmpfile"], ids=["O_TMPFILE", "named"])


def apart(scenario: Callable[..., None], *args: object, before: Sequence[str] = ()) -> None:
    """Call a function of a test module in a process of its own, which `before` starts."""
    code = "import sys; from importlib import import_module as load; "
    code += "vars(load(sys.argv[1]))[sys.argv[2]](*sys.argv[3:])"
    names = [scenario.__module__, scenario.__name__]
    command = [*before, sys.executable, "-c", code, *names, *map(str, args)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr


def namespace() -> list[str]:
    """The command that gives another one mounts of its own."""
    command = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"]).returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs a mount namespace")
    return command


def mount(root: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(root)], check=True)


def fails(attempt: Callable[[], object], error: type[StoreError], where: Path) -> None:
    with pytest.raises(StoreError) as caught:
        attempt()
    assert type(caught.value) is error
    assert caught.value.hint
    assert str(where) in caught.value.where


def names(path: Path) -> set[str]:
    return {result.name for result in path.iterdir()}
