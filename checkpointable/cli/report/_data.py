"""The data of a report: the files of a store, the events of its run, frames of an array."""

import math
import types
import typing
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from checkpointable import archive, events
from checkpointable.archive import Entry
from checkpointable.cli._shared import usage_error
from checkpointable.cli.ls import dirty_share
from checkpointable.cli.view.pictures import Picture, pictures
from checkpointable.errors import CheckpointableError, NoCheckpoint, in_one_line
from checkpointable.events import Event
from checkpointable.format import Header
from checkpointable.stores import Store, open_reader

FRAME = (96, 128)
"""The most rows and columns of a frame."""

_MOST_FRAMES = 12
_MOST_BYTES = 16 << 20  # of a log: its end
_LAST_TIME = 253_402_300_799  # of the year 9999


@frozen
class File:
    """A checkpoint of the store: its parents, its children, or why it cannot be read."""

    entry: Entry
    header: Header | None = None
    seal: str = ""
    dirty: float | None = None
    continues: tuple[str, ...] = ()
    continued_by: tuple[str, ...] = ()
    error: str = ""


@frozen(eq=False)
class Frame:
    """An array at one step."""

    step: int
    picture: Picture


def read_files(store: Store, key: bytes | None) -> list[File]:
    """Read all checkpoints, oldest first: headers and seals, but no data."""
    files: list[File] = []
    for entry in archive.entries(store):
        try:
            with archive.opened(store, entry.name, key=key) as checkpoint:
                header, seal = checkpoint.header, checkpoint.seal.hex()
            names = tuple(parent.name for parent in header.parents)
            files.append(File(entry, header, seal, dirty_share(header), names))
        except NoCheckpoint:  # its run has pruned it
            continue
        except CheckpointableError as error:
            files.append(File(entry, error=in_one_line(error, entry.name)))
    users: dict[str, list[str]] = {}
    for file in files:
        for name in file.continues:
            users.setdefault(name, []).append(file.entry.name)
    return [attrs.evolve(f, continued_by=tuple(users.get(f.entry.name, ()))) for f in files]


def reason_kept(file: File, files: list[File]) -> str:
    """Why a file is kept, in a few words."""
    if file.error:
        return f"damaged: {file.error}"
    sound = [f.entry.name for f in files if not f.error]
    reasons = ["the newest that is sound"] if sound and file.entry.name == sound[-1] else []
    if file.continued_by:
        steps = [str(archive.step_of(name)) for name in file.continued_by]
        more = f" and {len(steps) - 4} more" if len(steps) > 4 else ""
        reasons.append(f"continued by {', '.join(steps[:4])}{more}")
    return "; ".join(reasons) or "kept by the run"


def read_events(folder: Path) -> list[Event]:
    """The events of a run in this directory, by time; none if it has no log.

    What of them is not as its class has it is left out, whoever wrote it.
    """
    try:
        with open_reader(folder / events.FILE, follow_symlinks=False) as reader:
            begin = max(0, reader.size - _MOST_BYTES)
            text = bytearray(reader.size - begin)
            reader.read_into(begin, memoryview(text))
    except CheckpointableError:
        return []
    parsed = [events.from_json(bytes(line)) for line in text.split(b"\n")]
    return sorted((e for e in parsed if e is not None and _is_valid(e)), key=lambda e: e.time)


def _is_valid(event: Event) -> bool:
    """Whether each value is of its declared type, and numbers are finite and in range."""
    values = [(getattr(event, a.name), a.type) for a in attrs.fields(type(event))]
    return all(_is(value, tp) for value, tp in values) and 0 <= event.time <= _LAST_TIME


def _is(value: Any, tp: Any) -> bool:
    if isinstance(tp, types.UnionType):
        return any(_is(value, member) for member in tp.__args__)
    if tp in (None, types.NoneType):
        return value is None
    if typing.get_origin(tp) is tuple:
        return isinstance(value, tuple) and all(type(item) is str for item in value)
    if tp is float:
        return type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e15
    return type(value) is tp and (tp is not int or abs(value) < 2**63)


def read_frames(
    store: Store, files: list[File], name: str, key: bytes | None
) -> tuple[str, list[Frame]]:
    """An array at up to 12 steps: the named one, or the largest that can be drawn."""
    sound = [file for file in files if file.header is not None]
    if name and not any(file.header and name in file.header.arrays for file in sound):
        there = sorted({n for file in sound if file.header for n in file.header.arrays})
        names = ", ".join(there)[:500] or "none"
        raise usage_error(f"there is no array {name!r}; there are: {names}")
    if not name and sound and sound[-1].header:
        arrays = sorted(sound[-1].header.arrays.values(), key=lambda a: -a.nbytes)
        for placed in arrays:
            if frames := _frames(store, sound[-1:], placed.name, key):
                name = placed.name
                break
        else:
            frames = []
        if not frames:
            return "", []
    sound = [file for file in sound if file.header and name in file.header.arrays]
    count = min(_MOST_FRAMES, len(sound))
    chosen = [sound[round(i * (len(sound) - 1) / max(count - 1, 1))] for i in range(count)]
    return name, _frames(store, chosen, name, key)


def _frames(store: Store, files: list[File], name: str, key: bytes | None) -> list[Frame]:
    frames = []
    for file in files:
        try:
            with archive.opened(store, file.entry.name, key=key) as checkpoint:
                made = pictures(checkpoint, checkpoint.header.arrays[name], *FRAME)
        except CheckpointableError:  # damaged, or pruned: there is no frame of it
            continue
        frames += [Frame(file.entry.step, made[0])] if made else []
    return frames
