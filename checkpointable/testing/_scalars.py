"""Strategies for scalars, the hard ones on purpose, within what a validator allows."""

import datetime
import functools
import math
import operator
from collections.abc import Callable
from decimal import Decimal
from enum import Enum, Flag
from pathlib import Path, PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from types import NoneType
from typing import Any
from uuid import UUID

import numpy as np
from hypothesis import strategies as st

from checkpointable.testing._arrays import numpy_scalars
from checkpointable.testing._limits import Limits

text = st.text(st.characters(exclude_categories=()))  # lone surrogates too
_offsets = st.timedeltas(datetime.timedelta(hours=-23), datetime.timedelta(hours=23))
_zones: st.SearchStrategy[datetime.tzinfo | None] = st.one_of(
    st.none(),
    st.timezones(),
    st.builds(datetime.timezone, _offsets),
    st.builds(datetime.timezone, _offsets, text),
)
_path_text = text.map(lambda s: s.replace("\0", ""))
_paths: dict[type[PurePath], st.SearchStrategy[PurePath]] = {
    cls: _path_text.map(cls) for cls in (Path, PurePosixPath, PureWindowsPath)
}
NOTHING: st.SearchStrategy[Any] = st.nothing()


def _integers(limits: Limits) -> st.SearchStrategy[Any]:
    if (limits.low, limits.high) == (-math.inf, math.inf):
        return st.integers() | st.integers(-(2**70), 2**70) | st.booleans()
    low = None if limits.low == -math.inf else math.ceil(limits.low)
    high = None if limits.high == math.inf else math.floor(limits.high)
    if low is not None and limits.open_low and low == limits.low:
        low += 1
    if high is not None and limits.open_high and high == limits.high:
        high -= 1
    empty = low is not None and high is not None and low > high
    return NOTHING if empty else st.integers(low, high)


def _floats(limits: Limits) -> st.SearchStrategy[Any]:
    if (limits.low, limits.high) == (-math.inf, math.inf):
        return st.floats() | st.integers(-5, 5) | st.floats().map(np.float64)
    low, high = float(limits.low), float(limits.high)
    found = st.floats(
        None if limits.low == -math.inf else low,
        None if limits.high == math.inf else high,
        exclude_min=limits.open_low and low == limits.low,
        exclude_max=limits.open_high and high == limits.high,
    )
    whole = _integers(limits)
    return found if whole is NOTHING else found | found.map(np.float64) | whole


def _texts(limits: Limits) -> st.SearchStrategy[Any]:
    if limits.pattern is not None:
        return st.from_regex(limits.pattern, fullmatch=limits.whole)
    if limits.min_len == 0 and limits.max_len is None:
        return text
    characters = st.characters(exclude_categories=())
    return st.text(characters, **limits.sizes(usual=20))


def _bytes(limits: Limits) -> st.SearchStrategy[Any]:
    if limits.pattern is not None:
        return st.from_regex(limits.pattern, fullmatch=limits.whole)
    return st.binary(**limits.sizes(usual=20))


_MAKERS: dict[type, Callable[[Limits], st.SearchStrategy[Any]]] = {
    int: _integers,
    float: _floats,
    str: _texts,
    bytes: _bytes,
}
_LEAVES: dict[type, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    complex: st.complex_numbers() | st.floats() | st.integers(-5, 5),
    NoneType: st.none(),
    datetime.datetime: st.datetimes(timezones=_zones, allow_imaginary=True),
    datetime.date: st.dates(),
    datetime.time: st.times(timezones=_zones),
    datetime.timedelta: st.timedeltas(),
    UUID: st.uuids(),
    Decimal: st.decimals(),
    **_paths,
    PurePath: st.one_of(*_paths.values()),
    # The concrete class of another system cannot be made on this one.
    PosixPath: _paths[Path] if isinstance(Path(), PosixPath) else NOTHING,
    WindowsPath: _paths[Path] if isinstance(Path(), WindowsPath) else NOTHING,
}


@functools.lru_cache(maxsize=1000)
def _numpy(tp: type[np.generic]) -> st.SearchStrategy[Any]:
    return numpy_scalars(tp)


def scalars(tp: type, limits: Limits) -> st.SearchStrategy[Any]:
    """Values of a scalar type, and those that PEP 484 promotes to it."""
    if tp in _MAKERS:
        try:
            return _MAKERS[tp](limits)
        except (OverflowError, ValueError):  # bounds that no float has, NaN: the validator decides
            return _MAKERS[tp](Limits())
    return _LEAVES[tp] if tp in _LEAVES else _numpy(tp)


def members(tp: type[Enum]) -> st.SearchStrategy[Any]:
    """Members of an enumeration; of flags, any combination."""
    named = list(tp.__members__.values())
    if not issubclass(tp, Flag):
        return st.sampled_from(named) if named else NOTHING
    none = tp(0)
    if not named:
        return st.just(none)
    some = st.lists(st.sampled_from(named), max_size=3)
    return some.map(lambda flags: functools.reduce(operator.or_, flags, none))
