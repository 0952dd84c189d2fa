"""What the tests supervise: `python -m tests.supervisor.programs TROUBLE STORE UNTIL [always]`.

It counts, and saves at each multiple of 10 steps ("runs on" only at the end). At step 25, the one
before being durable, it gets into the trouble of that name: the first time only, or, with "always",
whenever it comes there.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from checkpointable import DeviceLost, HealthStatus, InvalidKernel, Preempted, every, last, run
from checkpointable.archive import name_of
from tests.helpers.kernels import Counter, CounterCheckpoint

AT = 25


class Troubled(Counter):
    """A counter with a trouble; what it needs to know for longer than it lives is in files."""

    def __init__(self, trouble: str, store: Path, always: bool) -> None:
        super().__init__()
        self.trouble, self.store, self.folder, self.always = trouble, store, store.parent, always

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            super().advance(1)
            if self.step == AT and (self.always or self.first_time(self.trouble)):
                while self.trouble != "runs on" and not (self.store / name_of(20)).exists():
                    pass
                TROUBLES[self.trouble](self)

    async def restore(self, checkpoint: CounterCheckpoint) -> None:
        if self.trouble == "refuses" and checkpoint.step == 20:
            raise RuntimeError("no memory for it at the moment")
        if self.trouble == "reads" and checkpoint.step == 20:
            os.abort()
        await super().restore(checkpoint)

    def first_time(self, name: str) -> bool:
        try:
            (self.folder / name).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def health_check(self) -> HealthStatus:
        return HealthStatus(bool(self.total[0] >= 0), "a total below 0")


def wait_for_ever(kernel: Troubled) -> None:
    """As a kernel that hangs: SIGTERM sets its flag, and nobody looks at it."""
    (kernel.folder / "runs").write_text(str(os.getpid()))
    while True:
        signal.pause()
        (kernel.folder / "asked").touch()


def lose_device(kernel: Troubled) -> None:
    raise DeviceLost("the device was lost: an illegal address")


def raise_error(kernel: Troubled) -> None:
    raise ZeroDivisionError("by the kernel")


def break_state(kernel: Troubled) -> None:
    kernel.total[0] = -(10**9)


def start_another(kernel: Troubled) -> None:
    """As a kernel with a worker process, that crashes."""
    code = "import signal; print(flush=True); signal.pause()"
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    worker.stdout.readline()
    (kernel.folder / "worker").write_text(str(worker.pid))
    wait_for_ever(kernel)


def refuse(kernel: Troubled) -> None:
    raise InvalidKernel("it cannot run so")


TROUBLES: dict[str, Callable[[Troubled], object]] = {
    "runs on": lambda kernel: (kernel.folder / "runs").write_text(str(os.getpid())),
    "aborts": lambda kernel: os.abort(),
    "is killed": lambda kernel: os.kill(os.getpid(), signal.SIGKILL),
    "is preempted": lambda kernel: os.kill(os.getpid(), signal.SIGTERM),
    "stops": lambda kernel: os.kill(os.getpid(), signal.SIGSTOP),
    "exits": lambda kernel: os._exit(3),
    "waits": wait_for_ever,
    "loses device": lose_device,
    "raises": raise_error,
    "is unhealthy": break_state,
    "has worker": start_another,
    "is invalid": refuse,
    "reads": lambda kernel: os.abort(),
    "refuses": raise_error,
}


def main(trouble: str, store: str, until: str, always: str = "") -> None:
    kernel = Troubled(trouble, Path(store), bool(always))
    save = every(steps=10**15 if trouble == "runs on" else 10)
    try:
        run(kernel, store, int(until), save=save, keep=last(100))
    except Preempted:
        if trouble != "is preempted":
            raise
        sys.exit(0)  # as where exit codes are lost on the way


if __name__ == "__main__":
    main(*sys.argv[1:])
