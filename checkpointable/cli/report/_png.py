"""Maps as PNG, with the standard library only."""

import base64
import struct
import zlib
from typing import Any

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Of viridis, which is even to the eye, and to those that see no red: every eighth of it.
_ANCHORS = np.array(
    [
        (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141),
        (39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37),
    ]
)  # fmt: skip
_NAN = (220, 20, 60)


def coloured(values: Any, low: float, high: float, nans: Any = None) -> Any:
    """Numbers from `low` to `high` as RGB, dark to light; NaN as red.

    >>> coloured(np.array([[0.0, 2.0, np.nan]]), 0, 2).tolist()
    [[[68, 1, 84], [253, 231, 37], [220, 20, 60]]]
    """
    with np.errstate(invalid="ignore", over="ignore"):
        share = (values / 2 - low / 2) / ((high / 2 - low / 2) or 1.0)  # halves do not overflow
    share = np.clip(np.nan_to_num(share, nan=0.5, posinf=1, neginf=0), 0, 1)
    at = np.linspace(0, 1, len(_ANCHORS))
    parts = [np.interp(share, at, _ANCHORS[:, part]) for part in range(3)]
    colours = np.rint(np.stack(parts, axis=-1)).astype(np.uint8)
    colours[np.isnan(values) if nans is None else nans] = _NAN
    return colours


def png(colours: Any) -> bytes:
    """Rows of RGB as a PNG."""
    height, width, _ = colours.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each begins with its filter type, 0
    rows[:, 1:] = colours.reshape(height, -1)
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", size), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def data_uri(image: bytes) -> str:
    """An image as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"
