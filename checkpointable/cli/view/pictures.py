"""Arrays reduced to pictures: each cell has the least, mean and greatest of what it covers.

They are read by rows, some MiB at a time, and verified on the way.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from attrs import frozen

from checkpointable.format import AnyArray, Opened, StoredArray, read_rows

_CHUNK = 4 << 20
_MOST_FIELDS = 8

Numbers = np.ndarray[Any, np.dtype[np.float64]]


@frozen(eq=False)
class Picture:
    """A small view of an array, or of a part of it that `part` names.

    `low`, `mean` and `high` have the rows and columns of the cells, and NaN where a cell has
    nothing else; `nans` says which have any. `shape` is what they cover; a line has one column.
    """

    part: str
    low: Numbers
    mean: Numbers
    high: Numbers
    nans: "np.ndarray[Any, np.dtype[np.bool]]"
    shape: tuple[int, int]
    line: bool

    def limits(self) -> tuple[float, float]:
        """The least and the greatest finite number; zeros if there are none."""
        both = np.concatenate([self.low.ravel(), self.high.ravel()])
        finite = both[np.isfinite(both)]
        return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def pictures(
    checkpoint: Opened, placed: StoredArray, height: int, width: int, *, every_axis: bool = False
) -> list[Picture]:
    """Views of an array of at most this many cells; none if it has no numbers.

    A line for one axis, a map for two. Of three it is the slice in the middle of the first, or
    with `every_axis` of each; of more, the middle of the first ones. A structured one has a view
    for each field that is a number.
    """
    fields = _fields(placed.dtype)[:_MOST_FIELDS]
    if not fields or not placed.nbytes or not placed.shape:
        return []
    shape, made = placed.shape[-3:], []
    axes = range(3) if len(shape) == 3 and every_axis else range(1)
    for label, pick in fields:
        for axis in axes:
            made.append(_View(label, pick, shape, axis, height, width))
    only_middle = len(placed.shape) >= 3 and not (every_axis and len(placed.shape) == 3)
    for begin, rows in _rows(checkpoint, placed, only_middle=only_middle):
        part, first = rows, begin
        for _ in range(len(placed.shape) - 3):
            part, first = part[part.shape[0] // 2], 0
        for view in made:
            view.add(first, part)
    return [view.picture() for view in made]


def _rows(
    checkpoint: Opened, placed: StoredArray, *, only_middle: bool
) -> Iterator[tuple[int, AnyArray]]:
    count = placed.shape[0]
    step = max(1, _CHUNK * count // placed.nbytes)
    ranges = [(count // 2, count // 2 + 1)] if only_middle else []
    for begin, end in ranges or [(b, min(b + step, count)) for b in range(0, count, step)]:
        yield begin, read_rows(checkpoint, placed.name, begin, end)


def _fields(dtype: np.dtype[Any]) -> list[tuple[str, Callable[[AnyArray], AnyArray]]]:
    """The numbers in a dtype: their labels, and how to get them."""
    if dtype.names is None:
        plain = dtype.subdtype is None and (
            dtype.kind in "biufc" or dtype.type.__module__ == "ml_dtypes"
        )
        return [("", lambda array: array)] if plain else []
    numbers = []
    for name in dtype.names:
        for label, pick in _fields(dtype[name]):
            numbers.append((f".{name}{label}", _then(name, pick)))
    return numbers


def _then(name: str, pick: Callable[[AnyArray], AnyArray]) -> Callable[[AnyArray], AnyArray]:
    return lambda array: pick(array[name])


def _floats(array: AnyArray) -> Numbers:
    if array.dtype.type.__module__ == "ml_dtypes":
        array = array.astype(np.complex64 if "complex" in array.dtype.name else np.float32)
    return (np.abs(array) if array.dtype.kind == "c" else array).astype(np.float64)


class _View:
    """One picture in the making."""

    def __init__(
        self,
        label: str,
        pick: Callable[[AnyArray], AnyArray],
        shape: tuple[int, ...],
        axis: int,
        height: int,
        width: int,
    ) -> None:
        self.pick, self.axis, self.ndim = pick, axis, len(shape)
        self.middle = shape[axis] // 2
        left = [n for i, n in enumerate(shape) if self.ndim < 3 or i != axis]
        self.rows, self.columns = (left[0], 1) if self.ndim == 1 else (left[0], left[1])
        cells = (width, 1) if self.ndim == 1 else (height, width)
        self.height, across = min(self.rows, cells[0]), min(self.columns, cells[1])
        self.starts = -(-np.arange(across) * self.columns // across)
        place = ", ".join(str(self.middle) if i == axis else ":" for i in range(self.ndim))
        self.part = label + (f"[{place}]" if self.ndim == 3 else "")
        full = (self.height, across)
        self.count, self.total = np.zeros(full), np.zeros(full)
        self.low, self.high = np.full(full, np.inf), np.full(full, -np.inf)
        self.nans = np.zeros(full, np.bool)

    def add(self, begin: int, array: AnyArray) -> None:
        """Add rows of the array's last three axes, from `begin`."""
        if self.ndim == 1:
            array = array[:, None]
        elif self.ndim == 3 and self.axis:
            array = array.take(self.middle, axis=self.axis)
        elif self.ndim == 3:
            if array.ndim == 2:  # the slice itself
                begin = 0
            elif begin <= self.middle < begin + len(array):
                array, begin = array[self.middle - begin], 0
            else:
                return
        part = _floats(self.pick(array))
        missing = np.isnan(part)
        cells = np.arange(begin, begin + len(part)) * self.height // self.rows
        with np.errstate(invalid="ignore", over="ignore"):
            for function, whole, values in (
                (np.add, self.count, (~missing).astype(np.float64)),
                (np.add, self.total, np.where(missing, 0, part)),
                (np.minimum, self.low, np.where(missing, np.inf, part)),
                (np.maximum, self.high, np.where(missing, -np.inf, part)),
                (np.logical_or, self.nans, missing),
            ):
                function.at(whole, cells, function.reduceat(values, self.starts, axis=1))

    def picture(self) -> Picture:
        """The picture of the rows added."""
        empty = self.count == 0
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(empty, np.nan, self.total / self.count)
        low, high = (np.where(empty, np.nan, cells) for cells in (self.low, self.high))
        shape = (self.rows, self.columns)
        return Picture(self.part, low, mean, high, self.nans, shape, self.ndim == 1)


