"""What the tests start: `mpiexec -n 3 python -m mpi4py -m tests.distributed.programs PROGRAM ...`.

Each rank leaves what it has seen, as JSON, in a file of its own in the folder that it is given.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from checkpointable import (
    Checkpointer,
    LocalStore,
    Preempted,
    archive,
    every,
    last,
    on_signal,
    open_store,
    overhead,
    run,
)
from checkpointable.archive import entries, is_rank_file, is_sharded
from checkpointable.errors import CheckpointableError
from checkpointable.events import Event, Stopped
from checkpointable.runner.link import ENDED, VARIABLE, Link
from checkpointable.runner.signals import safe_point
from checkpointable.stores.protocol import Entry
from tests.distributed.common import RANK, RANKS, Troubled, die, in_short, note
from tests.distributed.failures import BY_ZERO, Failing, failing, outcome_of
from tests.distributed.waves import Waves, is_right
from tests.helpers.small_blocks import small_blocks

KEY = b"a key of at least 16 bytes"


def first_time(folder: Path, what: str) -> bool:
    try:
        (folder / what).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


# --- save and restore ----------------------------------------------------------------------------


async def continue_(folder: Path, place: str, cut: str, key: str = "") -> None:
    """Restore what is there, and save thrice: a full one, and two deltas."""
    kernel = Waves(RANKS, cut)
    checkpointer = Checkpointer(
        kernel, place, coordinator=RANKS, delta=True, key=KEY if key else None
    )
    restored = await checkpointer.restore_latest()
    begun, right, names = kernel.step, [is_right(kernel)], list[str]()
    for _ in range(3):
        kernel.advance(5)
        saving = await checkpointer.save()
        kernel.advance(1)  # beside the save
        names.append((await saving).name)
    again = await checkpointer.restore_latest()
    assert again is not None
    others = KEY[::-1] if key else None
    another = Checkpointer(Waves(RANKS, cut), place, coordinator=RANKS, key=others)
    believes = await outcome_of(another.restore_latest()) == "done"
    headers = [archive.read_header(checkpointer.store, name) for name in names]
    parents = [len(header.parents) for header in headers]
    written = [sum(e.size for e in checkpointer.store.list() if rank_file_of(e, n)) for n in names]
    note(
        folder,
        restored=None if restored is None else restored.step,
        begun=begun,
        ended=kernel.step,
        right=[*right, is_right(kernel)],
        believes=believes,
        files=[*zip(parents, written, strict=True)],
    )


def rank_file_of(entry: Entry, manifest: str) -> bool:
    return is_rank_file(entry.name) and archive.step_of(entry.name) == archive.step_of(manifest)


# --- runs ----------------------------------------------------------------------------------------


class Running(Waves):
    """Waves in a run, that get into a trouble at some step."""

    def __init__(self, folder: Path, cut: str, at: int, trouble: Callable[["Running"], object]):
        super().__init__(RANKS, cut)
        self.folder, self.at, self.trouble = folder, at, trouble

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            super().advance(1)
            if self.step == self.at:
                self.trouble(self)
            if self.step >= self.at and self.trouble is await_signal and safe_point():
                return


def tell_pid(kernel: Running) -> None:
    (kernel.folder / f"pid-{RANK}.tmp").write_text(str(os.getpid()))
    (kernel.folder / f"pid-{RANK}.tmp").replace(kernel.folder / f"pid-{RANK}")


def await_signal(kernel: Running) -> None:
    """As within one long step: until any rank has the signal."""
    tell_pid(kernel)
    while not safe_point():
        pass


def die_once(kernel: Running) -> None:
    """Rank 1 does, when what was saved before is durable."""
    tell_pid(kernel)
    (kernel.folder / f"was-{RANK}-{os.getpid()}").touch()
    if RANK == 1 and first_time(kernel.folder, "died"):
        while not entries(open_store(kernel.folder / "store")):
            pass
        die()


def raise_once(kernel: Running) -> None:
    """Rank 1 does, with a save under way on all, which goes on only then."""
    if RANK == 1 and first_time(kernel.folder, "died"):
        raise ZeroDivisionError("by the kernel")


def stop_supervisor(kernel: Running) -> None:
    """Rank 1 does; the parents are hydra's proxy, mpiexec, and it."""
    if RANK == 1:
        os.kill(psutil.Process().parents()[2].pid, signal.SIGTERM)


