"""A checkpoint is whole or absent, and its writer is told the truth, whatever the network does."""

import threading
from collections.abc import Callable, Iterator

import obstore
import pytest

from checkpointable.errors import CheckpointExists, CorruptCheckpoint, NoCheckpoint, StoreError
from checkpointable.stores.object import bucket
from checkpointable.stores.object.store import ObjectStore
from checkpointable.testing.stores import listed, read
from tests.stores.object import servers
from tests.stores.object.places import Place, remote
from tests.stores.object.proxy import Fate, Proxy, Request, always, once, proxied

BLOB = bytes(range(256)) * (6 << 12)  # 6 MiB: two parts


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "PART", 5 << 20)  # the least that S3 takes


def create(store: ObjectStore, name: str = "a", blob: bytes = BLOB) -> None:
    size = 1 << 20
    store.create(name, len(blob), [blob[at : at + size] for at in range(0, len(blob), size)])


def leftovers(place: Place) -> list[str]:
    """The keys that belong to no checkpoint."""
    names = {key.split("/")[1] for key in place.keys("heads")}
    uploads = place.keys("uploads")
    return [key for key in uploads if key.split("/")[1] not in names or len(uploads) > len(names)]


WHICH: dict[str, Callable[[Request], bool]] = {
    "a part": Request.is_part,
    "the completion": Request.is_completion,
    "the commit object": Request.is_commit_object,
    "the beginning": lambda request: request.method == "POST" and request.query == "uploads=",
    "the lock": lambda request: request.method == "PUT" and request.path.endswith("/lock"),
    "a look": lambda request: request.method == "HEAD",
    "a list": lambda request: "list-type=2" in request.query,
    "a probe": lambda request: "/uploads/.probe/" in request.path,
}
FATES: tuple[Fate, ...] = ("refused", "lost", "unavailable")


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("which", WHICH)
def test_what_goes_wrong_once_is_tried_again(
    proxy: Proxy, near: Place, far: Place, which: str, fate: Fate
) -> None:
    hit: list[Request] = []

    def one(request: Request) -> bool:
        if WHICH[which](request):
            hit.append(request)
        return WHICH[which](request)

    proxy.fate = once(one, fate)
    create(far.store())
    assert hit
    assert read(near.store(), "a") == BLOB
    assert not leftovers(near)


@pytest.mark.parametrize("which", ["the completion", "the commit object"])
def test_what_was_done_counts_even_if_no_answer_ever_comes(
    proxy: Proxy, near: Place, far: Place, which: str
) -> None:
    proxy.fate = always(WHICH[which], "lost")
    create(far.store(retries=1))
    assert read(near.store(), "a") == BLOB
    assert not leftovers(near)


@pytest.mark.parametrize(
    "which", ["a part", "the completion", "the commit object", "the beginning"]
)
def test_what_is_never_done_leaves_nothing_that_shows(
    proxy: Proxy, near: Place, far: Place, which: str
) -> None:
    proxy.fate = always(WHICH[which], "unavailable")
    with pytest.raises(StoreError, match="503"):
        create(far.store(retries=1))
    assert not listed(near.store())
    assert not unfinished(near)
    with near.store().lock():
        assert not leftovers(near)
    create(near.store())


def unfinished(place: Place) -> list[str]:
    """The keys of uploads that were begun and neither completed nor aborted."""
    result = servers.client(place.address).list_multipart_uploads(Bucket=servers.BUCKET)
    return [one["Key"] for one in result.get("Uploads", []) if place.prefix in one["Key"]]


def test_each_chunk_is_used_up_at_once_also_in_many_parts(near: Place) -> None:
    chunk = bytearray(1 << 20)

    def chunks() -> Iterator[bytearray]:
        for number in range(17):
            chunk[:] = bytes([number]) * len(chunk)
            yield chunk

    near.store().create("a", 17 << 20, chunks())
    assert read(near.store(), "a") == b"".join(bytes([n]) * len(chunk) for n in range(17))


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError(28, "no"), KeyboardInterrupt()])
def test_an_upload_is_aborted_when_its_chunks_fail(near: Place, error: BaseException) -> None:
    def chunks() -> Iterator[bytes]:
        yield BLOB
        raise error

    with pytest.raises(type(error)) as caught:
        near.store().create("a", 2 * len(BLOB), chunks())
    assert caught.value is error
    assert not unfinished(near)
    assert near.keys() == ["lock"]


def test_a_conflict_is_no_loss(proxy: Proxy, near: Place, far: Place) -> None:
    """As S3 answers when another was at the key at the same moment, and came to nothing."""
    proxy.fate = once(Request.is_commit_object, "conflict")
    create(far.store())
    assert read(near.store(), "a") == BLOB


