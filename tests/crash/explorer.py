"""Build every state that a crash of a workload can leave, and ask a check what is found there."""

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
from attrs import define, field

from tests.crash.disk import Disk, State
from tests.crash.recorder import Call

PIECES = (4096, 512)
LIMIT = 2**12
"""Up to so many subsets of what is pending are all of them; beyond, so many are drawn."""

Check = Callable[[Path, Sequence[Any]], str | None]
"""From a directory after a crash, and what was acknowledged before it, to what is wrong."""


@define
class Explored:
    """How many different states were looked at, and in which ones something was wrong."""

    states: int = 0
    wrong: list[str] = field(factory=list)


def explore(
    calls: Sequence[Call],
    root: Path,
    before: State,
    check: Check,
    scratch: Path,
    *,
    write_check: Check | None = None,
    limit: int = LIMIT,
    seed: int = 0,
    enough: int = 10**9,
) -> Explored:
    """Check each different state of `root` that a crash after any of the calls can leave.

    `check` only reads; `write_check` may write, and sees one state of each set of names.
    `before` is what was there, durably, before the first call. A write to the file `acks` inside
    `root` is no call of the workload, but a line of JSON by which it says what it has promised.
    Ends early when `enough` states were wrong.
    """
    result = Explored()
    for piece in PIECES:
        disk = Disk(root, piece, limit, random.Random(seed))
        for path, data in before.items():
            disk.put(path, data)
        place = _Place(scratch / "read")
        acknowledged: list[Any] = []
        done: set[int] = set()
        written: set[frozenset[str]] = set()
        for point, call in enumerate(calls):
            if call.paths[0] != root / "acks":
                disk.apply(call)
            elif call.name == "write":  # more is promised of the same states
                acknowledged.extend(map(orjson.loads, call.data.splitlines()))
                done.clear()
                written.clear()
            for state in disk.states():
                key = hash(frozenset(state.items()))
                if key in done:
                    continue
                done.add(key)
                result.states += 1
                wrong = check(place.become(state), acknowledged)
                if not wrong and write_check and (names := frozenset(state)) not in written:
                    written.add(names)
                    wrong = write_check(_Place(scratch / "written").become(state), acknowledged)
                if wrong:
                    where = f"pieces of {piece}, after call {point}: {_short(call)}"
                    result.wrong.append(f"{wrong} ({where}; {_listing(state)})")
                    if len(result.wrong) >= enough:
                        return result
    return result


class _Place:
    """A directory that takes one state after the other; only what differs is written."""

    def __init__(self, path: Path) -> None:
        self.path, self._state = path, State()
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)

    def become(self, state: State) -> Path:
        for path in sorted(self._state.keys() - state.keys(), reverse=True):
            where = self.path / path
            where.unlink() if where.is_file() else where.rmdir()
        for path, data in state.items():
            if path not in self._state or self._state[path] != data:
                where = self.path / path
                where.mkdir(exist_ok=True) if data is None else where.write_bytes(data)
        self._state = state
        return self.path


def _short(call: Call) -> str:
    return f"{call.name} of {', '.join(path.name for path in call.paths)}"


def _listing(state: State) -> str:
    return ", ".join(f"{path} {len(data or b'')}" for path, data in sorted(state.items()))
