"""Heads of sharded checkpoints that say what they should not: refused, or as good as the true."""

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointable import InvalidCheckpoint, MemoryStore, archive
from checkpointable.format import container
from checkpointable.format.reader import read_header
from checkpointable.stores.protocol import Store
from tests.arrays.test_boxes import whole
from tests.distributed.test_checkpoints import GridCheckpoint, filled, rows, shared
from tests.helpers.equality import same
from tests.helpers.small_blocks import small_blocks
from tests.hostile.forge import assembled, places

SHAPE = (6, 4)


@pytest.fixture(autouse=True)
def _small_blocks() -> Iterator[None]:
    with small_blocks(64):
        yield


@cache
def saved() -> MemoryStore:
    store = MemoryStore()
    shared(store, filled(SHAPE, "<f8"), rows(SHAPE, 3))
    return store


def read(store: Store, name: str) -> bytes:
    with store.open(name) as reader:
        buffer = bytearray(reader.size)
        reader.read_into(0, memoryview(buffer))
    return bytes(buffer)


NUMBERS = st.sampled_from([-1, 0, 1, 2, 3, 4, 5, 6, 7, 2**31, 2**62, 2**63, 2**80]) | st.floats()
VALUES: st.SearchStrategy[Any] = NUMBERS | st.sampled_from(
    [None, True, "", "a", [], {}, [0, 0], [6, 4], [[1, [0, 0], [6, 4]]]]
)


@given(st.data())
def test_a_forged_manifest_is_refused_or_sound(data: st.DataObject) -> None:
    store = saved()
    name = archive.entries(store)[0].name
    blob = read(store, name)
    outer = orjson.loads(blob[8 : container.header_size(blob[:8], len(blob))].rstrip())
    about = orjson.loads(outer["__metadata__"]["checkpointable"])
    for _ in range(data.draw(st.integers(1, 2))):
        part = data.draw(st.sampled_from(["arrays", "parents", "arrays"]))
        path = data.draw(st.sampled_from(places(about[part], (part,))[1:]))
        inside: Any = about
        for key in path[:-1]:
            inside = inside[key]
        try:
            change = data.draw(st.sampled_from(["set", "drop", "twice"]))
            if change == "set":
                inside[path[-1]] = copy.deepcopy(data.draw(VALUES))
            elif change == "drop":
                del inside[path[-1]]
            elif isinstance(inside, list):
                inside.insert(path[-1], copy.deepcopy(inside[path[-1]]))
        except (KeyError, IndexError, TypeError):  # the first change took the place of the second
            continue
    forged = _sealed(about, outer)
    result = _loaded(store, forged)
    if result is None:
        return
    header = container.parse(forged[: container.header_size(forged[:8], len(forged))], len(forged))
    for placed in header.arrays.values():
        assert whole([part.box for part in placed.parts], placed.shape)
    assert same(np.asarray(result.grid[:]), filled(SHAPE, "<f8"))


def _sealed(about: dict[str, Any], outer: dict[str, Any]) -> bytes:
    text = orjson.dumps(about, option=orjson.OPT_PASSTHROUGH_DATACLASS) if _fits(about) else b"{}"
    header = orjson.dumps({**outer, "__metadata__": {"checkpointable": text.decode()}})
    return assembled(header, b"", b"")


def _fits(about: Any) -> bool:
    try:
        orjson.dumps(about)
    except TypeError:  # a number beyond 64 bits
        return False
    return True


def _loaded(store: MemoryStore, manifest: bytes) -> Any:
    """What the manifest leads to among the true files of ranks; None if it is refused by us."""
    forged = MemoryStore()
    forged._blobs.update(store._blobs)
    name = archive.entries(store)[0].name
    forged.delete(name)
    forged.create(name, len(manifest), [manifest])
    try:
        return archive.load(forged, name, GridCheckpoint)
    except InvalidCheckpoint:
        return None


def test_the_true_manifest_is_taken() -> None:
    store = saved()
    name = archive.entries(store)[0].name
    assert _loaded(store, read(store, name)) is not None
    with store.open(name) as reader:
        assert read_header(reader).meta.sharded