def test_a_conflict_without_end_is_an_error(
    proxy: Proxy, near: Place, far: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkpointable.stores.object.store._PAUSE", 0.0)
    proxy.fate = always(Request.is_commit_object, "conflict")
    with pytest.raises(StoreError, match="other writers"):
        create(far.store())
    assert not listed(near.store())


def test_a_lost_race_is_told_even_if_its_answer_is_lost(
    proxy: Proxy, near: Place, far: Place
) -> None:
    def meanwhile(request: Request) -> str:
        if not request.is_commit_object() or "/a" not in request.path or near.keys("heads"):
            return "lost" if request.is_commit_object() else ""
        create(near.store().without_lock(), blob=b"first")
        return "lost"

    proxy.fate = meanwhile
    with pytest.raises(CheckpointExists):
        create(far.store())
    assert read(near.store(), "a") == b"first"
    assert not leftovers(near)


def test_a_reader_goes_on_after_a_cut(proxy: Proxy, near: Place, far: Place) -> None:
    create(near.store())
    proxy.fate = once(lambda request: "/uploads/" in request.path, "cut")
    assert read(far.store(), "a") == BLOB


def test_a_server_that_is_gone_is_an_error_of_ours(proxy: Proxy, near: Place, far: Place) -> None:
    create(near.store())
    store = far.store(retries=1)
    with store.open("a") as reader:
        proxy.fate = always(lambda request: True, "refused")
        for call in (
            lambda: reader.read_into(0, memoryview(bytearray(100))),
            lambda: reader.read_into(0, memoryview(bytearray(5 << 20))),
            lambda: store.open("a").__enter__(),
            lambda: list(store.list()),
            lambda: create(store, "b"),
            lambda: store.delete("a"),
        ):
            with pytest.raises(StoreError) as caught:
                call()
            assert caught.value.hint
            assert proxy.address in caught.value.where or "S3Store" in caught.value.where


def test_a_slow_answer_is_not_waited_for(proxy: Proxy, near: Place, far: Place) -> None:
    create(near.store())
    proxy.fate = once(lambda request: "/uploads/" in request.path, "held")
    store = ObjectStore(remote(proxy.address, timeout="0.5s"), far.prefix)
    assert read(store, "a") == BLOB


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_server_that_takes_no_notice_of_conditions_is_refused(moto: str, header: str) -> None:
    """At moto, which does not check signatures."""
    with proxied(moto) as proxy:
        proxy.strips = header
        place = Place(proxy.address)
        with pytest.raises(StoreError, match=f"ignores {header}"):
            create(place.store())
        assert not place.keys()


def test_only_a_head_that_is_whole_counts(near: Place) -> None:
    create(near.store())
    (key,) = near.keys("uploads")
    server = remote(near.address)
    obstore.delete(server, f"{near.prefix}/{key}")
    with pytest.raises(CorruptCheckpoint, match="gone"):
        read(near.store(), "a")
    obstore.put(server, f"{near.prefix}/{key}", BLOB[:-1])
    with pytest.raises(CorruptCheckpoint, match="ends at"):
        read(near.store(), "a")
    obstore.put(server, f"{near.prefix}/heads/a", b'{"nonce": "../../x", "size": 3}')
    with pytest.raises(CorruptCheckpoint, match="commit object is damaged"):
        read(near.store(), "a")
    near.store().delete("a")
    with pytest.raises(NoCheckpoint):
        near.store().delete("a")


def test_who_reads_what_another_process_deletes_is_told(near: Place) -> None:
    """Not that of a thread of its own: `StoreTests` has that."""
    create(near.store())
    with near.store().open("a") as reader:
        for key in near.keys("heads") + near.keys("uploads"):
            obstore.delete(remote(near.address), f"{near.prefix}/{key}")
        with pytest.raises(NoCheckpoint, match="by another process"):
            reader.read_into(0, memoryview(bytearray(10)))


def test_one_of_eight_wins_each_of_thirty_races(near: Place) -> None:
    """Fifteen at once: SeaweedFS now and then takes a second over one."""
    stores = [near.store().without_lock() for _ in range(8)]
    ended: dict[str, list[str]] = {f"race-{turn}": [""] * 8 for turn in range(30)}

    def write(barrier: threading.Barrier, name: str, number: int) -> None:
        barrier.wait()
        try:
            stores[number].create(name, 1, [bytes([number])])
            ended[name][number] = "won"
        except CheckpointExists:
            ended[name][number] = "lost"

    for batch in (list(ended)[:15], list(ended)[15:]):
        threads = []
        for name in batch:
            barrier = threading.Barrier(8)
            threads += [
                threading.Thread(target=write, args=(barrier, name, number)) for number in range(8)
            ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for name, reported in ended.items():
        assert sorted(reported) == ["lost"] * 7 + ["won"]
        assert read(near.store(), name) == bytes([reported.index("won")])
    assert not leftovers(near)
