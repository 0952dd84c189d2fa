"""Checkpoints to a JSON tree and named arrays, and back, by type.

`tree` splits the arrays from the tree. `hooks` picks, by cattrs, the pair of functions for a type;
`records`, `containers`, `values` and `scalars` make them, and `codegen` compiles those that run
once per object. `migrations` lead a tree of an older version to the current one, and `paths` find
a value in it.
"""
# isort: skip_file
# fmt: off

from checkpointable.tree.hooks import hooks
from checkpointable.tree.migrations import from_older, migrate, step_from
from checkpointable.tree.paths import container, extended, find, member, text_of
from checkpointable.tree.scalars import Refused, decode
from checkpointable.tree.tree import extract, from_tree, insert, refused_as_invalid, to_tree

__all__ = [
    "Refused", "container", "decode", "extended", "extract", "find", "from_older", "from_tree",
    "hooks", "insert", "member", "migrate", "refused_as_invalid", "step_from", "text_of", "to_tree",
]
