"""What is done to a store while the power may fail. A new operation is one more function here.

Each runs in a process of its own, `python -m tests.crash.workloads NAME ROOT [WRONG_WAY]`, and says
what it has been promised by lines of JSON in ROOT/acks: `{"saved": [file, step, writer]}` after a
save has returned, `{"keeping": [file, ...]}` before anything else is deleted.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import orjson

from checkpointable import (
    Array,
    LocalStore,
    archive,
    capture,
    every,
    last,
    reinstate,
    run,
    save_file,
)
from checkpointable.distributed import checkpoints
from checkpointable.distributed.coordinator import Coordinator
from checkpointable.errors import CheckpointExists, StoreLocked
from checkpointable.stores.local import writer
from tests.crash import mutations
from tests.helpers.equality import same
from tests.helpers.small_blocks import small_blocks
from tests.helpers.thread_ranks import on_ranks

SIZE = 320
BLOCK = SIZE  # but those of the writer "delta" have two, so that one may be changed


@attrs.frozen
class State:
    """Small, and different in every byte for each step and each writer."""

    step: int
    writer: str
    data: Array[np.uint8]


@cache
def state(step: int, writer: str) -> State:
    """What a checkpoint of this step by this writer must be, whenever it is found.

    Two steps of the writer "delta", one after the other, have one of two blocks in common.
    """
    if writer == "delta":
        halves = [
            np.random.default_rng([n, n]).integers(0, 256, BLOCK, np.uint8)
            for n in (step // 2 * 2, (step + 1) // 2 * 2 + 1)
        ]
        return State(step, writer, np.concatenate(halves))
    seed = int.from_bytes(writer.encode(), "little")
    return State(step, writer, np.random.default_rng([step, seed]).integers(0, 256, SIZE, np.uint8))


def say(root: Path, **what: Any) -> None:
    """Acknowledge; one write, so that the recorder sees one call."""
    file = os.open(root / "acks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, orjson.dumps(what) + b"\n")
    os.close(file)


@small_blocks(BLOCK)
def save(root: Path, step: int, writer: str = "", base: str | None = None) -> str:
    entry = archive.save(LocalStore(root / "store"), state(step, writer), step, base=base)
    say(root, saved=[f"store/{entry.name}", step, writer])
    return entry.name


@small_blocks(BLOCK)
def prune(root: Path, keep: int) -> None:
    store = LocalStore(root / "store")
    names = [entry.name for entry in archive.entries(store)]
    say(root, keeping=[f"store/{name}" for name in names[-keep:]])
    archive.prune(store, last(keep))


# --- the workloads -------------------------------------------------------------------------------


def saves_and_prunes(root: Path) -> None:
    for step in range(1, 5):
        save(root, step)
        prune(root, 2)


def saves_one_step_again(root: Path) -> None:
    save(root, 1, "first")
    save(root, 1, "second")


def saves_a_file(root: Path) -> None:
    save_file(state(1, ""), root / "one.safetensors", step=1)
    say(root, saved=["one.safetensors", 1, ""])


def saves_large_files(root: Path) -> None:
    """As the bytes of large files are written: by threads, past the page cache where that goes."""
    mutations.put(writer, "LARGE", 0)
    mutations.put(writer, "BUFFER", 4096)
    mutations.put(writer, "_spare", [])
    for step in (1, 2):
        save(root, step)
    prune(root, 1)


def saves_deltas(root: Path) -> None:
    """A delta that is kept needs what is not; then both may go."""
    base = save(root, 1, "delta")
    save(root, 2, "delta", base)
    prune(root, 1)
    save(root, 3, "delta")
    prune(root, 1)


def compacts_deltas(root: Path) -> None:
    """`BEFORE` has a full one and deltas; the newest becomes a full one, and all others go."""
    say(root, saved=[f"store/{archive.name_of(3, delta=True)}", 3, "delta"])
    say(root, keeping=[])  # as a file; what is the latest gets no older
    archive.prune(LocalStore(root / "store"), last(1), compact=True)


def forks(root: Path) -> None:
    """`BEFORE` has a full one and a delta; they get a second name in a new directory."""
    from checkpointable.cli.fork import fork_store  # which needs the extra `cli`

    name = archive.name_of(2, delta=True)
    say(root, saved=[f"store/{name}", 2, "delta"])
    fork_store(LocalStore(root / "store"), 2, root / "new")
    say(root, saved=[f"new/{name}", 2, "delta"])


def prunes_when_the_newest_are_damaged(root: Path) -> None:
    """`BEFORE` has damaged ones as the newest: the last that verifies has to stay."""
    say(root, keeping=["store/step-000000000002.safetensors"])
    archive.prune(LocalStore(root / "store"), last(1))


def restores(root: Path) -> None:
    """Nothing is written; what is found is exact, and nothing is passed over silently."""
    result = archive.latest(LocalStore(root / "store"), State)
    assert result is not None
    assert same(result.checkpoint, state(result.entry.step, ""))
    assert result.entry.step == 2 or len(result.skipped) == 2 - result.entry.step
    archive.verify(LocalStore(root / "store"), archive.name_of(1))


def runs_a_kernel(root: Path) -> None:
    """The whole way: `run`, which saves in a thread and prunes; twice, to resume."""

    class Kernel:
        def __init__(self) -> None:
            self.step, self.writer = 0, ""
            self.data = np.array(state(0, "").data)

        def advance(self, steps: int) -> None:
            self.step += steps
            self.data[:] = np.asarray(state(self.step, "").data)

        async def checkpoint(self) -> State:
            return await capture(State, self)

        async def restore(self, checkpoint: State) -> None:
            await reinstate(checkpoint, self)

    def keep(steps: Any) -> Any:
        say(root, saved=[f"store/{archive.name_of(steps[-1])}", steps[-1], ""])
        kept = last(2)(steps)
        say(root, keeping=[f"store/{archive.name_of(step)}" for step in kept])
        return kept

    for until in (2, 4):
        run(Kernel(), root / "store", until, save=every(steps=1), keep=keep)


def ranks_save(root: Path) -> None:
    """Two ranks, which write at once, and a manifest that commits what they have written."""
    store = LocalStore(root / "store")
    for step in (1, 2):

        def work(ranks: Coordinator, step: int = step) -> str:
            return checkpoints.save(store, state(step, ""), step, coordinator=ranks)[0].name

        say(root, saved=[f"store/{on_ranks(2, work)[0]}", step, ""])
    prune(root, 1)


def renames(root: Path) -> None:
    """The older of two is put aside, and is whole under its new name from then on."""
    name, latest, aside = save(root, 1), save(root, 2), "step-000000000001.aside.safetensors"
    say(root, keeping=[f"store/{latest}"])
    LocalStore(root / "store").rename(name, aside)
    say(root, saved=[f"store/{aside}", 1, ""])


def two_processes_save(root: Path) -> None:
    """Two writers of one store, and of one file, as fast as they can."""
    code = "from tests.crash import workloads as w; import sys; w.one_of_two(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(root)]
    way = mutations.chosen()
    both = [subprocess.Popen([*command, writer, way]) for writer in "ab"]
    for process in both:
        if process.wait():
            raise SystemExit(f"a writer ended with {process.returncode}")


@small_blocks(BLOCK)
def one_of_two(root: str, writer: str, way: str) -> None:
    mutations.take(way)
    link = os.link
    meet(root, writer, "loaded")

    def link_together(source: Any, name: Any, **options: Any) -> None:
        mutations.put(os, "link", link)
        meet(root, writer, "linking")  # so that both give the same file its name at once
        os.link(source, name, **options)

    mutations.put(os, "link", link_together)
    try:
        save_file(state(1, writer), Path(root) / "one.safetensors", step=1)
        say(Path(root), saved=["one.safetensors", 1, writer])
    except CheckpointExists:
        pass
    done = 0
    while done < 2:
        try:
            save(Path(root), done, writer)
            done += 1
        except StoreLocked:
            continue


def meet(root: str, writer: str, where: str) -> None:
    """Wait until the other writer has come there, too."""
    (Path(root).parent / f"{where}-{writer}").touch()
    while len(list(Path(root).parent.glob(f"{where}-*"))) < 2:
        pass


WORKLOADS: dict[str, Callable[[Path], None]] = {
    workload.__name__: small_blocks(BLOCK)(workload)
    for workload in (
        saves_and_prunes,
        saves_one_step_again,
        saves_a_file,
        saves_large_files,
        saves_deltas,
        compacts_deltas,
        forks,
        prunes_when_the_newest_are_damaged,
        restores,
        renames,
        ranks_save,
        runs_a_kernel,
        two_processes_save,
    )
}

_MANY_THREADS = ("two_processes_save", "runs_a_kernel", "ranks_save", "saves_large_files")
IN_ONE_THREAD = [n for n in WORKLOADS if n not in _MANY_THREADS]
"""Those of which strace can count the calls."""


@cache
@small_blocks(BLOCK)
def before(name: str) -> dict[str, bytes | None]:
    """What is there, durably, before a workload begins: for most, what others have left."""
    result: dict[str, bytes | None] = {}
    if name in ("saves_one_step_again", "saves_and_prunes"):  # things that are none of ours
        result = {"store": None, "store/notes.txt": b"mine", "store/.keep": b""}
        result |= {"store/step-1.safetensors": b"?", "store/.checkpointable-1.tmp": b"?"}
        result |= {f"store/.checkpointable-{'0' * 32}.tmp": b"left by a killed writer"}
    if name in ("prunes_when_the_newest_are_damaged", "restores"):
        result = {"store": None}
        for step in range(1, 3 if name == "restores" else 5):
            data = bytearray(_file_of(step))
            data[-40 - step * 40] ^= step > 2
            result[f"store/{archive.name_of(step)}"] = bytes(data)
    if name in ("compacts_deltas", "forks"):
        result = {"store": None}
        with tempfile.TemporaryDirectory() as folder:
            base, store = None, LocalStore(folder)
            for step in (1, 2) if name == "forks" else (1, 2, 3):
                base = archive.save(store, state(step, "delta"), step, base=base).name
                result[f"store/{base}"] = (Path(folder) / base).read_bytes()
    return result


def _file_of(step: int) -> bytes:
    from checkpointable.archive import codec

    return b"".join(codec.encode(state(step, ""), step=step).chunks())


if __name__ == "__main__":
    mutations.take(sys.argv[3] if sys.argv[3:] else "")
    WORKLOADS[sys.argv[1]](Path(sys.argv[2]))
