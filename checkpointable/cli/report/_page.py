"""The page of a report: HTML and CSS, without scripts or anything to load.

All that comes from files, names and events goes through `text`, the only way into the page.
"""

import html
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from checkpointable.archive import step_of
from checkpointable.cli._shared import clean, count_text, duration_text, size_text
from checkpointable.cli.ls import kind_of
from checkpointable.cli.report._data import File, Frame, reason_kept
from checkpointable.cli.report._png import coloured, data_uri, png
from checkpointable.cli.report._style import STYLE
from checkpointable.cli.report._timeline import bars, moment, tile, timeline
from checkpointable.events import Event, FellBack, Restarted, Restored, Saved, Started

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_MOST_ROWS = 500


def text(value: object) -> str:
    r"""Escape text for the page: markup, and what is not printable.

    >>> text('<b title="x">\x1b')
    '&lt;b title=&quot;x&quot;&gt;\\x1b'
    """
    return html.escape(clean(str(value)))


def page(
    store: str, files: list[File], happened: list[Event], array: str, frames: list[Frame]
) -> str:
    """Write the whole page."""
    place = store.partition("?")[0] if "://" in store else str(Path(store).resolve())
    name = text(Path(place).name or store)
    parts = [
        f"<h1>{name}</h1><p class=muted>{_span(files, happened)}</p>",
        _tiles(files, happened),
        timeline(happened, text),
        bars([event for event in happened if isinstance(event, Saved)], text),
        _film(array, frames),
        _files(files),
        _events(happened),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang=en><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}: checkpoints</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _when(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def _span(files: list[File], happened: list[Event]) -> str:
    times = [event.time for event in happened] or [file.entry.created for file in files]
    if not times:
        return ""
    first, last = min(times), max(times)
    return f"{_when(first)} to {_when(last)} UTC, {duration_text(last - first)}"


def _tiles(files: list[File], happened: list[Event]) -> str:
    sound = [file for file in files if not file.error]
    saves = [event for event in happened if isinstance(event, Saved)]
    made = [tile("newest step", f"{sound[-1].entry.step:,}" if sound else "none", "that is sound")]
    total = sum(file.entry.size for file in files)
    made.append(tile("on disk", size_text(total), count_text(len(files), "checkpoint")))
    if saves:
        stalls = [event.stall for event in saves]
        longest = f"median; longest {moment(max(stalls))}"
        made.append(tile("stall of a save", moment(statistics.median(stalls)), longest))
        dirty = statistics.mean(event.dirty for event in saves)
        made.append(tile("written a save", f"{dirty:.0%}", "of a full one, on average"))
    if happened:
        starts = sum(isinstance(event, Started | Restored) for event in happened)
        again = sum(isinstance(event, Restarted) for event in happened)
        made.append(tile("starts", str(starts), f"{again} by the supervisor"))
        fell = sum(isinstance(event, FellBack) for event in happened)
        made.append(tile("fell back", str(fell), "passed over as damaged", bad=fell > 0))
    return f"<div class=tiles>{''.join(made)}</div>"


def _film(array: str, frames: list[Frame]) -> str:
    """An array over time, all frames on one scale."""
    if not frames:
        return ""
    values = np.concatenate([frame.picture.mean.ravel() for frame in frames])
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    made = []
    for frame in frames:
        image = _curve(frame, low, high) if frame.picture.line else _map(frame, low, high)
        made.append(f"<figure>{image}<figcaption>step {frame.step:,}</figcaption></figure>")
    scale = f"<span>from {low:.4g} to {high:.4g}</span>"
    if not frames[0].picture.line:
        strip = png(coloured(np.linspace(0, 1, 128)[None, :], 0, 1))
        image = f'<img class=scale alt="colour scale" src="{data_uri(strip)}">'
        scale = f"<span>{low:.4g}</span>{image}<span>{high:.4g}</span>"
    notes = "" if not any(f.picture.nans.any() for f in frames) else " <span>red: NaN</span>"
    return (
        f"<section id=film><h2>{text(array)}{text(frames[0].picture.part)} over time</h2>"
        f"<div class=film>{''.join(made)}</div><p class=legend>{scale}{notes}</p></section>"
    )


def _map(frame: Frame, low: float, high: float) -> str:
    picture = frame.picture
    image = png(coloured(picture.mean, low, high, picture.nans))
    rows, columns = picture.shape
    shape = f"aspect-ratio:{min(max(columns / rows, 0.5), 3):.3f}"
    return f'<img class=map style="{shape}" alt="step {frame.step}" src="{data_uri(image)}">'


def _curve(frame: Frame, low: float, high: float) -> str:
    """A line as SVG: its pieces between NaN, and red marks at these."""
    mean, scale = frame.picture.mean[:, 0], (high / 2 - low / 2) or 1.0
    count = max(len(mean) - 1, 1)
    pieces: list[list[str]] = [[]]
    marks = []
    for i, value in enumerate(mean.tolist()):
        x = 100 * i / count
        if frame.picture.nans[i, 0] or not np.isfinite(value):
            pieces.append([])
            marks.append(f"M{x:.1f} 47v3")
        else:
            pieces[-1].append(f"{x:.1f} {48 - 46 * (value / 2 - low / 2) / scale:.1f}")
    path = "".join(f"M{'L'.join(piece)}" for piece in pieces if piece)
    return (
        f'<svg viewBox="0 0 100 50" preserveAspectRatio=none role=img aria-label="step '
        f'{frame.step}"><path class=curve d="{path}"/><path class=nan d="{"".join(marks)}"/></svg>'
    )


def _files(files: list[File]) -> str:
    if not files:
        return ""
    left = len(files) - _MOST_ROWS
    rows = []
    for file in reversed(files[-_MOST_ROWS:]):
        entry = file.entry
        share = "" if file.dirty is None else f"{file.dirty:.1%}"
        width = min(max(file.dirty or 0.0, 0.0), 1.0)
        bar = f'<i class=share><b style="width:{width:.1%}"></b></i>' if share else ""
        before = ", ".join(str(step_of(name)) for name in file.continues) or "–"
        cells = [
            f"<td class=n>{entry.step:,}{f'.{entry.attempt}' if entry.attempt else ''}</td>",
            f"<td><i class='dot {kind_of(entry)}'></i>{kind_of(entry)}</td>",
            f"<td class='text{' bad' if file.error else ''}'>{text(reason_kept(file, files))}</td>",
            f"<td class=n>{size_text(entry.size)}</td>",
            f"<td class=n>{bar}{share or '–'}</td>",
            f"<td>{text(before)}</td>",
            f"<td class=code>{text(file.seal[:12] or '–')}</td>",
            f"<td>{_when(entry.created)}</td>",
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    titles = [("step", "n"), ("kind", ""), ("why it is there", ""), ("size", "n")]
    titles += [("own bytes", "n"), ("continues", ""), ("seal", ""), ("created (UTC)", "")]
    more = f"<p class=muted>and {left} older</p>" if left > 0 else ""
    return f"<section id=files><h2>Checkpoints</h2>{_table(titles, rows)}{more}</section>"


def _events(happened: list[Event]) -> str:
    """All events except saves, newest first."""
    others = [event for event in happened if not isinstance(event, Saved)]
    if not others:
        return ""
    rows = []
    for event in reversed(others[-_MOST_ROWS:]):
        step = getattr(event, "step", None)
        rows.append(
            f"<tr><td>{_when(event.time)}</td><td>{text(type(event).__name__)}</td>"
            f"<td class=n>{'' if step is None else f'{step:,}'}</td>"
            f"<td class=text>{text(_facts(event))}</td></tr>"
        )
    titles = [("time (UTC)", ""), ("event", ""), ("step", "n"), ("", "")]
    left = len(others) - _MOST_ROWS
    more = f"<p class=muted>and {left} older</p>" if left > 0 else ""
    return f"<section id=events><h2>What happened</h2>{_table(titles, rows)}{more}</section>"


def _facts(event: Event) -> str:
    """The facts of an event, without its step and time."""
    facts = []
    for name, value in attrs.asdict(event).items():
        if name not in ("step", "time"):
            facts.append(f"{name}: {_short(value)}")
    return ", ".join(facts)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    shown = ", ".join(value) if isinstance(value, tuple | list) else str(value)
    return shown if len(shown) <= 300 else f"{shown[:300]}..."


def _table(titles: list[tuple[str, str]], rows: list[str]) -> str:
    head = "".join(f"<th{f' class={kind}' if kind else ''}>{title}</th>" for title, kind in titles)
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f"<div class=wide tabindex=0><table>{body}</table></div>"
