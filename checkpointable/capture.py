"""Between a kernel's attributes and a checkpoint object, by field name.

`capture` is what most kernels' `checkpoint` returns, `reinstate` what their `restore` awaits.
"""

import dataclasses
import functools
import typing
from typing import Any, TypeVar, cast

import attrs
import numpy as np

from checkpointable.arrays import (
    check_box,
    is_array,
    is_on_device,
    is_writable,
    layout,
    on_host,
    overwrite,
    owned,
    replaced_like,
    staging_in_use,
)
from checkpointable.errors import InvalidCheckpoint, InvalidKernel, reason
from checkpointable.schema import Shard, fields_of, schema_of, shard_fields, type_name
from checkpointable.threads import in_thread
from checkpointable.tree import (
    Refused,
    extract,
    from_tree,
    hooks,
    insert,
    refused_as_invalid,
    to_tree,
)

C = TypeVar("C")
_MISSING: Any = object()


async def capture(cls: type[C], kernel: object) -> C:
    """Make a checkpoint of class `cls` from the kernel's attributes of the same names.

    Every value is an owned copy: arrays are copied to host memory; lists, dicts and nested objects
    are rebuilt. Converters and validators of `cls` run.

    Device arrays are copied when the stream has come so far that they are computed on: the kernel's
    attribute `stream` (of Numba's, CuPy's or torch's), else the array's own, else the default one.
    Within a `Checkpointer`'s save they stay on their devices as far as there is room: they are
    `LazyArray`s, then, which `numpy.asarray` brings to the host.

    Raises `InvalidKernel` if an attribute is missing, `InvalidCheckpoint` (with the path) if a
    value is not of the declared type.

    >>> import asyncio, attrs
    >>> class Counter:
    ...     count = 3
    >>> @attrs.frozen
    ... class CounterCheckpoint:
    ...     count: int
    >>> asyncio.run(capture(CounterCheckpoint, Counter()))
    CounterCheckpoint(count=3)
    """
    schema_of(cls)
    values = {field.name: _attribute(kernel, field.name, cls) for field in fields_of(cls)}
    tree, arrays = to_tree(_construct(cls, values), cls)
    return from_tree(tree, await _copies(arrays, kernel), cls)


async def _copies(arrays: dict[str, Any], kernel: object) -> dict[str, Any]:
    on_device = {name: array for name, array in arrays.items() if is_on_device(array)}
    copies: dict[str, Any] = {}
    wait = None
    if on_device:
        from checkpointable.arrays.cuda import memory, snapshot  # which import Numba

        live = {name: memory.device_array(array) for name, array in on_device.items()}
        stream = getattr(kernel, "stream", None)
        copies, wait = snapshot.begin(live, stream, staging_in_use())
    try:
        host = {name: owned(a) for name, a in arrays.items() if name not in on_device}
    finally:
        if wait is not None:
            await in_thread(wait)
    return host | copies


async def reinstate(checkpoint: object, kernel: object, cls: Any = None) -> None:
    """Put a checkpoint's fields back into the kernel's attributes of the same names.

    Arrays are copied into the arrays that the kernel already has, on whatever device, in the order
    of its stream, as `capture` does; dtype and shape of all of them are checked first. Arrays of
    JAX, which never change, are replaced by others at the same place. Other values are set as owned
    copies. All or nothing: on an error the kernel is as it was. `cls` is the checkpoint's class if
    that is generic, with its types: `Box[int]`.

    Of a `Shard` the kernel gets its own box, into the `local` array of the `Shard` that its
    attribute gives. A field that holds no array yet, or holds arrays in lists or objects of another
    form than now, gets host arrays of its own.

    Raises `InvalidCheckpoint` if an array differs in dtype or shape from the kernel's, if a field
    was never set, or if a validator refuses what it holds now; `InvalidKernel` if an attribute is
    missing or cannot be set.

    >>> import asyncio, attrs
    >>> @attrs.frozen
    ... class CounterCheckpoint:
    ...     count: int
    >>> class Counter:
    ...     count = 0
    >>> kernel = Counter()
    >>> asyncio.run(reinstate(CounterCheckpoint(count=3), kernel)); kernel.count
    3
    """
    values, into = _plan(checkpoint, kernel, cls or type(checkpoint))
    on_host = [(target, source) for target, source in into if not is_on_device(target)]
    write_device = None
    if len(on_host) < len(into):
        from checkpointable.arrays.cuda import memory, snapshot  # which import Numba

        device = [(memory.device_array(t), source) for t, source in into if is_on_device(t)]
        stream = getattr(kernel, "stream", None)
        write_device = functools.partial(snapshot.write_back, device, stream)
    _set_all(kernel, values)
    for target, source in on_host:
        overwrite(target, source)
    if write_device is not None:
        await in_thread(write_device())


