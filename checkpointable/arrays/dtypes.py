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
_ML_DTYPES = frozenset(
    [
        "bfloat16",
        "float8_e3m4",
        "float8_e4m3",
        "float8_e4m3b11fnuz",
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
        "float6_e2m3fn",
        "float6_e3m2fn",
        "float4_e2m1fn",
        "int1",
        "int2",
        "int4",
        "uint1",
        "uint2",
        "uint4",
        "complex32",
        "bcomplex32",
    ]
)


def dtype_to_json(dtype: np.dtype[Any], where: str = "") -> Any:
    """Say a dtype in JSON, such that `dtype_from_json` gives the same, to the last padding byte.

    Raises `InvalidCheckpoint` for one that holds references, or that NumPy or ml_dtypes (of a
    known name) did not define.

    >>> dtype_to_json(np.dtype(">f8")), dtype_to_json(np.dtype("M8[ns]"))
    ('>f8', '<M8[ns]')
    """
    try:
        # Equal records may differ in what they say, others not.
        simple = dtype.names is None and dtype.subdtype is None
        return _said_before(dtype) if simple else _said(dtype)
    except Exception:  # NumPy's, of any class: all mean that it cannot be said
        pass
    hint = "use a numeric, fixed-width string, datetime or structured dtype"
    raise InvalidCheckpoint(f"arrays of dtype {dtype} cannot be stored", where=where, hint=hint)


def _said(dtype: np.dtype[Any]) -> Any:
    said = _say(dtype)
    if _read_exactly(said) != dtype:
        raise ValueError
    return said


_said_before = lru_cache(_said)


def dtype_from_json(said: Any, where: str = "") -> np.dtype[Any]:
    """Give the dtype that `dtype_to_json` said.

    Raises only `CorruptCheckpoint`, whatever the JSON; `InvalidCheckpoint` without ml_dtypes.
    """
    try:
        return _read_before(said) if type(said) is str else _read_exactly(said)
    except ImportError as error:
        what = f"a dtype of ml_dtypes is needed: {error}"
        raise InvalidCheckpoint(what, where=where, hint="pip install -U ml_dtypes") from error
    except Exception:  # NumPy's, of any class: the JSON is hostile
        pass
    raise CorruptCheckpoint("unknown dtype", where=where, hint="use an older checkpoint")


def _read_exactly(said: Any) -> np.dtype[Any]:
    dtype = _read(said)
    if _say(dtype) != said:
        raise ValueError
    return dtype


_read_before = lru_cache(_read_exactly)


def _say(dtype: np.dtype[Any]) -> Any:
    if dtype.subdtype is not None:
        return {"base": _say(dtype.subdtype[0]), "shape": [*dtype.subdtype[1]]}
    if dtype.names is not None:
        fields: Any = dtype.fields
        entries = [fields[name] for name in dtype.names]
        titles = [part[2] if len(part) == 3 else None for part in entries]
        return {
            "names": [*dtype.names],
            "formats": [_say(part[0]) for part in entries],
            "offsets": [part[1] for part in entries],
            "titles": titles if any(title is not None for title in titles) else None,
            "itemsize": dtype.itemsize,
            "aligned": dtype.isalignedstruct,
        }
    if dtype.type.__module__ == "ml_dtypes":
        return dtype.type.__name__
    # A long double has the same name on every machine, but not the same bits: say how many.
    return f"{dtype.str}:{np.finfo(dtype).nmant}" if dtype.char in "gG" else dtype.str


def _read(said: Any, depth: int = 0) -> np.dtype[Any]:
    if depth > 16:
        raise ValueError
    if type(said) is str:
        if said in _ML_DTYPES:
            import ml_dtypes

            if not hasattr(ml_dtypes, said):
                raise ImportError(f"ml_dtypes has no {said}")
            known: np.dtype[Any] = np.dtype(getattr(ml_dtypes, said))
            return known
        if not _SIMPLE.fullmatch(said):
            raise ValueError
        dtype: np.dtype[Any] = np.dtype(said.partition(":")[0])
    elif said.keys() == {"base", "shape"}:
        base, shape = _read(said["base"], depth + 1), tuple(map(_int, said["shape"]))
        _int(math.prod(shape) * base.itemsize)
        dtype = np.dtype((base, shape))
    else:
        parts: Any = {key: said[key] for key in ("names", "aligned")}
        parts["formats"] = [_read(part, depth + 1) for part in said["formats"]]
        parts["offsets"] = [*map(_int, said["offsets"])]
        parts["itemsize"] = _int(said["itemsize"])
        if said["titles"] is not None:
            parts["titles"] = said["titles"]
        if not {type(title) for title in said["titles"] or ()} <= {str, type(None)}:
            raise ValueError
        if type(said["aligned"]) is not bool:
            raise ValueError
        dtype = np.dtype(parts)
    _int(dtype.itemsize)
    return dtype


def _int(number: Any) -> int:
    if type(number) is not int or not 0 <= number < 2**31:
        raise ValueError
    return number
