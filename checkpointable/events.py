"""What happens to a run, as typed events: for callbacks, logs, the command line and the report.

Each event has a time, in Unix seconds, and what a person needs to know. As JSON it is one object
with its name and fields: a run in a directory appends each, on a line, to `events.jsonl` there, and
`checkpointable run --json` prints the same objects.
"""

import time
from typing import Any, TypeAlias

import attrs
import orjson
from attrs import field, frozen

FILE = "events.jsonl"
"""The name of the file in a run's directory that its events are appended to."""


def _now() -> float:
    return field(factory=time.time, kw_only=True)


@frozen
class Started:
    """A run began at `step` with nothing to resume from."""

    step: int
    until: int
    time: float = _now()


@frozen
class Restored:
    """A run resumed from the checkpoint `name`, read in `seconds`."""

    step: int
    until: int
    name: str
    seconds: float
    time: float = _now()


@frozen
class FellBack:
    """A newer checkpoint was passed over; `why` is the reason."""

    step: int
    name: str
    why: str
    time: float = _now()


@frozen
class Saved:
    """A checkpoint became durable.

    `kind` is "full" or "delta", `bytes` is what was written, and `dirty` its share of a full
    checkpoint. The kernel stood still for `stall` seconds, after waiting `waited` seconds for a
    safe point or for the previous save; the save took `seconds` in total. `slowdown` is the share
    of their rate that the steps lost during the save, None if that is not known.
    """

    step: int
    name: str
    kind: str
    bytes: int
    dirty: float
    seconds: float
    stall: float
    waited: float
    slowdown: float | None = None
    time: float = _now()


@frozen
class Skipped:
    """A save that was due was not made; `why` is the reason."""

    step: int
    why: str
    time: float = _now()


@frozen
class Pruned:
    """Checkpoints that the policy does not keep were deleted; `address` is that of a slow tier."""

    names: tuple[str, ...]
    address: str = ""
    time: float = _now()


@frozen
class Stopping:
    """A signal stops the run at a safe point; `plan` is what is saved in the time that is left."""

    step: int
    signal: int
    plan: str
    time: float = _now()


@frozen
class Stopped:
    """A signal ended the run; the state of `step` is saved as `name`."""

    step: int
    name: str
    time: float = _now()


@frozen
class Finished:
    """A run reached its last step."""

    step: int
    seconds: float
    saves: int
    time: float = _now()


@frozen
class Copied:
    """A checkpoint is now in the slow tier: `bytes` were written in `seconds`."""

    step: int
    name: str
    address: str
    bytes: int
    seconds: float
    time: float = _now()


@frozen
class Damaged:
    """A checkpoint is invalid at `address`: it is not copied, and is read from the other tier."""

    step: int
    name: str
    address: str
    why: str
    time: float = _now()


@frozen
class TierLost:
    """The tier at `address` fails, for the reason `why`; the run continues with the other one."""

    address: str
    why: str
    time: float = _now()


@frozen
class TierBack:
    """The tier at `address` works again."""

    address: str
    time: float = _now()


@frozen
class Stalled:
    """A child of the supervisor has done no step for `seconds`, more than `limit`."""

    step: int
    seconds: float
    limit: float
    time: float = _now()


@frozen
class Restarted:
    """The supervisor starts the run again: attempt number `attempt`, in `delay` seconds.

    `cause` is how the previous attempt ended: a crash, a signal, a hang, an unhealthy kernel.
    """

    attempt: int
    step: int
    cause: str
    delay: float
    time: float = _now()


@frozen
class Quarantined:
    """A checkpoint that crashed two readers in a row was renamed to `new_name`."""

    step: int
    name: str
    new_name: str
    time: float = _now()


@frozen
class GaveUp:
    """The supervisor does not start the run again; `why` is the reason."""

    step: int
    attempts: int
    why: str
    time: float = _now()


Event: TypeAlias = (
    Started | Restored | FellBack | Saved | Skipped | Pruned | Stopping | Stopped | Finished
    | Copied | Damaged | TierLost | TierBack | Stalled | Restarted | Quarantined | GaveUp
)  # fmt: skip

_CLASSES: dict[str, Any] = {cls.__name__: cls for cls in Event.__args__}


def to_json(event: Event) -> bytes:
    """An event as a line of JSON.

    >>> to_json(Skipped(step=7, why="one is under way", time=0.5))
    b'{"event":"Skipped","step":7,"why":"one is under way","time":0.5}\\n'
    """
    return orjson.dumps({"event": type(event).__name__, **attrs.asdict(event)}) + b"\n"


def from_json(line: bytes) -> Event | None:
    """The event in a line; None if the line is cut short, or of a newer version.

    >>> from_json(to_json(Skipped(step=7, why="one is under way", time=0.5)))
    Skipped(step=7, why='one is under way', time=0.5)
    """
    try:
        values = orjson.loads(line)
        cls = _CLASSES[values.pop("event")]
        if "now" in values:  # as earlier versions wrote it
            values["new_name"] = values.pop("now")
        known = {a.name for a in attrs.fields(cls)}
        facts = {name: value for name, value in values.items() if name in known}
        facts = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items()}
        event: Event = cls(**facts)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return event