# --- in a terminal -------------------------------------------------------------------------------

_BARS = "▁▂▃▄▅▆▇█"
_SHADES = "·░▒▓█"


def sketched(picture: Picture) -> str:
    """Lines of text: a sparkline of a line, shades for a map; `×` where there is any NaN.

    They are of the cells' means, from the least of these to the greatest.

    >>> import numpy as np
    >>> x = np.array([[0.0], [1.0], [7.0], [np.nan]])
    >>> print(sketched(Picture("", x, x, x, np.isnan(x), (4, 1), line=True)))
    ▁▂█×
    ▁ 0, █ 7, × NaN
    """
    marks = _BARS if picture.line else _SHADES
    finite = picture.mean[np.isfinite(picture.mean)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    scale = (high - low) or 1.0
    with np.errstate(invalid="ignore", over="ignore"):
        share = np.nan_to_num((picture.mean - low) / scale, nan=0.5, posinf=1, neginf=0)
    index = np.clip((share * len(marks)).astype(np.int64), 0, len(marks) - 1)
    cells = np.where(picture.nans, "×", np.array([*marks])[index])
    lines = ["".join(row) for row in (cells.T if picture.line else cells)]
    legend = [f"{marks[0]} {low:.4g}, {marks[-1]} {high:.4g}".strip()]
    legend += ["× NaN"] if picture.nans.any() else []
    legend += ["each a mean"] if picture.mean.size < picture.shape[0] * picture.shape[1] else []
    return "\n".join([*lines, ", ".join(legend)])


def cells_for(shape: tuple[int, ...], columns: int) -> tuple[int, int]:
    """Rows and columns of a map in a terminal, whose characters are twice as high as wide."""
    if len(shape) < 2:
        return 1, columns
    rows, across = shape[-2:]
    width = max(1, min(columns, across))
    return max(1, min(24, rows, round(width * rows / max(across, 1) / 2) or 1)), width
