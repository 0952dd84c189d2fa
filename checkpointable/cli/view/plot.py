"""Pictures of arrays as a file, by matplotlib, which the extra `plot` installs."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from checkpointable.cli._shared import NotPossible, clean, usage_error
from checkpointable.cli.view.pictures import Picture
from checkpointable.stores import os_errors

CELLS = 800
"""The most rows and columns of a panel."""

_LARGEST = 1e300  # matplotlib computes with spans of more than the axis
_MOST_PANELS = 24
_SUFFIXES = (".png", ".svg", ".pdf")


def check_plot(path: Path) -> None:
    """Raise `NotPossible` without matplotlib, a usage error for an unknown suffix."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        hint = "install it with: pip install 'checkpointable[plot]'"
        raise NotPossible(f"--plot needs {error.name}, which is not installed", hint=hint) from None
    if path.suffix.lower() not in _SUFFIXES:
        raise usage_error(f"--plot {path}: give a name that ends in {', '.join(_SUFFIXES)}")


def plot(path: Path, title: str, panels: list[tuple[str, Picture]]) -> None:
    """Draw panels into one file, each with its name; an existing file is replaced."""
    from matplotlib.figure import Figure

    if not panels:
        raise NotPossible(
            "there are no numbers to draw", hint="see its dtype and shape with `show`"
        )
    panels = panels[:_MOST_PANELS]
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    wide = 6.4 if columns == 1 else 4.8
    figure = Figure((wide * columns, 3.9 * rows + 0.4), layout="constrained", dpi=120)
    figure.suptitle(_text(title), fontsize=10, parse_math=False)
    for number, (name, picture) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.set_title(_text(name + picture.part), fontsize=10, parse_math=False)
        (_line if picture.line else _map)(figure, axes, picture)
    with warnings.catch_warnings(), os_errors(path):
        warnings.simplefilter("ignore")  # about characters that the font lacks
        figure.savefig(path)


def _text(text: str) -> str:
    text = clean(text)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _line(figure: Any, axes: Any, picture: Picture) -> None:
    count = picture.shape[0]
    at = (np.arange(len(picture.mean)) + 0.5) * count / len(picture.mean) - 0.5
    low, mean, high = (_finite(part[:, 0]) for part in (picture.low, picture.mean, picture.high))
    if len(at) < count:
        axes.fill_between(at, low, high, alpha=0.25, linewidth=0, label="least to greatest")
        axes.plot(at, mean, linewidth=1, label="mean")
        axes.legend(fontsize=7, frameon=False)
    else:
        axes.plot(at, mean, linewidth=1, marker="." if count <= 60 else "")
    axes.set_xlabel("index", fontsize=8)
    _ticks(axes.xaxis)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    missing = at[picture.nans[:, 0]]
    if missing.size:
        bottom = np.full(len(missing), 0.02)
        axes.plot(
            missing, bottom, "x", color="crimson", markersize=4, label="NaN", clip_on=False,
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip
        axes.legend(fontsize=7, frameon=False)


def _map(figure: Any, axes: Any, picture: Picture) -> None:
    import matplotlib

    rows, columns = picture.shape
    colours = matplotlib.colormaps["viridis"].with_extremes(bad="crimson")
    image = axes.imshow(
        np.ma.masked_invalid(_finite(np.where(picture.nans, np.nan, picture.mean))),
        extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
        aspect="equal" if 1 / 4 <= rows / columns <= 4 else "auto",
        cmap=colours,
        interpolation="nearest",
    )
    bar = figure.colorbar(image, cax=axes.inset_axes([1.03, 0, 0.04, 1]))
    bar.ax.tick_params(labelsize=8)
    _ticks(axes.xaxis)
    _ticks(axes.yaxis)
    axes.tick_params(labelsize=8)
    notes = ["red: NaN"] if picture.nans.any() else []
    if picture.mean.size < rows * columns:
        notes.append(f"{rows} × {columns}, each cell a mean")
    axes.set_xlabel("; ".join(notes), fontsize=8)


def _ticks(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(5, integer=True))


def _finite(values: Any) -> Any:
    return np.where(np.isfinite(values), np.clip(values, -_LARGEST, _LARGEST), np.nan)
