"""A kernel's attributes to a checkpoint object, and back, by field name.

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
_SAME_PARAMETERS = "make the kernel with the parameters of the one that was saved"


async def capture(cls: type[C], kernel: object) -> C:
    """Return a checkpoint of class `cls`, made from the kernel's attributes of the same names.

    The checkpoint shares nothing with the kernel: arrays are copied to host memory; lists, dicts
    and nested objects are rebuilt. Converters and validators of `cls` run.

    A device array is copied in stream order, after the kernels launched before this call: on the
    kernel's attribute `stream` (a stream of Numba, CuPy or torch, or a list of them, one for each
    device), else on the stream that its library knows; where none is known, all work on its device
    is waited for. Within a save by `Checkpointer` the copy stays on the device if there is room; it
    is then a `LazyArray`, which `numpy.asarray` brings to the host.

    Raises `InvalidKernel` if an attribute is missing, and `InvalidCheckpoint`, with the path, if a
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
    values = {field.name: _attribute(kernel, field.name) for field in fields_of(cls)}
    tree, arrays = to_tree(_construct(cls, values), cls)
    return from_tree(tree, await _copies(arrays, kernel), cls)


async def _copies(arrays: dict[str, Any], kernel: object) -> dict[str, Any]:
    on_device = {name: array for name, array in arrays.items() if is_on_device(array)}
    if not on_device:
        return {name: owned(array) for name, array in arrays.items()}
    from checkpointable.arrays.cuda import memory, snapshot  # which import Numba
    from checkpointable.arrays.cuda.views import view_of

    stream = getattr(kernel, "stream", None)
    views = {name: view_of(array) for name, array in on_device.items()}
    for device in snapshot.unsettled(views.values(), stream):
        await in_thread(functools.partial(memory.synchronize, device))
    staging = staging_in_use()
    copies = snapshot.allocate(views, staging)
    if copies is None:  # off the event loop, since to pin memory takes long
        copies = await in_thread(lambda: snapshot.allocate_on_host(views, staging))
    wait = copies.begin(stream)
    try:
        host = {name: owned(a) for name, a in arrays.items() if name not in on_device}
    finally:
        await in_thread(wait)
    return host | copies.arrays


async def reinstate(checkpoint: object, kernel: object, cls: Any = None) -> None:
    """Restore the kernel's attributes from the checkpoint's fields of the same names.

    All or nothing: everything is checked before the first byte is written, and on an error the
    kernel is as it was.

    Arrays are copied into the arrays that the kernel already has, wherever these live, after a
    check of every dtype and shape; device arrays in stream order, as in `capture`. JAX arrays,
    which are immutable, are replaced by new ones on the same device. All other values are set as
    copies that share nothing with the checkpoint. Where the kernel has no array yet, or has lists
    or objects of another structure than the checkpoint, it gets new arrays on the host.

    For a `Shard` field the kernel's attribute is a `Shard` too: its box of the global array is
    copied into its `local` array.

    `cls` is needed only for a generic class, to give its types: `Box[int]`.

    Raises `InvalidCheckpoint` if an array differs in dtype or shape from the kernel's, if a field
    was never set, or if a validator refuses its current value; `InvalidKernel` if an attribute is
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
    values, writes = _plan(checkpoint, kernel, cls or type(checkpoint))
    on_host = [(target, source) for target, source in writes if not is_on_device(target)]
    write_device = None
    if len(on_host) < len(writes):
        from checkpointable.arrays.cuda import snapshot  # which imports Numba

        device = [(target, source) for target, source in writes if is_on_device(target)]
        stream = getattr(kernel, "stream", None)
        write_device = functools.partial(snapshot.write_back, device, stream, staging_in_use())
    _set_all(kernel, values)
    for target, source in on_host:
        overwrite(target, source)
    if write_device is not None:
        await in_thread(write_device())


def check_fit(checkpoint: object, kernel: object, cls: Any = None) -> None:
    """Raise what `reinstate` would raise, and change nothing.

    For a `restore` that adds checks of values: after this call it can rely on the checkpoint's
    class, on every field being set, and on every dtype and shape.

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
    """The kernel's own arrays, under the names that they have in a file of class `cls`.

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
    arrays: dict[str, Any] = {}
    for field in fields_of(cls):
        arrays |= _arrays_in(_attribute(kernel, field.name), hooks(field.type)[0], field.name)
    return arrays


def _plan(
    checkpoint: object, kernel: object, cls: Any
) -> tuple[dict[str, Any], list[tuple[Any, Any]]]:
    """Check everything; return the attributes to set, and the arrays to write as (target, source).

    Nothing is changed here.
    """
    schema_of(cls)
    if not isinstance(checkpoint, typing.get_origin(cls) or cls):
        raise InvalidCheckpoint(
            f"expected {type_name(cls)}, got {type(checkpoint).__qualname__}",
            where=type(kernel).__qualname__,
        )
    _check_fields(checkpoint, cls)
    writes: list[tuple[Any, Any]] = []
    values: dict[str, Any] = {}
    shards = shard_fields(cls)
    for field in fields_of(cls):
        to_wire, from_wire = hooks(field.type)
        current = _attribute(kernel, field.name)
        if field.name in shards:
            writes.append(_plan_shard(getattr(checkpoint, field.name), current, kernel, field.name))
            continue
        with refused_as_invalid(cls, field.name):
            wire, arrays = extract(to_wire(getattr(checkpoint, field.name)), field.name)
        targets = _arrays_in(current, to_wire, field.name) if arrays else {}
        if targets:
            _check_stable(current, _attribute(kernel, field.name), kernel, field.name)
        new: dict[str, Any]
        new = {name: owned(a) for name, a in arrays.items() if name not in targets}
        for name in arrays.keys() & targets.keys():
            where, target, source = _where(kernel, name), targets[name], arrays[name]
            _check_layout(where, target, source)
            replacement = None if is_writable(target) else replaced_like(target, source)
            if replacement is not None:
                new[name] = replacement
            else:
                writes.append((target, _source_for(target, source, where)))
        if new or wire != {"$array": field.name}:
            filled = {name: new.get(name, targets.get(name)) for name in arrays}
            with refused_as_invalid(cls, field.name):
                values[field.name] = from_wire(insert(wire, filled))
    return values, writes


def _plan_shard(stored: Any, current: Any, kernel: object, name: str) -> tuple[Any, Any]:
    """The kernel's part of a global array, and the same box of the stored one."""
    where = _where(kernel, name)
    if not isinstance(current, Shard):
        hint = "give a Shard of its own array, the global shape, and where it begins"
        raise InvalidKernel("the kernel's attribute is not a Shard", where=where, hint=hint)
    _check_stable(current.local, getattr(kernel, name).local, kernel, name)
    if stored.shape != current.shape:
        raise InvalidCheckpoint(
            f"the checkpoint holds a global shape of {stored.shape}, "
            f"the kernel has {current.shape}",
            where=where,
            hint=_SAME_PARAMETERS,
        )
    check_box((stored.offset, tuple(stored.local.shape)), stored.shape, where)
    try:
        source = stored[current.box]
    except IndexError as error:
        raise InvalidCheckpoint(f"it lacks this rank's part: {error}", where=where) from error
    _check_layout(where, current.local, source)
    return current.local, _source_for(current.local, source, where)


