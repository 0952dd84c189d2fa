"""Checkpoints that outlive the class that wrote them: from an older version's tree to today's.

A migration is a function on the tree, from one version of a schema to the next; a chain of them
leads to the class's version. The tree is as in the file (see `tree`), with each array in its place
as a `LazyArray`, which is read only if the result still holds it.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
from attrs import frozen

from checkpointable.arrays import LazyArray
from checkpointable.errors import (
    CheckpointableError,
    CorruptCheckpoint,
    InvalidCheckpoint,
    SchemaMismatch,
)
from checkpointable.schema import Schema, fields_of, mark_of, mismatch, schema_of, type_name
from checkpointable.tree.hooks import hooks
from checkpointable.tree.tree import insert, refused_as_invalid

C = TypeVar("C")
Tree: TypeAlias = dict[str, Any]
Migration: TypeAlias = Callable[[Tree], Tree]
M = TypeVar("M", bound=Migration)

_migrations: dict[tuple[str, int], Migration] = {}


def migrate(name: str, version: int) -> Callable[[M], M]:
    """Register the function that takes a tree of schema `name` from `version` to the next.

    It may change the tree that it gets, and returns it or another. Arrays in it are `LazyArray`;
    it may put NumPy arrays in as well. It must be imported before an old file is loaded: keep it
    beside the class.

    >>> @migrate("breeze", 1)
    ... def rename(tree: dict[str, Any]) -> dict[str, Any]:
    ...     tree["speed"] = tree.pop("v").astype(np.float32)
    ...     return tree
    """

    def register(function: M) -> M:
        known = _migrations.setdefault((name, version), function)
        if _where(known) != _where(function):
            raise ValueError(
                f"{_where(known)} migrates {name!r} from version {version} already: "
                f"{_where(function)} cannot, too"
            )
        _migrations[name, version] = function  # a module that was loaded again
        return function

    return register


def _where(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


@frozen
class Step:
    """One step of the way to a class's version: what leads from `version` to the next.

    The function, if there is one, comes first; then `added` fields that are still missing get their
    defaults and `removed` ones that are still there are dropped.
    """

    version: int
    function: Migration | None
    added: tuple[str, ...]
    removed: tuple[str, ...]

    def __str__(self) -> str:
        said = [_where(self.function)] if self.function else []
        said += [f"{name} added" for name in self.added]
        said += [f"{name} removed" for name in self.removed]
        return ", ".join(said)


def step_from(cls: Any, version: int) -> Step | None:
    """What leads from this version of the class's schema to the next; None if nothing does."""
    mark = mark_of(cls)
    added, removed = (
        tuple(name for name, since in changed.items() if since == version + 1)
        for changed in (mark.added, mark.removed)
    )
    function = _migrations.get((mark.name, version))
    return Step(version, function, added, removed) if function or added or removed else None


def from_older(
    tree: Any, arrays: Mapping[str, LazyArray], stored: Schema, cls: type[C], newer: str = ""
) -> C:
    """Build a checkpoint of class `cls` from what a file of an older version holds.

    `newer` says what to install if the file turns out to be of a newer one. Raises
    `SchemaMismatch` for that, for another schema and for a version that nothing leads from;
    `InvalidCheckpoint` if a migration fails or what it returns does not fit the class.
    """
    way = _way(stored, cls, newer)
    with refused_as_invalid(cls):
        tree = insert(tree, arrays)
    if type(tree) is not dict:
        what = f"the tree is a {type(tree).__name__}, not that of a class"
        raise InvalidCheckpoint(what, where=type_name(cls), hint="use an older checkpoint")
    for step in way:
        tree = _taken(step, tree, stored.name, cls)
    structure = hooks(cast(Any, cls))[1]
    try:
        with refused_as_invalid(cls):
            return cast("C", structure(_read_all(tree, stored)))
    except CorruptCheckpoint:
        raise
    except InvalidCheckpoint as error:
        error.hint = f"{stored.name} was migrated from version {stored.version}: look there first"
        raise


def _way(stored: Schema, cls: Any, newer: str) -> list[Step]:
    expected = schema_of(cls)
    if stored.name != expected.name or stored.version == expected.version:
        raise mismatch(stored, cls)
    if stored.version > expected.version:
        raise SchemaMismatch(
            f"the checkpoint holds {stored.name} version {stored.version}, "
            f"and this program knows it up to version {expected.version}",
            hint=f"install {newer or 'the version of the program that wrote it'}",
        )
    way = []
    for version in range(stored.version, expected.version):
        step = step_from(cls, version)
        if step is None:
            raise SchemaMismatch(
                f"the checkpoint holds {stored.name} version {stored.version}, the class is "
                f"version {expected.version}, and nothing leads from version {version} to "
                f"{version + 1}",
                hint=f"write a function under @migrate({stored.name!r}, {version}) and import it, "
                "or say in @checkpoint(added=..., removed=...) what changed",
            )
        way.append(step)
    return way


def _taken(step: Step, tree: Tree, name: str, cls: Any) -> Tree:
    if step.function is not None:
        where = _where(step.function)
        try:
            tree = step.function(tree)
        except CheckpointableError:
            raise
        except Exception as error:  # whatever a user's function raises
            raise InvalidCheckpoint(
                f"the migration of {name} from version {step.version} failed: {error!r}",
                where=where,
                hint="mend the function; the file is sound",
            ) from error
        if not isinstance(tree, dict):
            raise InvalidCheckpoint(
                f"the migration of {name} from version {step.version} returned "
                f"{type(tree).__name__}, not the tree",
                where=where,
                hint="return the tree at its end",
            )
    fields = {field.name: field for field in fields_of(cls)}
    for added in step.added:
        if added not in tree:
            field = fields[added]
            assert field.make_default is not None  # as schema_of has checked
            with refused_as_invalid(cls, added):
                tree[added] = hooks(field.type)[0](field.make_default())
    for removed in step.removed:
        tree.pop(removed, None)
    return tree


def _read_all(wire: Any, stored: Schema) -> Any:
    """Read the arrays that are left, one after another."""
    if isinstance(wire, LazyArray):
        try:
            return np.asarray(wire)
        except CheckpointableError:
            raise
        except Exception as error:  # whatever computes it
            what = f"an array of {stored.name} version {stored.version} cannot be migrated"
            raise InvalidCheckpoint(f"{what} to {wire!r}: {error!r}") from error
    if isinstance(wire, dict):
        return {key: _read_all(value, stored) for key, value in wire.items()}
    return [_read_all(value, stored) for value in wire] if isinstance(wire, list) else wire
