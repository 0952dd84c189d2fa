"""The timeline and the bars of a report: boxes placed in percent of the width."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from checkpointable.cli._shared import duration_text, size_text
from checkpointable.events import (
    Event,
    FellBack,
    Finished,
    GaveUp,
    Quarantined,
    Restarted,
    Restored,
    Saved,
    Skipped,
    Stalled,
    Started,
    Stopped,
    Stopping,
)

Text = Callable[[object], str]

_BUCKETS = 500
_MOST_BARS = 100

_LANES: list[tuple[str, str, tuple[type, ...]]] = [
    ("fell back", "bad", (FellBack, Quarantined)),
    ("hung", "bad", (Stalled, GaveUp)),
    ("restarted", "warn", (Restarted,)),
    ("resumed", "ok", (Restored,)),
    ("stopped", "warn", (Stopping, Stopped)),
    ("skipped", "quiet", (Skipped,)),
]


_ENDS = {
    "ok": "finished",
    "warn": "stopped, its state saved",
    "bad": "ended without a word",
    "quiet": "no end is recorded",
}
"""How a run ended, by the color of its box."""


def moment(seconds: float) -> str:
    """Format a short time.

    >>> moment(0.0046), moment(2.5)
    ('4.6 ms', '2.5 s')
    """
    return duration_text(seconds) if seconds >= 1 or seconds <= 0 else f"{seconds * 1000:.3g} ms"


def tile(title: str, value: str, note: str, *, bad: bool = False) -> str:
    """A figure with its title and a note, all of which are our own text."""
    mark = " bad" if bad else ""
    return f"<div class=tile><h3>{title}</h3><p class='big{mark}'>{value}</p><p>{note}</p></div>"


def timeline(happened: Sequence[Event], text: Text) -> str:
    """Runs, saves and other events, each in a lane of its own over the same time."""
    if not happened:
        return (
            "<section id=timeline><h2>Timeline</h2><p class=muted>The directory has no "
            "events.jsonl: no run has written its events.</p></section>"
        )
    first, last = happened[0].time, happened[-1].time
    span = (last - first) or 1.0

    def place(time: float) -> float:
        return 100 * (time - first) / span

    lanes = [_lane("running", _runs(happened, place))]
    for title, kind in (("full saves", "full"), ("delta saves", "delta")):
        saves = [e for e in happened if isinstance(e, Saved) and e.kind == kind]
        lanes.append(_lane(title, _marks(saves, kind, place, text)) if saves else "")
    for title, kind, classes in _LANES:
        shown = [event for event in happened if isinstance(event, classes)]
        lanes.append(_lane(title, _marks(shown, kind, place, text)) if shown else "")
    short = span < 86400
    ends = [f"{datetime.fromtimestamp(t, UTC):{'%H:%M:%S' if short else '%m-%d %H:%M'}}"
            for t in (first, first + span / 2, last)]  # fmt: skip
    axis = f"<div class=axis>{''.join(f'<span>{end}</span>' for end in ends)}</div>"
    keys = [f"<span><i class='dot {kind}'></i>{end}</span>" for kind, end in _ENDS.items()]
    legend = f"<p class=legend>running, and: {''.join(keys)}</p>"
    return f"<section id=timeline><h2>Timeline</h2>{''.join(lanes)}{axis}{legend}</section>"


def _lane(title: str, inner: str) -> str:
    return f"<div class=lane><span>{title}</span><div>{inner}</div></div>"


def _runs(happened: Sequence[Event], place: Callable[[float], float]) -> str:
    """A box from each start of a run to its last event, colored by how it ended."""
    boxes: list[tuple[float, float, str]] = []
    begin: Event | None = None
    seen = 0.0
    for event in happened:
        if isinstance(event, Started | Restored):
            if begin is not None:
                boxes.append((begin.time, seen, "bad"))
            begin = event
        elif isinstance(event, Finished | Stopped) and begin is not None:
            boxes.append((begin.time, event.time, "ok" if type(event) is Finished else "warn"))
            begin = None
        if not isinstance(event, Restarted | GaveUp | FellBack):
            seen = event.time
    if begin is not None:
        boxes.append((begin.time, seen, "quiet"))
    return "".join(
        f'<i class="run {kind}" style="left:{place(a):.3f}%;width:{place(b) - place(a):.3f}%" '
        f'title="{duration_text(b - a)}: {_ENDS[kind]}"></i>'
        for a, b, kind in boxes
    )


def _marks(
    happened: Sequence[Event], kind: str, place: Callable[[float], float], text: Text
) -> str:
    """A mark for each event, or one for events that are too close together."""
    buckets: dict[int, list[Event]] = {}
    for event in happened:
        buckets.setdefault(round(place(event.time) * _BUCKETS / 100), []).append(event)
    return "".join(
        f'<i class="mark {kind}" style="left:{place(events[0].time):.3f}%" '
        f'title="{text(_title(events))}"></i>'
        for events in buckets.values()
    )


def _title(events: list[Event]) -> str:
    event = events[-1]
    why = getattr(event, "why", "") or getattr(event, "cause", "") or getattr(event, "name", "")
    step = getattr(event, "step", "")
    more = f", and {len(events) - 1} more" if len(events) > 1 else ""
    return f"{type(event).__name__}, step {step}{f': {why}' if why else ''}{more}"[:300]


def bars(saves: Sequence[Saved], text: Text) -> str:
    """Two charts with a bar for each save: how long the kernel stood still, and what was written.

    If they are many, a bar is the highest of some that follow one another.
    """
    if not saves:
        return ""
    stalls = [(s.stall, f"{moment(s.stall)} of {moment(s.seconds)}") for s in saves]
    sizes = [(float(s.bytes), f"{size_text(s.bytes)}, {s.dirty:.1%} of a full one") for s in saves]
    charts = [
        ("The kernel stood still, each save", stalls, moment),
        ("Written, each save", sizes, lambda top: size_text(round(top))),
    ]
    made = []
    for title, values, format_value in charts:
        top = max((value for value, _ in values), default=0.0)
        boxes = []
        size = -(-len(saves) // _MOST_BARS)
        for begin in range(0, len(saves), size):
            group = range(begin, min(begin + size, len(saves)))
            chosen = max(group, key=lambda i: values[i][0])
            save, (value, note) = saves[chosen], values[chosen]
            kind = "delta" if save.kind == "delta" else "full"
            height = max(0.0, min(value / top, 1.0)) if top > 0 else 0.0
            tooltip = text(f"step {save.step}: {note}")
            boxes.append(f'<i class={kind} style="height:{height:.1%}" title="{tooltip}"></i>')
        made.append(
            f"<div class=chart><h3>{title}</h3><p class=top>{format_value(max(top, 0.0))}</p>"
            f"<div class=bars>{''.join(boxes)}</div><div class=axis>"
            f"<span>step {saves[0].step:,}</span><span>step {saves[-1].step:,}</span></div></div>"
        )
    key = "<p class=legend><span><i class='dot full'></i>full</span>"
    key += "<span><i class='dot delta'></i>delta</span></p>"
    return f"<section id=saves><h2>Saves</h2><div class=charts>{''.join(made)}</div>{key}</section>"