def _source_for(target: Any, source: Any, where: str) -> Any:
    """What to copy into one of the kernel's arrays; it is on the host if the target is."""
    if not is_writable(target):
        raise InvalidKernel("the kernel's array is read-only", where=where, hint="give it a copy")
    return source if is_on_device(target) else on_host(source)


def _check_fields(checkpoint: Any, cls: Any) -> None:
    """Refuse a checkpoint that lacks a field, or that changed into what a validator refuses."""
    for field in fields_of(cls):
        where = f"{type_name(cls)}.{field.name}"
        value = getattr(checkpoint, field.name, _MISSING)
        if value is _MISSING:
            raise InvalidCheckpoint("the field was never set", where=where)
        if field.attribute is not None and field.attribute.validator is not None:
            try:
                field.attribute.validator(checkpoint, field.attribute, value)
            except Exception as error:  # a user's validator may raise anything
                what = f"the validator refuses it: {reason(error)}"
                raise InvalidCheckpoint(what, where=where) from error


def _where(kernel: object, name: str) -> str:
    return f"{type(kernel).__qualname__}.{name}"


def _attribute(kernel: object, name: str) -> Any:
    value = getattr(kernel, name, _MISSING)
    if value is _MISSING:
        raise InvalidKernel(
            f"the kernel has no attribute {name!r}, which its checkpoint holds",
            where=_where(kernel, name),
            hint=f"set it in {_where(kernel, '__init__')}, or write checkpoint() and restore() "
            "by hand",
        )
    return value


def _construct(cls: type[C], values: dict[str, Any]) -> C:
    """Build the class as its author would, without copies: converters and validators run."""
    origin: Any = typing.get_origin(cls) or cls
    late = {}
    if attrs.has(origin):
        fields = attrs.fields(origin)
        late = {a.name: values.pop(a.name) for a in fields if not a.init}
        values = {a.alias: values[a.name] for a in fields if a.init}
    elif dataclasses.is_dataclass(origin):
        late = {f.name: values.pop(f.name) for f in dataclasses.fields(origin) if not f.init}
    try:
        checkpoint = cast(Any, origin)(**values)
    except Exception as error:  # a user's converter or validator may raise anything
        raise InvalidCheckpoint(
            f"the kernel's values are refused: {reason(error)}", where=type_name(cls)
        ) from error
    for name, value in late.items():
        object.__setattr__(checkpoint, name, value)
    return cast("C", checkpoint)


def _arrays_in(value: Any, to_wire: Any, path: str) -> dict[str, Any]:
    """The arrays in a field of the kernel; none if the value has another structure."""
    try:
        return extract(to_wire(value), path)[1]
    except Refused:
        return {path: value} if is_array(value) else {}


def _check_stable(value: Any, again: Any, kernel: object, name: str) -> None:
    """Refuse a property that returns a copy: what is written into that would be lost."""
    on_host = isinstance(value, np.ndarray) and isinstance(again, np.ndarray)
    if on_host and value.size and not np.may_share_memory(value, again):
        raise InvalidKernel(
            "the attribute is a new array each time it is read, so nothing can be restored into it",
            where=_where(kernel, name),
            hint="name the checkpoint's field after the array itself, or write restore() by hand",
        )


def _check_layout(where: str, target: Any, source: Any) -> None:
    expected, stored = layout(target), layout(source)
    if expected != stored:
        raise InvalidCheckpoint(
            f"the checkpoint holds {stored[0]} of shape {stored[1]}, "
            f"the kernel has {expected[0]} of shape {expected[1]}",
            where=where,
            hint=_SAME_PARAMETERS,
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
                where=_where(kernel, name),
                hint="give the property a setter, or write restore() by hand",
            ) from error