def check_fit(checkpoint: object, kernel: object, cls: Any = None) -> None:
    """Raise what `reinstate` would raise, and change nothing.

    For a `restore` that has checks of its own, about values: after this it can rely on the class,
    on every field being there, and on dtypes and shapes.

    >>> import attrs
    >>> @attrs.frozen
    ... class WalkCheckpoint:
    ...     at: np.ndarray
    >>> class Walk:
    ...     at = np.zeros(3)
    >>> check_fit(WalkCheckpoint(np.zeros(4)), Walk())
    Traceback (most recent call last):
        ...
    checkpointable.errors.InvalidCheckpoint: the checkpoint holds float64 of shape (4,), the kernel has float64 of shape (3,)
      where: Walk.at
      hint: make the kernel with the parameters of the one that was saved
    """  # noqa: E501
    _plan(checkpoint, kernel, cls or type(checkpoint))


def arrays_of(cls: Any, kernel: object) -> dict[str, Any]:
    """The kernel's own arrays, by the names that they have in a file of class `cls`.

    >>> import attrs
    >>> @attrs.frozen
    ... class WalkCheckpoint:
    ...     at: np.ndarray
    >>> class Walk:
    ...     at = np.zeros(3)
    >>> arrays_of(WalkCheckpoint, Walk())
    {'at': array([0., 0., 0.])}
    """
    schema_of(cls)
    found: dict[str, Any] = {}
    for field in fields_of(cls):
        found |= _live_arrays(_attribute(kernel, field.name, cls), hooks(field.type)[0], field.name)
    return found


def _plan(
    checkpoint: object, kernel: object, cls: Any
) -> tuple[dict[str, Any], list[tuple[Any, Any]]]:
    """Check everything; say which attributes get which values, and which arrays go into which."""
    schema_of(cls)
    if not isinstance(checkpoint, typing.get_origin(cls) or cls):
        raise InvalidCheckpoint(
            f"a {type(checkpoint).__qualname__} where a {type_name(cls)} is expected",
            where=type(kernel).__qualname__,
        )
    _check_whole(checkpoint, cls)
    into: list[tuple[Any, Any]] = []  # an array of the kernel's, and what goes into it
    values: dict[str, Any] = {}
    shards = shard_fields(cls)
    for field in fields_of(cls):
        to_wire, from_wire = hooks(field.type)
        before = _attribute(kernel, field.name, cls)
        if field.name in shards:
            into.append(_plan_shard(getattr(checkpoint, field.name), before, kernel, field.name))
            continue
        with refused_as_invalid(cls, field.name):
            wire, arrays = extract(to_wire(getattr(checkpoint, field.name)), field.name)
        live = _live_arrays(before, to_wire, field.name) if arrays else {}
        if live:
            _check_kept(before, _attribute(kernel, field.name, cls), kernel, field.name)
        filled: dict[str, Any]
        filled = {name: owned(a) for name, a in arrays.items() if name not in live}
        for name in arrays.keys() & live.keys():
            where, target, source = f"{type(kernel).__qualname__}.{name}", live[name], arrays[name]
            _check_fit(where, target, source)
            new = None if is_writable(target) else replaced_like(target, source)
            if new is not None:
                filled[name] = new
            else:
                into.append((target, _source_for(target, source, where)))
        if filled or wire != {"$array": field.name}:
            filled = {name: filled.get(name, live.get(name)) for name in arrays}
            with refused_as_invalid(cls, field.name):
                values[field.name] = from_wire(insert(wire, filled))
    return values, into


def _plan_shard(given: Any, before: Any, kernel: object, name: str) -> tuple[Any, Any]:
    """The kernel's part of a global array, and what goes into it: the same box of what is given."""
    where = f"{type(kernel).__qualname__}.{name}"
    if not isinstance(before, Shard):
        hint = "give a Shard of its own array, the global shape, and where it begins"
        raise InvalidKernel("the kernel's attribute is no Shard", where=where, hint=hint)
    _check_kept(before.local, getattr(kernel, name).local, kernel, name)
    if given.shape != before.shape:
        raise InvalidCheckpoint(
            f"the checkpoint holds a global shape of {given.shape}, the kernel has {before.shape}",
            where=where,
            hint="make the kernel with the parameters of the one that was saved",
        )
    check_box((given.offset, tuple(given.local.shape)), given.shape, where)
    try:
        source = given[before.box]
    except IndexError as error:
        what = f"it has not the part of this rank: {error}"
        raise InvalidCheckpoint(what, where=where) from error
    _check_fit(where, before.local, source)
    return before.local, _source_for(before.local, source, where)


