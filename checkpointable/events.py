"""What happens to a run, as a stream of typed events: for callbacks, logs and the report.

Each event says when it was, in Unix seconds, and what a person needs to see why. As JSON it is one
object, of its own name and fields: a run in a directory appends one a line to `events.jsonl` there.
"""

import time
from typing import Any, TypeAlias

import attrs
import orjson
from attrs import field, frozen

FILE = "events.jsonl"
"""The name, in a run's directory, of the file that its events are appended to."""


def _now() -> float:
    return field(factory=time.time, kw_only=True)


@frozen
class Started:
    """A run began at `step`, with nothing to resume from."""

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
    """A newer checkpoint was passed over, and `why`."""

    step: int
    name: str
    why: str
    time: float = _now()


@frozen
class Saved:
    """A checkpoint became durable.

    `kind` is "full" or "delta", `bytes` what was written and `dirty` its share of a full one. The
    kernel stood still for `stall` seconds, after it had been waited for a safe point, or for the
    save before, for `waited`; all took `seconds`. `slowdown` is by how much of their rate the steps
    were slower while it was stored, None if that is not known.
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
    """A save that was due was not made, and `why`."""

    step: int
    why: str
    time: float = _now()


@frozen
class Pruned:
    """Checkpoints were deleted that the policy did not keep: those of a slow tier, at `address`."""

    names: tuple[str, ...]
    address: str = ""
    time: float = _now()


@frozen
class Stopping:
    """A signal was taken at a safe point; `plan` is what is saved in the time that is left."""

    step: int
    signal: int
    plan: str
    time: float = _now()


@frozen
class Stopped:
    """A signal ended the run, the state of `step` saved as `name`."""

    step: int
    name: str
    time: float = _now()


@frozen
class Finished:
    """A run came to its last step."""

    step: int
    seconds: float
    saves: int
    time: float = _now()


@frozen
class Copied:
    """A checkpoint is in the slow tier, too, or only there: `bytes` were written in `seconds`."""

    step: int
    name: str
    address: str
    bytes: int
    seconds: float
    time: float = _now()


@frozen
class Damaged:
    """A checkpoint does not verify at `address`: it is not copied, and read from elsewhere."""

    step: int
    name: str
    address: str
    why: str
    time: float = _now()


@frozen
class TierLost:
    """The tier at `address` fails, and `why`: the run goes on with the other one alone."""

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
    """A child of the supervisor has done no step for `seconds`; `limit` of them are allowed."""

    step: int
    seconds: float
    limit: float
    time: float = _now()


@frozen
class Restarted:
    """The supervisor starts the run again: attempt number `attempt`, in `delay` seconds.

    `cause` says how the one before ended: a crash, a signal, a hang, an unhealthy kernel.
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
    """The supervisor does not start the run again, and `why`."""

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
    """One line of JSON, with its end.

    >>> to_json(Skipped(step=7, why="one is under way", time=0.5))
    b'{"event":"Skipped","step":7,"why":"one is under way","time":0.5}\\n'
    """
    return orjson.dumps({"event": type(event).__name__, **attrs.asdict(event)}) + b"\n"


def from_json(line: bytes) -> Event | None:
    """The event of a line; None for one that is cut short, or of a newer version.

    >>> from_json(to_json(Skipped(step=7, why="one is under way", time=0.5)))
    Skipped(step=7, why='one is under way', time=0.5)
    """
    try:
        values = orjson.loads(line)
        cls = _CLASSES[values.pop("event")]
        if "now" in values:  # as it was called before version 1
            values["new_name"] = values.pop("now")
        known = {a.name for a in attrs.fields(cls)}
        facts = {name: value for name, value in values.items() if name in known}
        facts = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items()}
        event: Event = cls(**facts)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return event
