"""Real power cuts: a file system on a loop device is shut down while a process saves and prunes.

    python -m tests.crash.power --file-system xfs --cuts 300 [--way without_directory_fsync]

For root. FS_IOC_SHUTDOWN without a flush of the log drops all that has not been written back, as a
power cut does; then it is mounted again, replays its log, and every promise is checked. Also no
file may be there, acknowledged or not, that is not whole. What the device itself would lose is not
simulated. `--file-system lazyfs` needs the program of https://github.com/dsrhaslab/lazyfs, which
forgets all data without an fsync, but no change of a directory. Acknowledgements go through a pipe.
All mounts are in a namespace of this process, and end with it. Exit code 1: something is lost or
torn; 77: not possible here.
"""

import argparse
import ctypes
import fcntl
import os
import random
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from attrs import frozen

from checkpointable import CheckpointableError, LocalStore, archive
from checkpointable.stores.local.file import sync_directory
from tests.crash import mutations, promises, workloads
from tests.helpers.small_blocks import small_blocks

SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, (2).to_bytes(4, sys.byteorder)
NEW_NAMESPACE = 0x20000  # CLONE_NEWNS
MAKE = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"], "lazyfs": ["lazyfs"]}
SIZE = 320 << 20
SAVES, SPIN = 12, 0.01
"""A cut comes after up to so many acknowledged saves, and up to so many seconds."""
UNSUPPORTED = 77


def without_second_file_fsync() -> None:
    """As before the fact about XFS was known: the file is synced only while it has no name."""
    mutations.without_fsync(lambda status: stat.S_ISREG(status.st_mode) and status.st_nlink > 0)


def without_fsync_of_the_name() -> None:
    """Neither the directory nor, once more, the file."""
    mutations.without_fsync(lambda status: stat.S_ISDIR(status.st_mode) or status.st_nlink > 0)


MORE_WAYS = {way.__name__: way for way in (without_second_file_fsync, without_fsync_of_the_name)}


@frozen
class Device:
    """A file system whose power can be cut: how it is mounted, and how it loses power."""

    mount: Path
    mounted: Callable[[], AbstractContextManager[None]]
    shut_down: Callable[[], None]


@frozen
class Cut:
    """How many saves were acknowledged before it; what is lost and what is torn after it."""

    saves: int
    lost: str
    torn: str


def cut(device: Device, number: int, chance: random.Random, way: str) -> Cut:
    """Cut the power once, at a random moment, and look what is there."""
    with device.mounted():
        root = device.mount / f"cut-{number}"
        root.mkdir()
        reader, writer = os.pipe()
        (root / "acks").symlink_to(f"/proc/self/fd/{writer}")
        sync_directory(root)
        sync_directory(device.mount)
        prunes, deltas = chance.random() < 0.5, chance.random() < 0.5
        child = os.fork()
        if not child:
            os.close(reader)
            os._exit(_write(root, way, prunes, deltas))
        os.close(writer)
        try:
            output, wanted = b"", chance.randint(0, SAVES)
            while output.count(b'"Saved"') < wanted:
                if not (more := os.read(reader, 1 << 16)):
                    sys.exit(f"the writer ended by itself, after {output!r}")
                output += more
            until = time.perf_counter() + chance.random() * SPIN
            while time.perf_counter() < until:
                pass
            os.kill(child, signal.SIGSTOP)  # LazyFS would go on
            device.shut_down()
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        while more := os.read(reader, 1 << 16):
            output += more
        os.close(reader)
    with device.mounted():
        acknowledged = [orjson.loads(line) for line in output.splitlines()]
        torn = _torn(LocalStore(root / "store"))
        lost = promises.check(root, acknowledged) or promises.write_check(root, acknowledged)
        shutil.rmtree(root)
    return Cut(output.count(b'"Saved"'), lost or "", torn)


def _write(root: Path, way: str, prunes: bool, deltas: bool) -> int:
    """Save as fast as it goes, until killed; 1 after an error, as the shutdown makes one."""
    try:
        MORE_WAYS[way]() if way in MORE_WAYS else mutations.take(way)
        base = None
        for step in range(1, 99):  # `write_check` saves step 99
            name = workloads.save(root, step, "delta" if deltas else "", base)
            base = name if deltas else None
            if prunes:
                workloads.prune(root, 2)
    except BaseException:
        return 1
    return 0


def loop_device(kind: str, folder: Path) -> Device:
    """A new file system in a file, which is mounted for each cut."""
    image, mount = folder / "image", folder / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run([*MAKE[kind], image], check=True)
    device = Device(mount, partial(mounted, image, mount), partial(_shut_down, mount))
    with device.mounted():
        return device


