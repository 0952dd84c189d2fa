"""Reading from far away: what is verified, and how much is asked for."""

import asyncio
import contextlib
import io

import attrs
import numpy as np
import obstore
import pytest

from checkpointable import Array, Checkpointer, CorruptCheckpoint, run
from checkpointable.archive import entries, latest, opened, read_header, save, verify
from checkpointable.cli import main
from checkpointable.format.layout import BLOCK
from checkpointable.format.read_arrays import read_array, read_rows
from checkpointable.runner.when import at
from checkpointable.stores.object.store import ObjectStore
from checkpointable.stores.object.uploads import PART
from tests.helpers.kernels import Counter, after
from tests.stores.object.places import Place, remote
from tests.stores.object.proxy import Proxy, Request
from tests.stores.object.servers import BUCKET, KEY, SECRET


@attrs.frozen
class Large:
    step: int
    field: Array[np.float64]
    few: Array[np.int16]


BLOCKS = 2 * PART // BLOCK + 3
LARGE = Large(
    1,
    np.random.default_rng(0).random((BLOCKS * BLOCK - 800) // 8),
    np.arange(999, dtype=np.int16),
)


@pytest.fixture
def stored(near: Place) -> str:
    return save(near.store(), LARGE, 1).name


def reads(proxy: Proxy) -> list[Request]:
    return [one for one in proxy.requests if one.method == "GET" and "/uploads/" in one.path]


def test_runs_of_blocks_come_in_few_requests(proxy: Proxy, far: Place, stored: str) -> None:
    with opened(far.store(), stored) as checkpoint:
        proxy.reset()
        assert np.array_equal(read_array(checkpoint, "field"), LARGE.field)
        assert len(reads(proxy)) == 3
        proxy.reset()
        rows = BLOCK // 8
        result = read_rows(checkpoint, "field", 2 * rows - 1, 4 * rows + 1)
        assert np.array_equal(result, LARGE.field[2 * rows - 1 : 4 * rows + 1])
        assert len(reads(proxy)) == 1
        assert proxy.received == 4 * BLOCK


def test_so_does_a_verification(proxy: Proxy, far: Place, stored: str) -> None:
    verify(far.store(), stored)
    assert len(reads(proxy)) < 8


def test_what_lies_in_pieces_is_read_together_again(near: Place, proxy: Proxy, far: Place) -> None:
    kernel = Holder()
    store = near.store()
    checkpointer = Checkpointer(kernel, store, delta=True)
    for step, block in enumerate((None, 2, 9, 3), 1):
        kernel.step = step
        if block is not None:
            kernel.field[block * BLOCK // 8] += 1.0
        asyncio.run(_saved(checkpointer))
    assert read_header(store, entries(store)[-1].name).parents
    result = Holder()
    asyncio.run(Checkpointer(result, far.store()).restore_latest())
    assert np.array_equal(result.field, kernel.field)
    verify(far.store(), entries(store)[-1].name)
    # Five runs at least: two of the oldest, split by what changed later.
    assert len({one.path for one in reads(proxy)}) == 4


async def _saved(checkpointer: Checkpointer[Large]) -> None:
    await (await checkpointer.save())


class Holder:
    """A kernel of a large array."""

    def __init__(self) -> None:
        self.step = 0
        self.field = np.array(LARGE.field)
        self.few = np.array(LARGE.few)

    async def checkpoint(self) -> Large:
        return Large(self.step, self.field.copy(), self.few.copy())

    async def restore(self, checkpoint: Large) -> None:
        self.step = checkpoint.step
        self.field[:] = checkpoint.field
        self.few[:] = checkpoint.few


@pytest.mark.parametrize("block", [0, 9, BLOCKS - 1])
def test_a_rotten_block_is_named(near: Place, stored: str, block: int) -> None:
    save(near.store(), attrs.evolve(LARGE, step=2), 2)
    newest = entries(near.store())[-1].name
    (key,) = near.keys(f"uploads/{newest}")
    server = remote(near.address)
    data = bytearray(obstore.get(server, f"{near.prefix}/{key}").bytes())
    data[4096 + block * BLOCK + 77] ^= 1
    obstore.put(server, f"{near.prefix}/{key}", bytes(data))
    for read in (verify, read_all):
        with pytest.raises(CorruptCheckpoint) as caught:
            read(near.store(), newest)
        assert f"block {block}" in caught.value.where
    result = latest(near.store(), Large)
    assert result
    assert result.checkpoint.step == 1
    assert [entry.step for entry, _ in result.skipped] == [2]


def read_all(store: ObjectStore, name: str) -> None:
    with opened(store, name) as checkpoint:
        read_array(checkpoint, "field")


def test_a_listing_opens_no_checkpoint(proxy: Proxy, far: Place, stored: str) -> None:
    (result,) = entries(far.store())
    assert result.name == stored
    assert len(proxy.requests) == 2
    assert proxy.received < 4096


def test_a_header_is_two_requests(proxy: Proxy, far: Place, stored: str) -> None:
    read_header(far.store(), stored)
    assert len(proxy.requests) == 2
    assert proxy.received <= (64 << 10) + 200


@pytest.fixture
def url(far: Place, monkeypatch: pytest.MonkeyPatch) -> str:
    """The far place, as a command line has it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return f"s3://{BUCKET}/{far.prefix}?endpoint={far.address}"


def command(*words: str) -> tuple[int, str]:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = main(list(words))
    return code, output.getvalue()


def test_commands_that_list_read_headers_only(proxy: Proxy, url: str, stored: str) -> None:
    for words in (["ls", "--long", url], ["show", url]):
        proxy.reset()
        code, output = command(*words)
        assert (code, stored in output) == (0, True)
        assert proxy.received < 200_000


def test_commands_name_places_by_their_address(url: str, stored: str) -> None:
    place, _, options = url.partition("?")
    for words in (["verify", url], ["show", url, "few"], ["show", url, "1", "--json"]):
        code, output = command(*words)
        assert code == 0
        assert f"{place}/{stored}?{options}" in output


def test_a_run_goes_on_from_a_bucket_as_if_it_had_never_stopped(url: str) -> None:
    first = Counter()
    run(first, url, until=7, save=at(range(0, 100, 3)))
    second = Counter()
    report = run(second, url, until=20, save=at(range(0, 100, 3)))
    assert report.first_step == 7
    assert np.array_equal(second.total, after(20).total)
