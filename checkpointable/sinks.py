"""Where the events of a run go: a file, the log, Prometheus.

Each function returns a callback for `run(..., on_event=...)`.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from checkpointable import events
from checkpointable.events import FILE, Event, to_json

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

OnEvent = Callable[[Event], object]
"""A callback for events."""

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_WARNINGS = (
    events.FellBack, events.Skipped, events.Stopping, events.Stalled, events.Restarted,
    events.Quarantined, events.GaveUp, events.Damaged, events.TierLost,
)  # fmt: skip


def to_file(directory: str | os.PathLike[str]) -> OnEvent:
    """Append each event to `events.jsonl` in a directory: one line, one write.

    An event that cannot be written is lost: a run does not fail for its log.
    """
    path = Path(directory) / FILE

    def append(event: Event) -> None:
        with suppress(OSError):
            file = os.open(path, _FLAGS, 0o666)
            try:
                os.write(file, (b"" if _ends_whole(file) else b"\n") + to_json(event))
            finally:
                os.close(file)

    return append


def _ends_whole(file: int) -> bool:
    """Whether the last line is complete: its writer may have been killed, or the disk full."""
    size = os.fstat(file).st_size
    return not size or os.pread(file, 1, size - 1) == b"\n"


def to_log() -> OnEvent:
    """Log each event as "checkpointable": a warning if something went wrong."""
    import logging

    logger = logging.getLogger("checkpointable")
    if not logger.handlers:  # or Python would print warnings although no log is set up
        logger.addHandler(logging.NullHandler())

    def log(event: Event) -> None:
        level = logging.WARNING if isinstance(event, _WARNINGS) else logging.INFO
        if logger.isEnabledFor(level):
            facts = attrs.asdict(event, filter=lambda attribute, _: attribute.name != "time")
            logger.log(level, "%s %s", type(event).__name__, facts)

    return log


def prometheus(registry: "CollectorRegistry | None" = None) -> OnEvent:
    """Export metrics of the events; needs `pip install 'checkpointable[prometheus]'`.

    They go to the given registry or the default one; `prometheus_client.start_http_server` serves
    it.
    """
    try:
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram
    except ImportError as error:
        what = "prometheus() needs prometheus-client: pip install 'checkpointable[prometheus]'"
        raise ImportError(what) from error
    where, pre = registry or REGISTRY, "checkpointable"
    seen = Counter(f"{pre}_events", "Events of each kind.", ["event"], registry=where)
    step = Gauge(f"{pre}_step", "Step of the last event.", registry=where)
    saved_at = Gauge(f"{pre}_saved_timestamp_seconds", "When it was saved.", registry=where)
    written = Counter(f"{pre}_saved_bytes", "Bytes written.", ["kind"], registry=where)
    seconds = Histogram(f"{pre}_save_seconds", "Until durable.", ["kind"], registry=where)
    stall = Histogram(f"{pre}_stall_seconds", "The kernel stood still.", registry=where)
    copied_step = Gauge(f"{pre}_copied_step", "The newest in the slow tier.", registry=where)
    copied_at = Gauge(f"{pre}_copied_timestamp_seconds", "When it was there.", registry=where)
    copied = Counter(f"{pre}_copied_bytes", "Bytes written to the slow tier.", registry=where)
    lost = Gauge(f"{pre}_tier_lost", "1 while a tier fails.", ["address"], registry=where)
    slowdown = Gauge(f"{pre}_slowdown_ratio", "Of the steps during a save.", registry=where)

    def export(event: Event) -> None:
        seen.labels(type(event).__name__).inc()
        if isinstance(event, events.TierLost | events.TierBack):
            lost.labels(event.address).set(isinstance(event, events.TierLost))
        elif isinstance(event, events.Copied):
            copied_step.set(event.step)
            copied_at.set(event.time)
            copied.inc(event.bytes)
        elif not isinstance(event, events.Pruned | events.Damaged):
            step.set(event.step)
        if isinstance(event, events.Saved):
            saved_at.set(event.time)
            written.labels(event.kind).inc(event.bytes)
            seconds.labels(event.kind).observe(event.seconds)
            stall.observe(event.stall + event.waited)
            if event.slowdown is not None:
                slowdown.set(event.slowdown)

    return export