def differ(kernel: Running) -> None:
    """Rank 1 does; rank 0 takes its time to tell the supervisor how it ends."""
    if RANK == 1:
        kernel.table[1] += 1
    if RANK > 0:
        return
    tell = Link.ended

    def slowly(self: Link, *words: Any, **facts: Any) -> None:
        time.sleep(0.2)
        tell(self, *words, **facts)

    Link.ended = slowly  # type: ignore[method-assign]


TROUBLES: dict[str, Callable[[Running], object]] = {
    "tells": tell_pid,
    "awaits": await_signal,
    "dies": die_once,
    "raises": raise_once,
    "stops supervisor": stop_supervisor,
    "differs": differ,
}


def running(
    folder: Path, place: str, cut: str, until: str, save: str, trouble: str = "none", at: str = "0"
) -> None:
    """A run, with a trouble: of the kernel at a step, of the store, or of both."""
    kernel = Running(folder, cut, int(at), TROUBLES.get(trouble, lambda kernel: None))
    store = open_store(place)
    if trouble in STORE_TROUBLES:
        store = Troubled(store)
        STORE_TROUBLES[trouble](store, folder)
    told = list[Event]()

    def tell(event: Event) -> None:
        told.append(event)
        if isinstance(event, Stopped):
            time.sleep(0.2)  # so that the others are first if they do not wait
            (folder / "told").touch()

    if save == "seconds" and RANK == 1:
        have_clocks_of_another_machine()
    by_time = every(seconds=0.3) | overhead(max=0.5)
    when = {"steps": every(steps=10), "seconds": by_time}[save]
    grace = 20 if save == "seconds" else None
    code, told_by_then = 0, True
    try:
        report = run(
            kernel, store, int(until), save=when | on_signal(signal.SIGUSR2), keep=last(2),
            delta=True, coordinator=RANKS, latency=0.2, grace=grace, on_event=tell,
        )  # fmt: skip
    except Preempted as stop:
        report, code, told_by_then = stop.report, 75, (folder / "told").exists()
    except CheckpointableError as error:
        note(
            folder,
            error=in_short(error),
            told=(folder / "store" / ENDED).exists(),
            step=kernel.step,
        )
        raise
    names = [event.__class__.__name__ for event in told]
    note(
        folder,
        step=kernel.step,
        right=is_right(kernel),
        events=names,
        told=told_by_then,
        linked=any("_watch" in thread.name for thread in threading.enumerate()),
        named=VARIABLE in os.environ,
        saves=[saved.step for saved in report.saves],
        restored=None if report.restored is None else report.restored.step,
    )
    RANKS.barrier()  # one that ends with a code other than 0 ends the others
    if code:
        sys.exit(code)


def have_clocks_of_another_machine() -> None:
    """Nothing is decided by those of one rank alone; that one is far too fast makes it show."""
    counter, clock = time.perf_counter, time.monotonic
    time.perf_counter = lambda: 10**6 * counter()
    time.monotonic = lambda: 10**6 + clock()


def die_in_write(store: Troubled, folder: Path) -> None:
    """Rank 1, in its write of step 30; those of the others are done."""

    def within(name: str) -> None:
        if RANK == 1 and archive.step_of(name) == 30:
            while sum(rank_file_of(e, name) for e in store.list()) < RANKS.size - 1:
                pass
            die()

    store.within = within


def die_before_commit(store: Troubled, folder: Path) -> None:
    store.before = die_at_manifest


def die_after_commit(store: Troubled, folder: Path) -> None:
    store.after = die_at_manifest


def die_at_manifest(name: str) -> None:
    if is_sharded(name) and archive.step_of(name) == 30:
        die()


