"""A disk that has lost power: which states a sequence of calls can leave on it.

The model is ALICE's (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014), at the
weakest that POSIX allows. What an fsync of the file has made durable is there. Of what was done
since, any subset is: each write torn into pieces, the file's growth apart from its data (and then
filled with zeros or with stale data), each change of a directory that was not yet synced. A rename
is atomic; an fsync of a file does not make its name durable.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path

from attrs import define, field

from tests.crash.recorder import Call

State = dict[str, bytes | None]
"""The files below a directory, by relative path, folders first; None for a directory."""

Names = tuple[tuple[int, str, int | None], ...]
"""A change of names that is made at once: directory, name, and inode, or None for gone."""


MOST_CONTENTS = 2**14
"""Of one file, in memory; ways that its contents can differ in are drawn beyond."""


@define
class Disk:
    """What may be found of each file and directory, and what a running program sees.

    `contents` has for each file what a crash can leave of it, at most `limit` of all that is
    possible; None stands for a directory. `current` has what the program sees.
    """

    root: Path
    piece: int
    limit: int
    chance: random.Random
    contents: dict[int, list[bytes | None]] = field(factory=lambda: {0: [None]})
    current: dict[int, bytes | None] = field(factory=lambda: {0: None})
    names: dict[int, dict[str, int]] = field(factory=lambda: {0: {}})
    seen: dict[int, dict[str, int]] = field(factory=lambda: {0: {}})
    places: dict[int, int] = field(factory=dict)  # where the next write() of a file goes
    pending: list[Names] = field(factory=list)
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
                if call.number > len(self.current[inode] or b""):
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

    def states(self) -> Iterator[State]:
        """Every state that a crash at this moment can leave; beyond `limit`, as many of them."""
        trees = self._trees()
        choices = [[self.contents[inode] for inode in tree.values()] for tree in trees]
        if sum(math.prod(map(len, each)) for each in choices) <= self.limit:
            for tree, each in zip(trees, choices, strict=True):
                for result in product(*each):
                    yield dict(zip(tree, result, strict=True))
            return
        for tree in trees:
            yield {path: self.contents[inode][0] for path, inode in tree.items()}
            yield {path: self.current[inode] for path, inode in tree.items()}
        for _ in range(self.limit):
            tree = self.chance.choice(trees)
            yield {path: self.chance.choice(self.contents[i]) for path, i in tree.items()}

    def _trees(self) -> list[dict[str, int]]:
        """The inodes by path, folders first, after each subset of the pending changes."""
        trees = {}
        for mask in _masks(len(self.pending), self.limit, self.chance):
            tree = self._tree([names for bit, names in enumerate(self.pending) if mask >> bit & 1])
            trees[tuple(tree.items())] = tree
        return [*trees.values()]

    def _tree(self, chosen: Sequence[Names]) -> dict[str, int]:
        names = {inode: dict(folder) for inode, folder in self.names.items()}
        for change in chosen:
            _rename(names, change)
        tree: dict[str, int] = {}

        def walk(folder: int, path: str) -> None:
            for name, inode in names[folder].items():
                tree[path + name] = inode
                if inode in names:
                    walk(inode, f"{path}{name}/")

        walk(0, "")
        return tree

    # --- what the calls do -----------------------------------------------------------------------

    def _new(self, data: bytes | None) -> int:
        inode = len(self.current)
        self.current[inode] = data
        self.contents[inode] = [data]
        if data is None:
            self.names[inode], self.seen[inode] = {}, {}
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
        result = self.seen[folder].get(name)
        return self.of_path[path] if result is None else result

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
        if offset + len(data) > len(self.current[inode] or b""):
            self._resize(inode, offset + len(data))
        for begin in range(offset - offset % self.piece, offset + len(data), self.piece):
            part = data[max(begin - offset, 0) : begin + self.piece - offset]
            self._change(inode, partial(_spliced, max(begin, offset), part))

    def _resize(self, inode: int, size: int) -> None:
        stale = max((data or b"" for data in self.current.values()), key=len)
        self._change(
            inode,
            lambda old: old[:size].ljust(size, b"\0"),
            lambda old: (old[:size] + stale[len(old) : size]).ljust(size, b"\0"),
        )

    def _change(self, inode: int, *ways: Callable[[bytes], bytes]) -> None:
        """Change a file; a crash may leave the change undone, or done in any of these ways."""
        before = self.contents[inode]
        done = [way(old or b"") for old in before for way in ways]
        result = [*dict.fromkeys([*before, *done])]
        if len(result) > (most := min(self.limit, MOST_CONTENTS)):
            result = [result[0], *self.chance.sample(result[1:], most - 1)]
        self.contents[inode] = result
        self.current[inode] = ways[0](self.current[inode] or b"")

    def _name(self, *changes: tuple[Path, int | None]) -> None:
        change = tuple((*self._place(path), inode) for path, inode in changes)
        _rename(self.seen, change)
        self.pending.append(change)

    def _sync(self, inode: int) -> None:
        self.contents[inode] = [self.current[inode]]
        for change in [c for c in self.pending if any(folder == inode for folder, _, _ in c)]:
            _rename(self.names, change)
            self.pending.remove(change)


def _spliced(at: int, part: bytes, old: bytes) -> bytes:
    return old[:at].ljust(at, b"\0") + part + old[at + len(part) :]


def _rename(names: dict[int, dict[str, int]], change: Names) -> None:
    for folder, name, inode in change:
        if inode is None:
            names[folder].pop(name, None)
        else:
            names[folder][name] = inode


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
