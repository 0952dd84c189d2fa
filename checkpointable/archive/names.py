"""Checkpoint names, and listing them.

A name carries the step: `step-000000001200.safetensors`, or `step-000000001200.delta.safetensors`
for a delta, which needs its parents. `step-000000001200.sharded.safetensors` is the manifest of a
checkpoint that many ranks saved; a rank's file, `step-000000001200.rank-0003.5b2c….`, is not a
checkpoint without it. If a step has a checkpoint already (say, a damaged one that the run fell back
from), the next attempt is `step-000000001200.1.safetensors`; nothing is overwritten. The newest is
the one of the highest step, then of the highest attempt, regardless of time.
"""

import re
from collections import Counter

from attrs import evolve, frozen

from checkpointable.stores import Store

_NAME = re.compile(r"step-(\d{12,19})(?:\.([1-9]\d{0,8}))?(\.delta|\.sharded)?\.safetensors")
_RANK_FILE = re.compile(r"step-(\d{12,19})\.rank-\d{4,9}\.[0-9a-f]{16}\.safetensors")


@frozen
class Entry:
    """One checkpoint in a listing.

    `step`, `attempt`, `delta` and `sharded` are from its name, `size` is in bytes, `created` in
    Unix seconds. The size of a sharded one includes all rank files of its step.
    """

    step: int
    attempt: int
    name: str
    size: int
    created: float
    delta: bool = False
    sharded: bool = False


def name_of(step: int, attempt: int = 0, *, delta: bool = False, sharded: bool = False) -> str:
    """Name a step's checkpoint.

    >>> name_of(1200), name_of(1200, attempt=1), name_of(1300, delta=True)
    ('step-000000001200.safetensors', 'step-000000001200.1.safetensors', \
'step-000000001300.delta.safetensors')
    """
    kind = ".sharded" if sharded else ".delta" if delta else ""
    return f"step-{step:012d}{f'.{attempt}' if attempt else ''}{kind}.safetensors"


def rank_file_name(step: int, rank: int, nonce: str) -> str:
    """Name the file of a rank, in the attempt with this nonce of 16 hex digits.

    >>> rank_file_name(1200, 3, "5b2c0f1e9a8d7c6b")
    'step-000000001200.rank-0003.5b2c0f1e9a8d7c6b.safetensors'
    """
    return f"step-{step:012d}.rank-{rank:04d}.{nonce}.safetensors"


def is_rank_file(name: str) -> bool:
    """Whether a name is that of a rank's file.

    >>> is_rank_file("step-000000001200.rank-0003.5b2c0f1e9a8d7c6b.safetensors")
    True
    """
    return _RANK_FILE.fullmatch(name) is not None


def parsed(name: str) -> tuple[int, int, str] | None:
    """The step, attempt and kind in a name made by `name_of`; None for others."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), int(match[2] or 0), (match[3] or "")[1:]) if match else None


def step_of(name: str) -> int | None:
    """The step in a name of a store; None for other names.

    >>> step_of("step-000000001200.1.safetensors"), step_of("walk.safetensors")
    (1200, None)
    """
    match = _NAME.fullmatch(name) or _RANK_FILE.fullmatch(name)
    return int(match[1]) if match else None


def is_sharded(name: str) -> bool:
    """Whether a name is that of the manifest of a sharded checkpoint.

    >>> is_sharded("step-000000001300.sharded.safetensors")
    True
    """
    parts = parsed(name)
    return parts is not None and parts[2] == "sharded"


def is_delta(name: str) -> bool:
    """Whether a name is that of a delta.

    >>> is_delta("step-000000001300.delta.safetensors"), is_delta("walk.safetensors")
    (True, False)
    """
    parts = parsed(name)
    return parts is not None and parts[2] == "delta"


def next_attempt(checkpoints: list[Entry], step: int) -> int:
    """The number of the next attempt at a step, after the existing ones."""
    return max((entry.attempt for entry in checkpoints if entry.step == step), default=-1) + 1


def next_step(store: Store) -> int:
    """The step after the newest in a store; 0 if it has none."""
    checkpoints = entries(store)
    return checkpoints[-1].step + 1 if checkpoints else 0


def entries(store: Store) -> list[Entry]:
    """List the checkpoints of a store, oldest first, without opening any."""
    return listed(store)[0]


def listed(store: Store) -> tuple[list[Entry], list[str]]:
    """List the checkpoints of a store, oldest first, and the names of rank files."""
    checkpoints, rank_files, ranks = [], list[str](), Counter[int]()
    for blob in store.list():
        if match := _RANK_FILE.fullmatch(blob.name):
            rank_files.append(blob.name)
            ranks[int(match[1])] += blob.size
        elif parts := parsed(blob.name):
            (step, attempt, kind), size = parts, blob.size
            delta, sharded = kind == "delta", kind == "sharded"
            if blob.name == name_of(step, attempt, delta=delta, sharded=sharded):
                checkpoints.append(
                    Entry(step, attempt, blob.name, size, blob.created, delta, sharded)
                )
    checkpoints = [evolve(e, size=e.size + ranks[e.step]) if e.sharded else e for e in checkpoints]
    return sorted(checkpoints, key=lambda e: (e.step, e.attempt, not e.delta)), rank_files
