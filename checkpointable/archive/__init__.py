"""Checkpoints by step in a store.

`names` are what they are called and the listing, `codec` joins tree and format, `steps` saves and
loads them, `keep` chooses which stay, and `prune` deletes the others.
"""
# isort: skip_file
# fmt: off

from checkpointable.archive.codec import Arrays
from checkpointable.archive.keep import (
    AnyKeep, Keep, KeptStep, best, chosen, every_nth, last, spread, within,
)
from checkpointable.archive.names import (
    Entry, entries, is_delta, is_rank_file, is_sharded, listed, name_of, next_attempt, next_step,
    parsed, rank_file_name, step_of,
)
from checkpointable.archive.policy import Policy
from checkpointable.archive.prune import history, needed, prune, prune_locked
from checkpointable.archive.steps import (
    CHANGING, Found, Skipped, at_step, create, delta_is_worth_it, latest, load, newest_valid,
    none_is_valid, not_there, opened, read_header, save, size_of_full, valid_at, verify,
)

__all__ = [
    "CHANGING", "AnyKeep", "Arrays", "Entry", "Found", "Keep", "KeptStep", "Policy", "Skipped",
    "at_step", "best", "chosen", "create", "delta_is_worth_it", "entries", "every_nth", "history",
    "is_delta", "is_rank_file", "is_sharded", "last", "latest", "listed", "load", "name_of",
    "needed", "newest_valid", "next_attempt", "next_step", "none_is_valid", "not_there", "opened",
    "parsed", "prune", "prune_locked", "rank_file_name", "read_header", "save", "size_of_full",
    "spread", "step_of", "valid_at", "verify", "within",
]
