"""The structured part of a checkpoint: 200,000 small nested attrs objects, and no arrays.

50,000 particles, each with a position (an object), a velocity (an object) and a track of one hit
(an object): 200,000 objects in all, made to text and back to equal objects.

- checkpointable: `to_tree` and JSON, JSON and `from_tree`; types, keys and ranges strictly checked.
- checkpointable, whole file: the same through `encode` and `decode`, with header, digest and seal.
- cattrs + orjson: `cattrs.preconf.orjson.make_converter()`; it casts, and checks keys only.
- cattrs + orjson, fast: the same without its detailed validation.
- pickle: protocol 5, which runs code on loading and checks nothing.
- msgspec: its C coder on the same classes; it checks types.
"""

import gc
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import cattrs.preconf.orjson
import msgspec

from benchmarks._measure import Goal, measure, options, report, write
from checkpointable import MemoryStore, archive
from checkpointable.format import strictjson
from checkpointable.tree.tree import from_tree, to_tree

GOAL = 1.3
OBJECTS = 200_000


@attrs.frozen
class Vector:
    x: float
    y: float
    z: float


@attrs.frozen
class Hit:
    step: int
    energy: float


@attrs.frozen
class Particle:
    id: int
    kind: str
    alive: bool
    weight: float | None
    position: Vector
    velocity: Vector
    track: list[Hit]


@attrs.frozen
class Ensemble:
    step: int
    particles: list[Particle]


def ensemble() -> Ensemble:
    return Ensemble(
        7,
        [
            Particle(
                id=i,
                kind=f"kind-{i % 7}",
                alive=i % 3 > 0,
                weight=None if i % 5 else i / 7,
                position=Vector(i / 3, -i / 7, 1e-9 * i),
                velocity=Vector(0.5 * i, 1.0, -2.0 / (i + 1)),
                track=[Hit(i, 0.1 * i)],
            )
            for i in range(OBJECTS // 4)
        ],
    )


def ours(value: Ensemble) -> Any:
    tree, arrays = to_tree(value, Ensemble)
    text = strictjson.dumps({"tree": tree})
    return from_tree(strictjson.loads(text, "the tree")["tree"], arrays, Ensemble)


def ours_whole_file(value: Ensemble) -> Any:
    store = MemoryStore()
    return archive.load(store, archive.save(store, value, 7).name, Ensemble)


def with_cattrs(detailed: bool) -> Callable[[Ensemble], Any]:
    converter = cattrs.preconf.orjson.make_converter(detailed_validation=detailed)
    return lambda value: converter.loads(converter.dumps(value), Ensemble)


def with_pickle(value: Ensemble) -> Any:
    return pickle.loads(pickle.dumps(value, protocol=5))


def with_msgspec(value: Ensemble) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value), type=Ensemble)


def main() -> None:
    given = options(__doc__, rounds=7, least=5).parse_args()
    value = ensemble()
    variants: dict[str, Callable[[Ensemble], Any]] = {
        "checkpointable": ours,
        "checkpointable, whole file": ours_whole_file,
        "cattrs + orjson": with_cattrs(detailed=True),
        "cattrs + orjson, fast": with_cattrs(detailed=False),
        "pickle": with_pickle,
        "msgspec": with_msgspec,
    }
    for name, round_trip in variants.items():
        assert round_trip(value) == value, name
    plain = "cattrs + orjson"
    # The garbage collector stays on, as it is for users; it is emptied between the timings.
    seconds = measure(
        {name: lambda f=f: f(value) for name, f in variants.items()},  # type: ignore[misc]
        given.rounds,
        after=gc.collect,
    )
    title = f"{OBJECTS:,} attrs objects to text and back, {given.rounds} interleaved rounds"
    found = report(title, seconds, [Goal("checkpointable", plain, GOAL)], against=plain)
    write("structured", given.device, Path(tempfile.gettempdir()), {"objects": OBJECTS} | found)


if __name__ == "__main__":
    main()
