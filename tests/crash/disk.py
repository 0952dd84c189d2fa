"""A disk that has lost power: which states a sequence of calls can leave on it.

The model is ALICE's (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014), at the
weakest that POSIX allows. What an fsync of the file has made durable is there. Of what was done
since, any subset is: each write torn into pieces, the file's growth apart from its data (and then
filled with zeros or with stale data), each change of a directory that was not yet synced. A rename
is atomic; an fsync of a file does not make its name durable.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import define, field, frozen

from tests.crash.recorder import Call

State = dict[str, bytes | None]
"""The files below a directory, by relative path, folders first; None for a directory."""


@frozen
class _Change:
    """One thing that a crash may lose: a piece of a file, its new size, or changes of names."""

    inode: int = -1
    offset: int = 0
    data: bytes = b""
    size: int = -1
    names: tuple[tuple[int, str, int | None], ...] = ()  # directory, name, inode or gone


@define
class Disk:
    """The state that is durable, what is pending, and what a running program sees."""

    root: Path
    piece: int
    durable: dict[int, bytes | None] = field(factory=lambda: {0: None})  # None: a directory
    names: dict[int, dict[str, int]] = field(factory=lambda: {0: {}})
    seen: dict[int, dict[str, int]] = field(factory=lambda: {0: {}})
    sizes: dict[int, int] = field(factory=dict)
    places: dict[int, int] = field(factory=dict)  # where the next write() of a file goes
    pending: list[_Change] = field(factory=list)
    of_path: dict[Path, int] = field(factory=dict)  # files without a name, and deleted ones

    def put(self, path: str, data: bytes | None) -> None:
        """Have something there, durably, before anything happens."""
        folder, name = self._place(self.root / path)
        inode = self._new(data)
        self.names[folder][name] = self.seen[folder][name] = inode

    def apply(self, call: Call) -> None:
        """Do what a call does."""
        first = call.paths[0] if call.paths else self.root
        match call.name:
            case "open":
                self._open(first, call.flags)
            case "write":
                self._write(self._find(first), call.number, call.data)
            case "truncate" | "ftruncate":
                self._resize(self._find(first), call.number)
            case "fallocate" if "PUNCH" not in call.flags and "KEEP" not in call.flags:
                inode = self._find(first)
                if call.number > self.sizes[inode]:
                    self._resize(inode, call.number)
            case "fsync":
                self._sync(self._find(first))
            case "lseek":
                self.places[self._find(first)] = call.number
            case "sync_file_range":
                pass  # it promises nothing
            case "mkdir":
                self._name((first, self._new(None)))
            case "link":
                self._name((call.paths[1], self._find(first)))
            case "rename":
                self._name((first, None), (call.paths[1], self._find(first)))
            case "unlink" | "rmdir":
                self.of_path[first] = self._find(first)
                self._name((first, None))
            case _:
                raise NotImplementedError(f"{call.name} of {first}")

    def states(self, limit: int, chance: random.Random) -> Iterator[State]:
        """Every state that a crash at this moment can leave; beyond `limit`, as many of them."""
        reachable = {inode for folder in self.names.values() for inode in folder.values()}
        reachable |= {i for change in self.pending for _, _, i in change.names if i is not None}
        open_changes = [c for c in self.pending if c.names or c.inode in reachable]
        stale = max((data or b"" for data in self.durable.values()), key=len)
        for mask in _masks(len(open_changes), limit, chance):
            chosen = [change for bit, change in enumerate(open_changes) if mask >> bit & 1]
            yield self._left(chosen, b"")
            if stale and any(change.size >= 0 for change in chosen):
                yield self._left(chosen, stale)

    def _left(self, chosen: Sequence[_Change], stale: bytes) -> State:
        names = {inode: dict(folder) for inode, folder in self.names.items()}
        contents: dict[int, bytearray] = {}
        for change in chosen:
            for folder, name, inode in change.names:
                if inode is None:
                    names[folder].pop(name, None)
                else:
                    names[folder][name] = inode
            if change.inode >= 0:
                content = contents.setdefault(
                    change.inode, bytearray(self.durable[change.inode] or b"")
                )
                end = change.offset + len(change.data)
                if change.size >= 0:
                    del content[change.size :]
                    end = change.size
                missing = end - len(content)
                if missing > 0:
                    grown = stale[len(content) : end] if change.size >= 0 else b""
                    content += grown + bytes(missing - len(grown))
                content[change.offset : change.offset + len(change.data)] = change.data
        state: State = {}
        self._walk(0, "", names, contents, state)
        return state

    def _walk(
        self,
        folder: int,
        path: str,
        names: dict[int, dict[str, int]],
        contents: dict[int, bytearray],
        state: State,
    ) -> None:
        for name, inode in names[folder].items():
            durable = self.durable[inode]
            if durable is None:
                state[path + name] = None
                self._walk(inode, f"{path}{name}/", names, contents, state)
            else:
                state[path + name] = bytes(contents[inode]) if inode in contents else durable

    # --- what the calls do -----------------------------------------------------------------------

    def _new(self, data: bytes | None) -> int:
        inode = len(self.durable)
        self.durable[inode] = data
        if data is None:
            self.names[inode], self.seen[inode] = {}, {}
        self.sizes[inode] = len(data or b"")
        return inode

    def _place(self, path: Path) -> tuple[int, str]:
        folder = 0
        for part in path.relative_to(self.root).parts[:-1]:
            folder = self.seen[folder][part]
        return folder, path.name

    def _find(self, path: Path) -> int:
        if path == self.root:
            return 0
        folder, name = self._place(path)
        found = self.seen[folder].get(name)
        return self.of_path[path] if found is None else found

    def _open(self, path: Path, flags: str) -> None:
        if "O_TMPFILE" in flags:
            self.of_path[path] = self._new(b"")
            return
        folder, name = self._place(path) if path != self.root else (0, "")
        if path != self.root and name not in self.seen[folder]:
            self._name((path, self._new(b"")))
        elif "O_TRUNC" in flags:
            self._resize(self._find(path), 0)
        if "O_RDONLY" not in flags:
            self.places[self._find(path)] = 0

    def _write(self, inode: int, offset: int, data: bytes) -> None:
        if offset < 0:
            offset = self.places.get(inode, 0)
            self.places[inode] = offset + len(data)
        if offset + len(data) > self.sizes[inode]:
            self._resize(inode, offset + len(data))
        for begin in range(offset - offset % self.piece, offset + len(data), self.piece):
            part = data[max(begin - offset, 0) : begin + self.piece - offset]
            self.pending.append(_Change(inode, max(begin, offset), part))

    def _resize(self, inode: int, size: int) -> None:
        if size != self.sizes[inode]:
            self.sizes[inode] = size
            self.pending.append(_Change(inode, size=size))

    def _name(self, *changes: tuple[Path, int | None]) -> None:
        resolved = [(*self._place(path), inode) for path, inode in changes]
        for folder, name, inode in resolved:
            if inode is None:
                del self.seen[folder][name]
            else:
                self.seen[folder][name] = inode
        self.pending.append(_Change(names=tuple(resolved)))

    def _sync(self, inode: int) -> None:
        kept = []
        for change in self.pending:
            if change.inode == inode or any(folder == inode for folder, _, _ in change.names):
                self._keep(change)
            else:
                kept.append(change)
        self.pending = kept

    def _keep(self, change: _Change) -> None:
        for folder, name, inode in change.names:
            if inode is None:
                self.names[folder].pop(name, None)
            else:
                self.names[folder][name] = inode
        if change.inode >= 0:
            content = bytearray(self.durable[change.inode] or b"")
            if change.size >= 0:
                content = content[: change.size].ljust(change.size, b"\0")
            content[change.offset : change.offset + len(change.data)] = change.data
            self.durable[change.inode] = bytes(content)


def _masks(count: int, limit: int, chance: random.Random) -> Iterator[int]:
    """All subsets of `count` things; or all, none, each prefix, each but one, each alone, some."""
    if 2**count <= limit:
        yield from range(2**count)
        return
    whole = 2**count - 1
    telling = {2**n - 1 for n in range(count + 1)} | {whole ^ 2**n for n in range(count)}
    telling |= {2**n for n in range(count)}
    yield from sorted(telling)
    for _ in range(limit - len(telling)):
        yield chance.getrandbits(count)