def _source_for(target: Any, source: Any, where: str) -> Any:
    """What is copied into an array of the kernel's: on the host, if that is."""
    if not is_writable(target):
        raise InvalidKernel("the kernel's array is read-only", where=where, hint="give it a copy")
    return source if is_on_device(target) else on_host(source)


def _check_whole(checkpoint: Any, cls: Any) -> None:
    """Refuse a checkpoint that lacks a field, or of which something has changed for the worse."""
    for field in fields_of(cls):
        where = f"{type_name(cls)}.{field.name}"
        value = getattr(checkpoint, field.name, _MISSING)
        if value is _MISSING:
            raise InvalidCheckpoint("the field was never set", where=where)
        if field.attribute is not None and field.attribute.validator is not None:
            try:
                field.attribute.validator(checkpoint, field.attribute, value)
            except Exception as error:  # whatever a user's validator raises
                what = f"the validator refuses it: {reason(error)}"
                raise InvalidCheckpoint(what, where=where) from error


def _attribute(kernel: object, name: str, cls: Any) -> Any:
    value = getattr(kernel, name, _MISSING)
    if value is _MISSING:
        kernel_name = type(kernel).__qualname__
        raise InvalidKernel(
            f"the kernel has no attribute {name!r}, which its checkpoint holds",
            where=f"{kernel_name}.{name}",
            hint=f"set it in {kernel_name}.__init__, or write checkpoint() and restore() by hand",
        )
    return value


def _construct(cls: type[C], values: dict[str, Any]) -> C:
    """Build the class as its author would, without copying: converters and validators run."""
    origin: Any = typing.get_origin(cls) or cls
    late = {}
    if attrs.has(origin):
        fields = attrs.fields(origin)
        late = {a.name: values.pop(a.name) for a in fields if not a.init}
        values = {a.alias: values[a.name] for a in fields if a.init}
    elif dataclasses.is_dataclass(origin):
        late = {f.name: values.pop(f.name) for f in dataclasses.fields(origin) if not f.init}
    try:
        made = cast(Any, origin)(**values)
    except Exception as error:  # whatever a user's converter or validator raises
        raise InvalidCheckpoint(
            f"the kernel's values are refused: {reason(error)}", where=type_name(cls)
        ) from error
    for name, value in late.items():
        object.__setattr__(made, name, value)
    return cast("C", made)


def _live_arrays(value: Any, to_wire: Any, path: str) -> dict[str, Any]:
    """The arrays that the kernel has now in this field; none where its value is of another form."""
    try:
        return extract(to_wire(value), path)[1]
    except Refused:
        return {path: value} if is_array(value) else {}


def _check_kept(before: Any, again: Any, kernel: object, name: str) -> None:
    """Refuse a property that gives a copy: what is written into that would be lost."""
    on_host = isinstance(before, np.ndarray) and isinstance(again, np.ndarray)
    if on_host and before.size and not np.may_share_memory(before, again):
        raise InvalidKernel(
            "the attribute gives another array each time, so nothing can be restored into it",
            where=f"{type(kernel).__qualname__}.{name}",
            hint="name the checkpoint's field after the array itself, or write restore() by hand",
        )


def _check_fit(where: str, target: Any, source: Any) -> None:
    have, given = layout(target), layout(source)
    if have != given:
        raise InvalidCheckpoint(
            f"the checkpoint holds {given[0]} of shape {given[1]}, "
            f"the kernel has {have[0]} of shape {have[1]}",
            where=where,
            hint="make the kernel with the parameters of the one that was saved",
        )


def _set_all(kernel: object, values: dict[str, Any]) -> None:
    before = {name: getattr(kernel, name) for name in values}
    for name, value in values.items():
        try:
            setattr(kernel, name, value)
        except Exception as error:  # a read-only property, a frozen class, a setter that refuses
            for done, old in before.items():
                if done == name:
                    break
                setattr(kernel, done, old)
            raise InvalidKernel(
                f"the attribute cannot be set: {error}",
                where=f"{type(kernel).__qualname__}.{name}",
                hint="give the property a setter, or write restore() by hand",
            ) from error
