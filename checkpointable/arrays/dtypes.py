"""Dtypes as JSON: lossless, and safe to read from a hostile file."""

import math
import re
from functools import lru_cache
from typing import Any

import numpy as np

from checkpointable.errors import CorruptCheckpoint, InvalidCheckpoint

_SIMPLE = re.compile(
    r"\|b1|\|[iu]1|[<>][iu][248]|[<>]f[248]|[<>]c(8|16)|\|[SV]\d{1,10}|<U\d{1,9}|>U\d{1,9}"
    r"|[<>][mM]8(\[\d{0,9}[a-zA-Z]{1,2}\])?|[<>][fc]\d\d:\d{1,3}"
)
_ML_DTYPES = frozenset([
    "bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float6_e2m3fn",
    "float6_e3m2fn", "float4_e2m1fn", "int1", "int2", "int4", "uint1", "uint2", "uint4",
    "complex32", "bcomplex32",
])  # fmt: skip


def dtype_to_json(dtype: np.dtype[Any], where: str = "") -> Any:
    """Return a dtype as JSON, from which `dtype_from_json` makes the same, padding included.

    Raises `InvalidCheckpoint` for a dtype that holds references, or that neither NumPy nor
    ml_dtypes (under a known name) defines.

    >>> dtype_to_json(np.dtype(">f8")), dtype_to_json(np.dtype("M8[ns]"))
    ('>f8', '<M8[ns]')
    """
    try:
        # Equal structured dtypes may differ in their JSON, so the cache is for the others.
        simple = dtype.names is None and dtype.subdtype is None
        return _encode_cached(dtype) if simple else _encode_checked(dtype)
    except Exception:  # NumPy raises any class: all mean that the dtype has no JSON
        pass
    hint = "use a numeric, fixed-width string, datetime or structured dtype"
    raise InvalidCheckpoint(f"arrays of dtype {dtype} cannot be stored", where=where, hint=hint)


def _encode_checked(dtype: np.dtype[Any]) -> Any:
    json = _encode(dtype)
    if _decode_checked(json) != dtype:
        raise ValueError
    return json


_encode_cached = lru_cache(_encode_checked)


def dtype_from_json(json: Any, where: str = "") -> np.dtype[Any]:
    """Return the dtype that `dtype_to_json` wrote.

    Raises only `CorruptCheckpoint`, whatever the JSON; `InvalidCheckpoint` if ml_dtypes is needed.
    """
    try:
        return _decode_cached(json) if type(json) is str else _decode_checked(json)
    except ImportError as error:
        what = f"a dtype of ml_dtypes is needed: {error}"
        raise InvalidCheckpoint(what, where=where, hint="pip install -U ml_dtypes") from error
    except Exception:  # NumPy raises any class: the JSON is hostile
        pass
    raise CorruptCheckpoint("unknown dtype", where=where, hint="use an older checkpoint")


def _decode_checked(json: Any) -> np.dtype[Any]:
    dtype = _decode(json)
    if _encode(dtype) != json:
        raise ValueError
    return dtype


_decode_cached = lru_cache(_decode_checked)


def _encode(dtype: np.dtype[Any]) -> Any:
    if dtype.subdtype is not None:
        return {"base": _encode(dtype.subdtype[0]), "shape": [*dtype.subdtype[1]]}
    if dtype.names is not None:
        fields: Any = dtype.fields
        entries = [fields[name] for name in dtype.names]
        titles = [part[2] if len(part) == 3 else None for part in entries]
        return {
            "names": [*dtype.names],
            "formats": [_encode(part[0]) for part in entries],
            "offsets": [part[1] for part in entries],
            "titles": titles if any(title is not None for title in titles) else None,
            "itemsize": dtype.itemsize,
            "aligned": dtype.isalignedstruct,
        }
    if dtype.type.__module__ == "ml_dtypes":
        return dtype.type.__name__
    # A long double has the same name on every machine, but not as many bits: add their number.
    return f"{dtype.str}:{np.finfo(dtype).nmant}" if dtype.char in "gG" else dtype.str


def _decode(json: Any, depth: int = 0) -> np.dtype[Any]:
    if depth > 16:
        raise ValueError
    if type(json) is str:
        if json in _ML_DTYPES:
            import ml_dtypes

            if not hasattr(ml_dtypes, json):
                raise ImportError(f"ml_dtypes has no {json}")
            known: np.dtype[Any] = np.dtype(getattr(ml_dtypes, json))
            return known
        if not _SIMPLE.fullmatch(json):
            raise ValueError
        dtype: np.dtype[Any] = np.dtype(json.partition(":")[0])
    elif json.keys() == {"base", "shape"}:
        base, shape = _decode(json["base"], depth + 1), tuple(map(_int, json["shape"]))
        _int(math.prod(shape) * base.itemsize)
        dtype = np.dtype((base, shape))
    else:
        parts: Any = {key: json[key] for key in ("names", "aligned")}
        parts["formats"] = [_decode(part, depth + 1) for part in json["formats"]]
        parts["offsets"] = [*map(_int, json["offsets"])]
        parts["itemsize"] = _int(json["itemsize"])
        if json["titles"] is not None:
            parts["titles"] = json["titles"]
        if not {type(title) for title in json["titles"] or ()} <= {str, type(None)}:
            raise ValueError
        if type(json["aligned"]) is not bool:
            raise ValueError
        dtype = np.dtype(parts)
    _int(dtype.itemsize)
    return dtype


def _int(number: Any) -> int:
    if type(number) is not int or not 0 <= number < 2**31:
        raise ValueError
    return number
