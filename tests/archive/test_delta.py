"""Deltas: what they hold, that they read back, and that nothing they need ever goes away."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from checkpointable import (
    Array,
    CorruptCheckpoint,
    InvalidCheckpoint,
    LocalStore,
    MemoryStore,
    NoCheckpoint,
    Store,
    archive,
    last,
    load_file,
)
from checkpointable.archive import codec, entries, load, opened, save
from checkpointable.archive.prune import prune
from checkpointable.format import container, layout
from checkpointable.format.extents import Base, difference, located
from checkpointable.format.header import arrays_to_json, extents_from_json, prefix_of
from checkpointable.format.layout import Extent
from checkpointable.format.reader import read_header
from tests.archive.test_archive import content, damage
from tests.helpers.equality import same
from tests.helpers.small_blocks import small_blocks

BLOCK = 64
KEY, OTHER = bytes(range(32)), bytes(32)


@attrs.frozen
class State:
    step: int
    bytes: Array[np.uint8]  # whose last block is short
    grid: Array[np.int32]
    empty: Array[np.float64]


@attrs.frozen
class Bytes:
    bytes: Array[np.uint8]


@attrs.frozen
class Slim:
    step: int
    grid: Array[np.int32]


def state(step: int = 0) -> State:
    return State(step, np.zeros(150, np.uint8), np.zeros((12, 8), np.int32), np.zeros((3, 0)))


def changed(before: State, step: int, *places: int) -> State:
    """Another state, of which these blocks differ: three of `bytes`, then six of `grid`."""
    few, grid = np.array(before.bytes), np.array(before.grid)
    for place in places:
        if place < 3:
            few[place * BLOCK] = step
        else:
            grid.reshape(-1)[(place - 3) * BLOCK // 4] = step
    return State(step, few, grid, before.empty)


@pytest.fixture(autouse=True)
def _small_blocks() -> Iterator[None]:
    """And so small arrays that the header would take more room than they."""
    with small_blocks(BLOCK):
        yield


def parents(store: Store, name: str) -> list[str]:
    return [parent.name for parent in archive.read_header(store, name).parents]


# --- what a delta holds -------------------------------------------------------------------------


@pytest.mark.parametrize("places", [[], [0], [2], [0, 1, 2], [2, 3], [8], [1, 4, 5, 7]])
def test_a_delta_holds_the_blocks_that_changed_and_no_others(places: list[int]) -> None:
    store, before = MemoryStore(), state()
    base = save(store, before, 0).name
    entry = save(store, changed(before, 1, *places), 1, base=base)
    assert (entry.name, entry.delta) == ("step-000000000001.delta.safetensors", True)
    header = archive.read_header(store, entry.name)
    own = {a.name: [*a.own()] for a in header.arrays.values()}
    assert own["bytes"] == [place for place in places if place < 3]
    assert own["grid"] == [place - 3 for place in places if place >= 3]
    sizes = [BLOCK, BLOCK, 150 - 2 * BLOCK, *[BLOCK] * 6]
    begin = container.header_size(content(store, entry.name)[:8], entry.size)
    assert header.digests_offset - begin == sum(sizes[place] for place in places)
    assert same(load(store, entry.name, State), changed(before, 1, *places))


def test_a_delta_of_a_delta_refers_to_the_file_that_holds_the_block() -> None:
    store, now = MemoryStore(), state()
    names = [save(store, now, 0).name]
    for step, places in enumerate([[0, 4], [4, 5], [8]], 1):
        now = changed(now, step, *places)
        names.append(save(store, now, step, base=names[-1]).name)
    assert parents(store, names[-1]) == [names[2], names[1], names[0]]
    with opened(store, names[-1]) as checkpoint:
        for source, reader in enumerate(checkpoint.files):
            header = read_header(reader)
            for index in np.flatnonzero(checkpoint.source == source):
                assert any(
                    checkpoint.offsets[index] - header.data_offset - a.offset
                    in range(a.own_blocks * BLOCK)
                    for a in header.arrays.values()
                )
    now = changed(now, 4, 0, 4)
    assert names[1] not in parents(store, save(store, now, 4, base=names[-1]).name)


def test_a_delta_in_which_all_has_changed_is_a_full_checkpoint() -> None:
    store, before = MemoryStore(), state()
    base = save(store, before, 0).name
    entry = save(store, changed(before, 1, *range(9)), 1, base=base)
    assert not entry.delta
    assert not parents(store, entry.name)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda store, base: store.delete(base),
        lambda store, base: damage(store, base),
        lambda store, base: None,
    ],
    ids=["gone", "damaged", "of other arrays"],
)
def test_without_a_fitting_base_it_is_a_full_checkpoint(spoil: Any) -> None:
    store = MemoryStore()
    base = save(store, Slim(0, np.zeros(40, np.int32)), 0).name
    spoil(store, base)
    entry = save(store, state(1), 1, base=base)
    assert not entry.delta
    assert same(load(store, entry.name, State), state(1))


def test_a_base_that_lacks_a_parent_is_of_no_use() -> None:
    store = MemoryStore()
    names = chain(store)
    store.delete(names[0])
    assert not save(store, state(3), 3, base=names[2]).delta


@pytest.mark.parametrize(("blocks", "length"), [(1, 17), (400, 5)])
def test_a_chain_ends_before_it_takes_too_many_files_or_the_room_of_a_full_one(
    blocks: int, length: int
) -> None:
    """Each delta holds so many of 2,000 blocks, others each time: all those before are needed."""
    size = 1024  # of a block, of which the digest is little
    store, values = MemoryStore(), np.zeros(2000 * size, np.uint8)
    with small_blocks(size, max_delta_ratio=1):
        name, kinds = save(store, Bytes(values), 0).name, []
        for step in range(1, 40):
            begin = step * blocks % 2000
            values = values.copy()
            values[begin * size : (begin + blocks) * size] = step
            entry = save(store, Bytes(values), step, base=name)
            name = entry.name
            kinds.append(entry.delta)
            assert same(load(store, name, Bytes), Bytes(values))
    assert kinds.index(False) == length - 1  # the full one among them
    assert kinds[length : 2 * length - 1] == kinds[: length - 1]


def test_a_delta_is_made_against_a_base_with_the_same_key() -> None:
    store, before = MemoryStore(), state()
    for base_key, key, delta in ((KEY, KEY, True), (KEY, OTHER, False), (None, KEY, False)):
        base = save(store, before, 0, key=base_key).name
        now = changed(before, 1, 4)
        entry = save(store, now, 1, base=base, key=key)
        assert entry.delta is delta
        assert same(load(store, entry.name, State, key=key), now)
    unsigned = save(store, before, 0, key=KEY).name
    assert not save(store, before, 1, base=unsigned).delta


# --- refused ------------------------------------------------------------------------------------


def chain(store: Store, key: bytes | None = None) -> list[str]:
    """A full checkpoint, a delta, and one that needs both."""
    one = state()
    two = changed(one, 1, 0, 4)
    base = save(store, one, 0, key=key).name
    names = [base, save(store, two, 1, base=base, key=key).name]
    return [*names, save(store, changed(two, 2, 8), 2, base=names[1], key=key).name]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("kind", ["gone", "damaged", "another"])
def test_a_parent_that_is_not_as_it_was_is_named(which: int, kind: str) -> None:
    store = MemoryStore()
    names = chain(store)
    if kind == "damaged":
        damage(store, names[which])
    else:
        store.delete(names[which])
    if kind == "another":
        packed = codec.encode(state(7), step=which)
        store.create(names[which], packed.size, packed.chunks())
    with pytest.raises(CorruptCheckpoint, match="its parent") as caught:
        load(store, names[2], State)
    assert names[which] in str(caught.value)


def test_damage_in_a_parent_names_block_and_file_and_an_older_one_is_found() -> None:
    store = MemoryStore()
    names = chain(store)
    header = archive.read_header(store, names[1])
    damage(store, names[1], header.data_offset + header.arrays["grid"].offset)
    with pytest.raises(CorruptCheckpoint, match="damaged") as caught:
        load(store, names[2], State)
    assert f"array 'grid', block 1 of 6, in {names[1]!r}" in caught.value.where
    result = archive.latest(store, State)
    assert result is not None
    assert result.entry.name == names[0]
    assert [entry.name for entry, _ in result.skipped] == [names[2], names[1]]


@pytest.mark.parametrize("key", [None, KEY], ids=["", "signed"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_flipped_bit_in_a_chain_is_refused_or_of_no_use(which: int, key: bytes | None) -> None:
    """In each byte one: the file itself is refused, and later ones, unless they read as before."""
    store = MemoryStore()
    names = chain(store, key)
    sound = {name: load(store, name, State, key=key) for name in names}
    data = content(store, names[which])
    for at in range(len(data)):
        damage(store, names[which], at, 1 << at % 8)
        with pytest.raises(CorruptCheckpoint):
            load(store, names[which], State, key=key)
        for later in names[which + 1 :]:
            with suppress(CorruptCheckpoint):
                assert same(load(store, later, State, key=key), sound[later])
        store.delete(names[which])
        store.create(names[which], len(data), [data])


def chain_again() -> Store:
    store = MemoryStore()
    chain(store)
    return store


@given(
    st.recursive(
        st.none() | st.integers(-2, 9) | st.sampled_from([2**43, 2**63]) | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3),
    ),
    st.sampled_from(["parents", "bytes", "grid"]),
)
def test_other_extents_and_parents_are_refused(other: Any, where: str) -> None:
    store = MemoryStore()
    name = chain(store)[2]
    assert_refused_or_same(store, name, other, where)


def assert_refused_or_same(store: Store, name: str, other: Any, where: str) -> None:
    """Lay the file out again with other extents or parents, sealed as a writer would."""
    data = content(store, name)
    size = 8 + int.from_bytes(data[:8], "little")
    outer = orjson.loads(data[8:size])
    about = orjson.loads(outer["__metadata__"]["checkpointable"])
    was = about["parents"] if where == "parents" else about["arrays"][where]["extents"]
    if where == "parents":
        about["parents"] = other
    else:
        about["arrays"][where]["extents"] = other
    outer["__metadata__"]["checkpointable"] = orjson.dumps(about).decode()
    header = orjson.dumps(outer)
    size_now = -(-(8 + len(header)) // 4096) * 4096
    prefix = (size_now - 8).to_bytes(8, "little") + header.ljust(size_now - 8)
    table = data[len(data) - 32 - 9 * 16 : -32]
    made = prefix + data[size:-32] + hashlib.sha256(prefix + table).digest()
    store.delete(name)
    store.create(name, len(made), [made])
    if other == was:
        load(store, name, State)
        return
    with pytest.raises(CorruptCheckpoint):
        load(store, name, State)


any_extents = st.lists(
    st.builds(Extent, st.integers(0, 3), st.integers(0, 9), st.integers(1, 6)), max_size=4
).map(tuple)


@given(any_extents, any_extents, st.permutations([0, 1]), st.integers(0, 2))
def test_whatever_blocks_of_its_parents_it_claims(
    few: tuple[Extent, ...], grid: tuple[Extent, ...], order: list[int], count: int
) -> None:
    """A file that is laid out as it should be, but for that: and its digests are of other data."""
    store = MemoryStore()
    name = chain(store)[2]
    sound = archive.read_header(store, name)
    parents = tuple(sound.parents[i] for i in order[:count])
    specs = {a.name: (a.dtype, a.shape) for a in sound.arrays.values()}
    extents = {"bytes": few, "grid": grid, "empty": ()}
    try:
        draft = layout.plan_layout(sound.meta, specs, parents, extents)
    except CorruptCheckpoint:  # too few or too many
        return
    about = {"format": 1} | {k: v for k, v in attrs.asdict(sound.meta).items() if k != "signed"}
    about |= {"arrays": arrays_to_json(draft)}
    about |= {"parents": [(parent.name, parent.seal) for parent in parents]}
    prefix = prefix_of(orjson.dumps(about).decode(), draft)
    rest = bytes(draft.seal_offset)
    table = rest[draft.digests_offset :]
    made = prefix + rest + hashlib.sha256(prefix + table).digest()
    store.delete(name)
    store.create(name, len(made), [made])
    with pytest.raises(CorruptCheckpoint):
        load(store, name, State)


@pytest.mark.parametrize(
    ("extents", "parents"),
    [
        ([[1, 0, 2], [1, 1, 1]], 1),  # a block twice: else a small file could ask for any memory
        ([[1, 3, 1], [1, 0, 1]], 1),
        ([[1, 0, 1], [1, 1, 1]], 1),  # which are one
        ([[0, 0, 1]], 1),  # nothing of the parent
        ([[1, 0, 1], [3, 0, 1]], 3),
        ([[2, 0, 1]], 1),
        ([[1, 0, 0]], 1),
        ([[1, -1, 1]], 1),
        ([[1, 2**43, 1]], 1),
        ([[1, 0, 2**43]], 1),
        ([[1, 0, True]], 1),
        ([[1, 0]], 1),
        ({}, 1),
    ],
)
def test_extents_that_no_writer_makes_are_refused(extents: Any, parents: int) -> None:
    with pytest.raises(CorruptCheckpoint):
        extents_from_json({"a": {"extents": extents}}, parents)


def test_extents_may_have_gaps() -> None:
    """Of a parent not all is needed any more, and who knows in which order shards come."""
    rows = [[1, 0, 1], [1, 5, 1], [0, 0, 2], [1, 6, 1]]
    result = extents_from_json({"a": {"extents": rows}}, 1)
    assert result == {"a": tuple(Extent(*row) for row in rows)}


def test_a_delta_of_one_with_gaps_refers_to_each_block_where_it_is() -> None:
    meta = layout.Meta({}, {}, 1, "", "00", {})
    specs = {"a": (np.dtype(np.uint8), (3 * BLOCK,))}
    gaps = {"a": (Extent(1, 0, 1), Extent(1, 5, 1), Extent(0, 0, 1))}
    header = layout.plan_layout(meta, specs, (layout.Parent("old", "00"),), gaps)
    table = b"".join(bytes([n] * 16) for n in range(3))
    parents, extents = difference(Base("base", header, table, bytes(32)), table[:32] + b"x" * 16)
    assert [parent.name for parent in parents] == ["old"]
    assert extents == gaps


@pytest.mark.parametrize(
    "claimed",
    [
        Extent(1, 9, 1),  # of nine it has 0 to 8
        Extent(1, 8, 2),
        Extent(1, 8, 1),  # 22 bytes, and 64 are needed
        Extent(2, 2, 1),
    ],
)
def test_blocks_that_a_parent_does_not_have_are_missed(claimed: Extent) -> None:
    store = MemoryStore()
    base, delta, _ = chain(store)
    files = [archive.read_header(store, name) for name in (base, delta)]
    meta, parents = files[0].meta, tuple(layout.Parent(n, "0" * 64) for n in (base, delta))
    specs = {"a": (np.dtype(np.uint8), (claimed.count * BLOCK,))}
    header = layout.plan_layout(meta, specs, parents, {"a": (claimed,)})
    with pytest.raises(CorruptCheckpoint, match="lacks its blocks"):
        located([header, *files])


def test_a_parent_with_another_key_is_refused() -> None:
    store, now = MemoryStore(), state()
    name = save(store, now, 0, key=OTHER).name
    with opened(store, name, key=OTHER) as checkpoint:
        base = checkpoint.as_base()
    packed = codec.encode(changed(now, 1, 4), step=1, key=KEY, base=base)
    entry = archive.create(store, 1, packed)
    assert entry.delta
    with pytest.raises(CorruptCheckpoint, match="another key"):
        load(store, entry.name, State, key=KEY)


@pytest.mark.parametrize("which", [0, 1])
def test_a_name_that_says_the_wrong_kind_is_refused(which: int) -> None:
    """Retention goes by it."""
    store = MemoryStore()
    name = chain(store)[which]
    data = content(store, name)
    other = archive.name_of(which, 1, delta=not which)
    store.create(other, len(data), [data])
    with pytest.raises(CorruptCheckpoint, match="its name says otherwise"):
        load(store, other, State)


def test_alone_a_delta_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    name = chain(store)[2]
    (tmp_path / "alone").mkdir()
    (tmp_path / name).rename(tmp_path / "alone" / name)
    with pytest.raises(CorruptCheckpoint, match=re.escape("'step-000000000001.delta.safetensors'")):
        load_file(tmp_path / "alone" / name, State)


def test_a_delta_is_loaded_from_its_file(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    name = chain(store)[2]
    assert same(load_file(tmp_path / name, State), load(store, name, State))


# --- what stays ---------------------------------------------------------------------------------


def test_prune_keeps_what_a_kept_one_continues() -> None:
    store = MemoryStore()
    names = chain(store)
    save(store, state(9), 3)
    names.append("step-000000000003.safetensors")
    assert prune(store, last(2)) == []
    assert [entry.name for entry in prune(store, last(1))] == names[:3]


def test_prune_compacts_what_it_keeps() -> None:
    store = MemoryStore()
    names = chain(store)
    before = load(store, names[2], State)
    assert [entry.name for entry in prune(store, last(1), compact=True)] == names
    (entry,) = entries(store)
    assert (entry.step, entry.delta) == (2, False)
    assert same(load(store, entry.name, State), before)
    assert prune(store, last(1), compact=True) == []


def test_what_a_damaged_delta_continues_stays() -> None:
    """It may be readable later, and then it must not lack anything."""
    store = MemoryStore()
    names = chain(store)
    damage(store, names[2], 9)
    assert prune(store, last(1)) == []
    save(store, state(9), 3)
    assert prune(store, last(2)) == []
    assert [entry.name for entry in prune(store, last(1))] == names


def test_compacting_keeps_the_signature_or_is_refused() -> None:
    store = MemoryStore()
    names = chain(store, KEY)
    with pytest.raises(InvalidCheckpoint, match="lose its signature"):
        prune(store, last(1), compact=True)
    assert [entry.name for entry in entries(store)] == names
    prune(store, last(1), compact=True, key=KEY)
    (entry,) = entries(store)
    assert same(load(store, entry.name, State, key=KEY), load(chain_again(), names[2], State))


@contextmanager
def dying(after: int) -> Iterator[None]:
    """Every call that changes a store fails, from one on."""
    calls = iter(range(1_000_000))

    def counted(method: Any) -> Any:
        def call(*args: Any) -> Any:
            if next(calls) >= after:
                raise KeyboardInterrupt
            return method(*args)

        return call

    with (
        mock.patch.object(MemoryStore, "create", counted(MemoryStore.create)),
        mock.patch.object(MemoryStore, "delete", counted(MemoryStore.delete)),
    ):
        yield


class Deltas(RuleBasedStateMachine):
    """Saves, prunes and compactions in any order, each of which may end anywhere."""

    @initialize(full=st.booleans())
    def begin(self, full: bool) -> None:
        self.blocks = ExitStack()
        self.blocks.enter_context(small_blocks(BLOCK))
        self.store = MemoryStore()
        self.now = state()
        self.step = 0
        self.saved: dict[int, State] = {}

    @rule(places=st.sets(st.integers(0, 8)), data=st.data(), full=st.booleans())
    def save(self, places: set[int], data: st.DataObject, full: bool) -> None:
        self.step += 1
        self.now = changed(self.now, self.step, *places)
        names = [entry.name for entry in entries(self.store)]
        base = None if full or not names else data.draw(st.sampled_from(names))
        save(self.store, self.now, self.step, base=base)
        self.saved[self.step] = self.now

    @rule(keep=st.integers(1, 3), compact=st.booleans(), after=st.integers(0, 6))
    def prune(self, keep: int, compact: bool, after: int) -> None:
        steps = sorted({entry.step for entry in entries(self.store)})
        with dying(after):
            try:
                prune(self.store, last(keep), compact=compact)
            except KeyboardInterrupt:
                assert steps
            except NoCheckpoint:
                assert not steps
        left = {entry.step for entry in entries(self.store)}
        assert left >= set(steps[-keep:])

    @invariant()
    def all_can_be_read(self) -> None:
        for entry in entries(self.store) if hasattr(self, "store") else ():
            assert same(load(self.store, entry.name, State), self.saved[entry.step])

    def teardown(self) -> None:
        self.blocks.close()


TestDeltas = Deltas.TestCase
TestDeltas.settings = settings(stateful_step_count=20)