def wait_in_save(store: Troubled, folder: Path) -> None:
    """The save of step 20 ends only when the kernel of rank 1 has failed in step 25."""

    def before(name: str) -> None:
        if RANK == 0 and is_rank_file(name) and archive.step_of(name) == 20:
            while not (folder / "died").exists():
                pass

    store.before = before


STORE_TROUBLES: dict[str, Callable[[Troubled, Path], object]] = {
    "in its write": die_in_write,
    "before the commit": die_before_commit,
    "after the commit": die_after_commit,
    "raises": wait_in_save,
}


# --- failures ------------------------------------------------------------------------------------


def unhealthy(folder: Path, place: str) -> None:
    """A NaN on one rank, with a save before it under way."""

    def poison(kernel: Running) -> None:
        if RANK == 2:
            kernel.cells[0, 0] = float("nan")

    told = dict[str, Any]()
    kernel = Running(folder, "rows", 25, poison)
    try:
        run(kernel, place, 60, save=every(steps=10), coordinator=RANKS)
    except CheckpointableError as error:
        told["error"] = in_short(error)
    kernel = Running(folder, "columns", 0, poison)
    report = run(kernel, place, 60, save=every(steps=10), coordinator=RANKS)
    note(folder, **told, first_step=report.first_step, right=is_right(kernel))


# --- damage --------------------------------------------------------------------------------------


async def damaged(folder: Path, place: str) -> None:
    """Save five times, damage something of the newest, and restore; then of the one before."""
    store, files, told = LocalStore(place), list[str](), dict[str, Any]()
    of_all = Waves(RANKS)
    saver = Checkpointer(of_all, store, coordinator=RANKS, delta=True)
    for number in range(5):
        of_all.advance(6)
        await (await saver.save(full=number == 4))
        RANKS.barrier()
        new = {e.name for e in store.list()} - {*files}
        files += sorted(new, key=lambda name: (is_sharded(name), name))
        RANKS.barrier()
    kernel = Failing("columns")
    kernel.advance(1)
    checkpointer = Checkpointer(kernel, store, coordinator=RANKS)

    async def restore(what: str) -> None:
        RANKS.barrier()
        try:
            restored = await checkpointer.restore_latest()
            assert restored is not None
            skipped = [(entry.step, error.what) for entry, error in restored.skipped]
            told[what] = [restored.step, is_right(kernel), skipped]
        except CheckpointableError as error:
            told[what] = in_short(error).splitlines()[0]
        RANKS.barrier()

    await restore("nothing")
    for what, damage in damages(store, files).items():
        if RANK == 0:
            damage()
        await restore(what)
        if what == "data":
            kernel.fails = {"restore": BY_ZERO} if RANK == 2 else {}
            await restore("data, and refused")
            saver.kernel = of_all = Waves(RANKS)
            await saver.restore_latest()
            of_all.advance(1)
            again = await (await saver.save())
            await restore("data, and saved again")
            if RANK == 0:
                store.delete(again.name)
    note(folder, **told)


def damages(store: LocalStore, files: list[str]) -> dict[str, Callable[[], object]]:
    """Of the newest the data of rank 1, of the next the manifest, of the next a missing file; then
    the data of rank 2 of the first, which all that are left continue."""

    def flip(number: int, offset: int) -> Callable[[], object]:
        def work() -> None:
            path = store.path / files[number]
            data = bytearray(path.read_bytes())
            data[offset] ^= 1
            path.write_bytes(data)

        return work

    per = RANKS.size + 1
    return {
        "data": flip(4 * per + 1, 4096),
        "manifest": flip(4 * per - 1, -8),
        "file": lambda: (store.path / files[2 * per + 2]).unlink(),
        "oldest": flip(2, 4096),
    }


PROGRAMS: dict[str, Callable[..., Any]] = {
    "continues": continue_, "runs": running, "fails": failing, "unhealthy": unhealthy,
    "damaged": damaged,
}  # fmt: skip


def main(program: str, folder: str, *words: str) -> None:
    with small_blocks():
        work = PROGRAMS[program](Path(folder), *words)
        if asyncio.iscoroutine(work):
            asyncio.run(work)


if __name__ == "__main__":
    main(*sys.argv[1:])
