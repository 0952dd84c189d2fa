"""Migrations: from the tree of an older version of a class to the current one.

A migration is a function on the tree, from one version of a schema to the next; a chain of them
leads to the class's version. The tree is as in the file (see `tree`), with a `LazyArray` in the
place of each array, which is read only if the result still holds it.
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

    The function may change the tree that it gets, and returns it or another one. Arrays in it are
    `LazyArray`s; it may add NumPy arrays as well. It must be imported before an old file is loaded:
    keep it in the module of the class.

    >>> @migrate("breeze", 1)
    ... def rename(tree: dict[str, Any]) -> dict[str, Any]:
    ...     tree["speed"] = tree.pop("v").astype(np.float32)
    ...     return tree
    """

    def register(function: M) -> M:
        registered = _migrations.setdefault((name, version), function)
        if _where(registered) != _where(function):
            raise ValueError(
                f"{name!r} version {version} already has a migration, {_where(registered)}; "
                f"{_where(function)} cannot be registered"
            )
        _migrations[name, version] = function  # the module may have been reloaded
        return function

    return register


def _where(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


@frozen
class Step:
    """One step of a migration: what leads from `version` to the next.

    First the function runs, if there is one; then `added` fields that are still missing get their
    defaults, and `removed` ones that still exist are dropped.
    """

    version: int
    function: Migration | None
    added: tuple[str, ...]
    removed: tuple[str, ...]

    def __str__(self) -> str:
        parts = [_where(self.function)] if self.function else []
        parts += [f"{name} added" for name in self.added]
        parts += [f"{name} removed" for name in self.removed]
        return ", ".join(parts)


def step_from(cls: Any, version: int) -> Step | None:
    """The step from this version of the class's schema to the next; None if nothing leads there."""
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
    """Build a checkpoint of class `cls` from the tree and arrays of an older version.

    Raises `SchemaMismatch` if the file is of another schema, of a version that nothing leads from,
    or of a newer one, for which `newer` is what to install; `InvalidCheckpoint` if a migration
    fails, or if what it returns does not fit the class.
    """
    path = _path(stored, cls, newer)
    with refused_as_invalid(cls):
        tree = insert(tree, arrays)
    if type(tree) is not dict:
        what = f"the tree is a {type(tree).__name__}, not that of a class"
        raise InvalidCheckpoint(what, where=type_name(cls), hint="use an older checkpoint")
    for step in path:
        tree = _apply(step, tree, stored.name, cls)
    structure = hooks(cast(Any, cls))[1]
    try:
        with refused_as_invalid(cls):
            return cast("C", structure(_read_all(tree, stored)))
    except CorruptCheckpoint:
        raise
    except InvalidCheckpoint as error:
        error.hint = f"check the migrations of {stored.name} from version {stored.version} first"
        raise


def _path(stored: Schema, cls: Any, newer: str) -> list[Step]:
    expected = schema_of(cls)
    if stored.name != expected.name or stored.version == expected.version:
        raise mismatch(stored, cls)
    if stored.version > expected.version:
        raise SchemaMismatch(
            f"the checkpoint holds {stored.name} version {stored.version}, "
            f"and this program knows it up to version {expected.version}",
            hint=f"install {newer or 'the version of the program that wrote it'}",
        )
    path = []
    for version in range(stored.version, expected.version):
        step = step_from(cls, version)
        if step is None:
            raise SchemaMismatch(
                f"the checkpoint holds {stored.name} version {stored.version}, the class is "
                f"version {expected.version}, and nothing leads from version {version} to "
                f"{version + 1}",
                hint=f"write a function under @migrate({stored.name!r}, {version}) and import it, "
                "or declare what changed in @checkpoint(added=..., removed=...)",
            )
        path.append(step)
    return path


def _apply(step: Step, tree: Tree, name: str, cls: Any) -> Tree:
    if step.function is not None:
        where = _where(step.function)
        try:
            tree = step.function(tree)
        except CheckpointableError:
            raise
        except Exception as error:  # a user's function may raise anything
            raise InvalidCheckpoint(
                f"the migration of {name} from version {step.version} failed: {error!r}",
                where=where,
                hint="fix the function; the file is valid",
            ) from error
        if not isinstance(tree, dict):
            raise InvalidCheckpoint(
                f"the migration of {name} from version {step.version} returned "
                f"{type(tree).__name__}, not the tree",
                where=where,
                hint="return the tree at the end of the function",
            )
    fields = {field.name: field for field in fields_of(cls)}
    for added in step.added:
        if added not in tree:
            field = fields[added]
            assert field.make_default is not None  # schema_of has checked it
            with refused_as_invalid(cls, added):
                tree[added] = hooks(field.type)[0](field.make_default())
    for removed in step.removed:
        tree.pop(removed, None)
    return tree


def _read_all(wire: Any, stored: Schema) -> Any:
    """Read the remaining arrays, one after another."""
    if isinstance(wire, LazyArray):
        try:
            return np.asarray(wire)
        except CheckpointableError:
            raise
        except Exception as error:  # a user's migration may compute it
            what = f"an array of {stored.name} version {stored.version} cannot be migrated"
            raise InvalidCheckpoint(f"{what} to {wire!r}: {error!r}") from error
    if isinstance(wire, dict):
        return {key: _read_all(value, stored) for key, value in wire.items()}
    return [_read_all(value, stored) for value in wire] if isinstance(wire, list) else wire
