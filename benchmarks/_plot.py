"""The benchmarks' figures as pictures: bars of ratios, and lines over sizes."""

from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

OURS, PEERS, LIMITS = "#1f6feb", "#8c959f", "#d0b46c"
SERIES = ("#d1495b", "#2e8b57", "#d08c2f", "#8c959f")  # of the lines that are not ours

APART = (  # colours of Okabe and Ito, which all can tell apart
    ("#000000", ":", "s"), ("#0072b2", "-.", "^"), ("#e69f00", "--", "D"),
    ("#009e73", (0, (5, 1, 1, 1, 1, 1)), "v"), ("#d55e00", "-", "o"),
)  # fmt: skip


def _pyplot() -> Any:
    """Without matplotlib None, and it says so."""
    try:
        matplotlib = import_module("matplotlib")
    except ImportError as error:
        print(f"no picture: {error}")
        return None
    matplotlib.use("Agg")
    return import_module("matplotlib.pyplot")


def bars(path: Path, title: str, found: Mapping[str, Any], limits: Collection[str]) -> None:
    """One bar for each variant: how many times as long it takes as what it is set beside."""
    pyplot = _pyplot()
    if pyplot is None:
        return
    variants = sorted(found["variants"].items(), key=lambda item: -item[1]["ratio"])
    names = [name for name, _ in variants]
    ratios = [said["ratio"] for _, said in variants]
    figure, axes = pyplot.subplots(figsize=(9, 1.4 + 0.36 * len(names)), layout="constrained")
    colors = [
        LIMITS if name in limits else OURS if "checkpointable" in name else PEERS for name in names
    ]
    drawn = axes.barh(names, ratios, color=colors)
    labels = [f" {said['ratio']:.2f} ×   {time_text(said['median_ms'])}" for _, said in variants]
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # a label may cross the line
    axes.bar_label(drawn, labels, padding=2, fontsize=8, bbox=behind)
    axes.axvline(1, color="black", linewidth=0.8, zorder=0)
    if max(ratios) > 20 * min(ratios):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlim(min(ratios) / 2, max(ratios) * 6)
    else:
        axes.set_xlim(0, max(ratios) * 1.3)
    axes.set_xlabel(f"time, as a multiple of: {found['against']}")
    axes.set_title(title, loc="left", fontsize=10)
    legend = [("ours", OURS), ("others", PEERS), ("the machine's limits", LIMITS)]
    shown = [(name, pyplot.Rectangle((0, 0), 1, 1, color=c)) for name, c in legend if c in colors]
    figure.legend(
        [mark for _, mark in shown],
        [name for name, _ in shown],
        loc="outside lower right",
        fontsize=8,
        ncols=3,
        frameon=False,
    )
    _save(figure, pyplot, path)


def lines(path: Path, title: str, found: Mapping[int, Mapping[str, Any]]) -> None:
    """A line for each variant over the sizes in MiB: its ratio, and its speed."""
    pyplot = _pyplot()
    if pyplot is None:
        return
    sizes = list(found)
    first = found[sizes[0]]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    colors = iter(SERIES)
    for name in first["variants"]:
        said = [found[size]["variants"][name] for size in sizes]
        color = OURS if "checkpointable" in name else next(colors)
        style = {"marker": "o", "markersize": 4, "label": name, "color": color}
        left.plot(sizes, [one["ratio"] for one in said], **style)
        speeds = [size / one["median_ms"] * 1e3 for size, one in zip(sizes, said, strict=True)]
        right.plot(sizes, speeds, **style)
    left.set_ylabel(f"time, as a multiple of: {first['against']}")
    left.set_ylim(bottom=0)
    right.set_ylabel("MiB/s")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.set_xlabel("MiB")
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    _save(figure, pyplot, path)


def losses(path: Path, found: Mapping[str, Any]) -> None:
    """For each time between failures what is lost by fixed intervals, and by `young_daly`."""
    pyplot = _pyplot()
    if pyplot is None:
        return
    figure, axes = pyplot.subplots(figsize=(8, 4.6), layout="constrained")
    for (name, said), color in zip(found.items(), SERIES, strict=False):
        fixed = {float(seconds): 100 * share for seconds, share in said["fixed"].items()}
        label = f"fixed, a failure each {name}"
        axes.plot(list(fixed), list(fixed.values()), marker="o", ms=3, color=color, label=label)
        axes.axhline(100 * said["young_daly"], color=color, linestyle="--", linewidth=1)
        axes.axvline(said["optimum_s"], color=color, linestyle=":", linewidth=0.8)
    axes.plot([], [], color="black", linestyle="--", linewidth=1, label="young_daly")
    axes.plot([], [], color="black", linestyle=":", linewidth=0.8, label="optimum by Daly (2006)")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("seconds between saves")
    axes.set_ylabel("% of the run lost to saves and failures")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    axes.set_title("Simulated: saves cost 5 s, restores 30 s", loc="left", fontsize=10)
    _save(figure, pyplot, path)


def shares(
    path: Path, panels: Mapping[str, Mapping[str, Mapping[int, Any]]], scale: str = "log"
) -> None:
    """For each panel what is lost over the number of GPUs, a line for each way to save: simulated.

    Told apart by marker and dashes too, not by colour alone.
    """
    pyplot = _pyplot()
    if pyplot is None:
        return
    size = (1.2 + 5.4 * len(panels), 4.8)
    figure, drawn = pyplot.subplots(
        1, len(panels), figsize=size, layout="constrained", sharey=True, squeeze=False
    )
    for axes, (title, found) in zip(drawn[0], panels.items(), strict=True):
        for (name, said), (color, dashes, marker) in zip(found.items(), APART, strict=False):
            axes.plot(
                list(said), [100 * one["lost"] for one in said.values()],
                color=color, linestyle=dashes, marker=marker, ms=5, lw=1.6, label=name,
            )  # fmt: skip
        numbers = next(iter(found.values()))
        ticks = [n for n in numbers if n not in (1024, 4096, 8192)]
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
        axes.minorticks_off()
        axes.set_yscale(scale)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("GPUs, 8 a node")
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=8)
        axes.set_title(f"{title} (simulated)", loc="left", fontsize=10)
    drawn[0][0].set_ylabel("% of the time lost to saves and failures")
    _save(figure, pyplot, path)


def time_text(milliseconds: float) -> str:
    """A time as a person reads it.

    >>> time_text(0.234), time_text(81.62), time_text(2500.0)
    ('0.23 ms', '82 ms', '2.50 s')
    """
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.2f} s"
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.2f} ms"


def _save(figure: Any, pyplot: Any, path: Path) -> None:
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    print(f"written: {path.parent.name}/{path.name}")