def _shut_down(mount: Path) -> None:
    folder = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.ioctl(folder, SHUTDOWN, NO_LOG_FLUSH)
    os.close(folder)


@small_blocks(workloads.BLOCK)
def _torn(store: LocalStore) -> str:
    """What is visible, acknowledged or not, and is not whole."""
    for entry in archive.entries(store):
        try:
            archive.verify(store, entry.name)
        except CheckpointableError as error:
            return f"{entry.name}: {error.what}"
    return ""


@contextmanager
def mounted(image: Path, mount: Path) -> Iterator[None]:
    """Mount the image; the loop device goes with the mount."""
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", mount], check=True)


@contextmanager
def lazyfs(folder: Path) -> Iterator[Device]:
    """LazyFS over a directory, mounted for all cuts; told through one pipe, it answers in another.

    https://github.com/dsrhaslab/lazyfs#running-and-injecting-faults
    """
    mount, config = folder / "mount", folder / "config.toml"
    mount.mkdir()
    (folder / "root").mkdir()
    config.write_text(
        f'[faults]\nfifo_path="{folder}/told"\nfifo_path_completed="{folder}/done"\n'
        '[cache]\napply_eviction=false\n[cache.simple]\ncustom_size="0.2GB"\nblocks_per_page=1\n'
        f'[filesystem]\nlog_all_operations=false\nlogfile="{folder}/log"\n'
    )
    options = ["-o", "modules=subdir", "-o", f"subdir={folder}/root"]
    command: list[str | Path] = ["lazyfs", mount, "--config-path", config, *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def forget() -> None:
        done = os.open(folder / "done", os.O_RDONLY | os.O_NONBLOCK)  # it answers who listens
        (folder / "told").write_text("lazyfs::clear-cache\n")
        select.select([done], [], [])
        assert b"Finished" in os.read(done, 1 << 16)
        os.close(done)

    try:
        yield Device(mount, nullcontext, forget)
    finally:
        subprocess.run(["umount", mount], check=True)
        subprocess.run(["pkill", "-f", str(config)])


def possible(kind: str) -> str:
    """Why it is not possible here; nothing if it is."""
    if os.geteuid():
        return "only root can mount"
    if missing := [tool for tool in (MAKE[kind][0], "mount", "umount") if not shutil.which(tool)]:
        return f"needs {' and '.join(missing)}"
    if ctypes.CDLL(None).unshare(NEW_NAMESPACE):
        return "no mount namespace of its own"
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    return ""


def options() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--file-system", choices=MAKE, default="ext4")
    parser.add_argument("--cuts", type=int, default=300, help="default 300")
    parser.add_argument("--way", choices=[*mutations.WAYS, *MORE_WAYS], default="")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", type=Path, help="where the image goes; default: in memory")
    return parser.parse_args()


def main() -> None:
    given = options()
    if reason := possible(given.file_system):
        print(f"not possible here: {reason}", file=sys.stderr)
        sys.exit(UNSUPPORTED)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # to clean up
    memory = Path("/dev/shm")
    where = given.dir or (memory if os.access(memory, os.W_OK) else None)
    chance, begin = random.Random(given.seed), time.perf_counter()
    cuts: list[Cut] = []
    with (
        tempfile.TemporaryDirectory(prefix="checkpointable-", dir=where) as name,
        ExitStack() as ending,
    ):
        try:
            if given.file_system == "lazyfs":
                device = ending.enter_context(lazyfs(Path(name)))
            else:
                device = loop_device(given.file_system, Path(name))
        except subprocess.CalledProcessError:
            print(f"not possible here: no mount of {given.file_system}", file=sys.stderr)
            sys.exit(UNSUPPORTED)
        for number in range(given.cuts):
            cuts.append(cut(device, number, chance, given.way))
            if wrong := "; ".join(filter(None, (cuts[-1].lost, cuts[-1].torn))):
                print(f"cut {number}: {wrong}", flush=True)
    lost, torn = sum(bool(c.lost) for c in cuts), sum(bool(c.torn) for c in cuts)
    print(
        f"{given.file_system}{given.way and ', '}{given.way}: {given.cuts} cuts, {lost} lost, "
        f"{torn} torn; {sum(c.saves for c in cuts):,} saves were acknowledged, "
        f"{time.perf_counter() - begin:.0f} seconds"
    )
    sys.exit(lost + torn > 0)


if __name__ == "__main__":
    main()
