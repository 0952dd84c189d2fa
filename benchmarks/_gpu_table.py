"""Figures as `gpu.py` shows them: each beside what it is measured by, with its goal."""

from collections.abc import Sequence

from attrs import frozen
from rich.table import Table


@frozen
class Figure:
    """`median` (bytes a second, seconds or steps a second) beside `against`, as `share` of it.

    The goal is at least (`>=`) or at most (`<=`) a share.
    """

    name: str
    median: float
    unit: str
    beside: str
    against: float
    share: float
    goal: float | None = None
    sign: str = ">="
    rounds: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        met = self.share >= self.goal if self.sign == ">=" else self.share <= self.goal
        return "met" if met else "MISSED"


def text_of(size: float) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size / 1024:.3g} KiB"


def shown(value: float, unit: str) -> str:
    if unit == "bytes":
        return text_of(value)
    return f"{value / 1e9:,.4g} GB/s" if unit == "GB/s" else f"{value:,.4g} {unit}"


def table(figures: Sequence[Figure]) -> Table:
    made = Table("", "median", "beside", "its median", "share", "goal", "")
    for one in figures:
        goal = "" if one.goal is None else f"{one.sign.replace('>=', '≥').replace('<=', '≤')} "
        goal += "" if one.goal is None else f"{one.goal:g}"
        values = shown(one.median, one.unit), one.beside, shown(one.against, one.unit)
        made.add_row(one.name, *values, f"{one.share:.3f}", goal, one.verdict)
    return made
