"""Scalars to JSON and back, exact in value and in type.

A value that JSON can hold stays as it is. Any other is an object with one key, a tag that begins
with `$`: `{"$float": "inf"}`, `{"$bytes": "aGk="}`. The tags are a fixed set, so decoding imports
nothing by a name from the file.
"""

import base64
import datetime
import re
import struct
import zoneinfo
from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path, PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any
from uuid import UUID

import numpy as np

from checkpointable.arrays import dtype_from_json, dtype_to_json

_PATHS: dict[str, type[PurePath]] = {
    "Path": Path,  # whatever it is on the machine that reads it
    "PurePosixPath": PurePosixPath,
    "PureWindowsPath": PureWindowsPath,
}
_ZONE_KEY = re.compile(r"[A-Za-z0-9_+\-]{1,64}(/[A-Za-z0-9_+\-]{1,64}){0,3}")
_MICROSECOND = datetime.timedelta(microseconds=1)


class Refused(Exception):
    """A value or its stored form is not valid; `path` grows on the way out, innermost first."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint
        self.path: list[str] = []

    @classmethod
    def got(cls, value: object, expected: object, hint: str = "") -> "Refused":
        """The refusal of a value for its type."""
        return cls(f"expected {expected}, got {type(value).__qualname__}", hint)

    def under(self, part: str) -> "Refused":
        """Add `part`, below which this happened, to the path."""
        self.path.append(part)
        return self


def encode(value: Any) -> Any:
    """Turn a scalar into JSON; `Refused` if its type cannot be stored."""
    encoder = _ENCODERS.get(type(value))
    if encoder is not None:
        return encoder(value)
    if isinstance(value, np.generic) and not isinstance(value, np.object_):
        return {"$numpy": _encode_numpy(value)}
    raise Refused(
        f"a {type(value).__qualname__} cannot be stored", "convert it to the type of the field"
    )


def decode(wire: Any) -> Any:
    """Turn JSON back into the scalar; `Refused` if it is not what `encode` writes."""
    kind = type(wire)
    if kind in (int, float, bool, str, type(None)):
        return wire
    if kind is dict and len(wire) == 1:
        ((tag, payload),) = wire.items()
        decoder = _DECODERS.get(tag)
        if decoder is not None:
            try:
                value = decoder(payload)
                canonical = encode(value) == wire
            except Refused:
                raise
            except Exception as error:
                raise Refused(f"{tag} holds {_short(payload)}: {error}") from error
            if not canonical:
                raise Refused(f"{tag} holds {_short(payload)}, which is not how it is stored")
            return value
    raise Refused(f"{_short(wire)} is not a scalar")


def _short(wire: Any) -> str:
    text = repr(wire) if type(wire) in (int, float, bool, str) else type(wire).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def expect(value: Any, *kinds: type) -> Any:
    """Return the value if its type is exactly one of `kinds`, else raise `Refused`."""
    if type(value) not in kinds:
        names = " or ".join(k.__name__ for k in kinds)
        raise Refused(f"expected {names}, got {_short(value)}")
    return value


def _items(payload: Any, length: int) -> list[Any]:
    items: list[Any] = expect(payload, list)
    if len(items) != length:
        raise Refused(f"expected {length} items, got {len(items)}")
    return items


def _encode_float(value: float) -> Any:
    if value - value == 0.0:
        return value
    text = {float("inf"): "inf", float("-inf"): "-inf"}.get(value)
    return {"$float": text or struct.pack(">d", value).hex()}  # a NaN keeps its sign and payload


def _decode_float(payload: Any) -> float:
    if expect(payload, str) in ("inf", "-inf"):
        return float(payload)
    (value,) = struct.unpack(">d", bytes.fromhex(payload))
    return float(value)


def _encode_str(value: str) -> Any:
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:  # lone surrogates, which UTF-8 and so JSON cannot hold
        return {"$str": base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()}
    return value


def _decode_bytes(payload: Any) -> bytes:
    return base64.b64decode(expect(payload, str), validate=True)


def _encode_zone(zone: datetime.tzinfo | None) -> Any:
    if zone is None:
        return None
    if type(zone) is datetime.timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return [offset // _MICROSECOND, *map(_encode_str, name)]
    if type(zone) is zoneinfo.ZoneInfo and zone.key is not None:
        return zone.key
    raise Refused(
        f"the time zone {zone!r} cannot be stored", "use datetime.timezone or zoneinfo.ZoneInfo"
    )


def _decode_zone(wire: Any) -> datetime.tzinfo | None:
    if wire is None:
        return None
    if type(wire) is str:
        if not _ZONE_KEY.fullmatch(wire):
            raise Refused(f"{_short(wire)} is not a time zone")
        return zoneinfo.ZoneInfo(wire)
    if type(wire) is not list or len(wire) not in (1, 2):
        raise Refused(f"{_short(wire)} is not a time zone")
    offset = datetime.timedelta(microseconds=expect(wire[0], int))
    return datetime.timezone(offset, *(expect(decode(n), str) for n in wire[1:]))


def _encode_time(tag: str, value: Any) -> Any:
    naive = value.replace(tzinfo=None, fold=0)
    return {tag: [naive.isoformat(), value.fold, _encode_zone(value.tzinfo)]}


def _decode_time(cls: Any, payload: Any) -> Any:
    text, fold, zone = _items(payload, 3)
    naive = cls.fromisoformat(expect(text, str))
    return naive.replace(fold=expect(fold, int), tzinfo=_decode_zone(zone))


def _encode_path(value: PurePath) -> Any:
    kind = "Path" if isinstance(value, Path) else type(value).__name__
    return {"$path": [kind, _encode_str(str(value))]}


def _decode_path(payload: Any) -> PurePath:
    kind, text = _items(payload, 2)
    return _PATHS[expect(kind, str)](expect(decode(text), str))


def _encode_numpy(value: np.generic) -> list[Any]:
    if type(value) is np.str_:
        return ["str", _encode_str(value[:])]  # str(value) drops trailing NULs
    if type(value) is np.bytes_:
        return ["bytes", base64.b64encode(bytes(value)).decode()]
    return [dtype_to_json(value.dtype), np.asarray(value).tobytes().hex()]


def _decode_numpy(payload: Any) -> np.generic:
    kind, data = _items(payload, 2)
    if kind == "str":
        return np.str_(expect(decode(data), str))
    if kind == "bytes":
        return np.bytes_(_decode_bytes(data))
    dtype, raw = dtype_from_json(kind), bytes.fromhex(expect(data, str))
    if len(raw) != dtype.itemsize or dtype.kind in "SU":
        raise Refused(f"{len(raw)} bytes are not a {dtype}")
    scalar: Any = np.zeros((), dtype)
    if raw:
        scalar.reshape(1).view(np.uint8)[:] = np.frombuffer(raw, np.uint8)
    value: np.generic = scalar[()]
    return value


_ENCODERS: dict[type, Callable[[Any], Any]] = {
    type(None): lambda v: v,
    bool: lambda v: v,
    int: lambda v: v if -(1 << 63) <= v < (1 << 64) else {"$int": hex(v)},
    float: _encode_float,
    complex: lambda v: {"$complex": [_encode_float(v.real), _encode_float(v.imag)]},
    str: _encode_str,
    bytes: lambda v: {"$bytes": base64.b64encode(v).decode()},
    datetime.datetime: lambda v: _encode_time("$datetime", v),
    datetime.date: lambda v: {"$date": v.isoformat()},
    datetime.time: lambda v: _encode_time("$time", v),
    datetime.timedelta: lambda v: {"$timedelta": [v.days, v.seconds, v.microseconds]},
    UUID: lambda v: {"$uuid": str(v)},
    Decimal: lambda v: {"$decimal": str(v)},
    PosixPath: _encode_path,
    WindowsPath: _encode_path,
    PurePosixPath: _encode_path,
    PureWindowsPath: _encode_path,
}

_DECODERS: dict[str, Callable[[Any], Any]] = {
    "$int": lambda p: int(expect(p, str), 16),
    "$float": _decode_float,
    "$complex": lambda p: complex(*(expect(decode(part), float) for part in _items(p, 2))),
    "$str": lambda p: _decode_bytes(p).decode("utf-8", "surrogatepass"),
    "$bytes": _decode_bytes,
    "$datetime": lambda p: _decode_time(datetime.datetime, p),
    "$date": lambda p: datetime.date.fromisoformat(expect(p, str)),
    "$time": lambda p: _decode_time(datetime.time, p),
    "$timedelta": lambda p: datetime.timedelta(*(expect(n, int) for n in _items(p, 3))),
    "$uuid": lambda p: UUID(expect(p, str)),
    "$decimal": lambda p: Decimal(expect(p, str)),
    "$path": _decode_path,
    "$numpy": _decode_numpy,
}


_MOST_COLLISIONS = 100

Hook = Callable[[Any], Any]
Hooks = Callable[[Any], tuple[Hook, Hook]]


def tagged(wire: Any, tag: str, length: int | None = None) -> list[Any]:
    """Return the list in `{tag: [...]}`; `Refused` if it is anything else."""
    if type(wire) is not dict or wire.keys() != {tag} or type(wire[tag]) is not list:
        raise Refused.got(wire, tag)
    items: list[Any] = wire[tag]
    return items if length is None else _items(items, length)


def check_hashes(keys: Iterable[Any]) -> None:
    """Refuse many keys of the same hash: n of them, made on purpose, take n² steps to look up."""
    counts = Counter(map(hash, keys)).most_common(1)
    if counts and counts[0][1] > _MOST_COLLISIONS:
        raise Refused(f"{counts[0][1]} items have the same hash")
