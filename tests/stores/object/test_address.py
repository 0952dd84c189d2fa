"""Addresses of places in object stores; and that no credentials are ever shown."""

import json
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from obstore.store import S3Store

from checkpointable.errors import CheckpointableError, StoreError, StoreFull
from checkpointable.stores import open_store
from checkpointable.stores.object.bucket import Bucket
from checkpointable.stores.object.store import ObjectStore
from checkpointable.stores.object.uploads import escaped, unescaped
from checkpointable.stores.protocol import Store
from checkpointable.testing.stores import listed, read
from tests.stores.object import servers
from tests.stores.object.places import Place
from tests.stores.object.servers import BUCKET, KEY, SECRET


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")


def bucket_of(store: Store) -> Bucket:
    assert isinstance(store, ObjectStore)
    return store._bucket


def test_options_have_their_standard_names(moto: str) -> None:
    address = f"s3://{BUCKET}/a place/ä?endpoint={moto}&region=us-east-1&timeout=20s"
    store = open_store(f"{address}&max_retries=3&retry_timeout=30s")
    store.create("x", 1, [b"x"])
    assert read(open_store(address), "x") == b"x"
    assert repr(store) == f"ObjectStore('s3://{BUCKET}/a place/ä?endpoint={moto}')"


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("s3://bucket", "S3Store"),
        ("s3://bucket/a/b/", "S3Store"),
        ("S3://bucket/a?region=eu-central-1&virtual_hosted_style_request=true", "S3Store"),
        ("s3://bucket/a?aws_sse_kms_key_id=alias&skip_signature=true", "S3Store"),
        ("gs://bucket/a", "GCSStore"),
        ("az://container/a", "AzureStore"),
        ("abfss://container@account.dfs.core.windows.net/a", "AzureStore"),
    ],
)
def test_services(url: str, kind: str) -> None:
    store = open_store(url)
    assert type(bucket_of(store).remote).__name__ == kind
    assert url.partition("?")[0].rstrip("/").partition("@")[2] in repr(store)


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("s3://", "not an address"),
        ("s3:///a", "not an address"),
        ("s3://bucket/a#b", "not an address"),
        ("s3://bucket?colour=red", "colour"),
        ("s3://bucket?timeout=soon", "soon"),
        ("s3://bucket?max_retries=-1", "max_retries=-1"),
        ("s3://bucket?retry_timeout=soon", "retry_timeout=soon"),
        ("s3://bucket?region=a&region=b", "twice"),
        ("ftp://bucket/a", "no store for such an address"),
        ("file:///tmp/a", "no store for such an address"),
    ],
)
def test_what_is_none(url: str, what: str) -> None:
    with pytest.raises(StoreError, match=what) as caught:
        open_store(url)
    assert caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "s3://hush:hush-hush@bucket/a",
        "s3://bucket/a?access_key_id=hush",
        "s3://bucket/a?AWS_SECRET_ACCESS_KEY=hush",
        "s3://bucket/a?session_token=hush",
        "s3://bucket/a?aws_sse_customer_key_base64=hush",
        "az://container/a?sas_key=hush",
        "gs://bucket/a?google_service_account_key=hush",
        "s3://bucket/a?endpoint=http://me:hush@localhost:1",
        "s3://bucket/a?proxy_url=http://me:hush@localhost:1",
    ],
)
def test_an_address_with_credentials_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(StoreError, match="must not hold credentials") as caught:
        open_store(url)
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint
    assert "hush" not in "".join(traceback.format_exception(caught.value))


def test_no_error_shows_credentials(seaweedfs: str) -> None:
    wrong = "another-secret-that-nobody-sees"
    remote = S3Store(
        BUCKET, endpoint=seaweedfs, region="us-east-1", access_key_id=KEY, secret_access_key=wrong,
        client_options={"allow_http": True}, retry_config={"max_retries": 0},
    )  # fmt: skip
    store = ObjectStore(remote, "a")
    calls: list[Callable[[], object]] = [
        lambda: listed(store),
        lambda: store.create("a", 0, []),
        lambda: store.open("a").__enter__(),
        lambda: store.delete("a"),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="403") as caught:
            call()
        redacted = "".join(traceback.format_exception(caught.value)) + repr(store)
        assert wrong not in redacted
        assert SECRET not in redacted
        assert KEY not in redacted
        assert "Debug source" not in redacted, "obstore's own text, which may repeat anything"
        assert "credentials" in caught.value.hint


def test_credentials_that_an_error_repeats_are_taken_out(moto: str) -> None:
    result = bucket_of(open_store(f"s3://{BUCKET}/a?endpoint={moto}"))
    text = f"no host for {SECRET}: http://x/?X-Amz-Signature=123\nDebug source: {SECRET}"
    redacted = str(result._translated(ValueError(text), "here"))
    assert redacted.startswith("no host for ...: http://x/\n  where: here\n  hint: ")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("status code: 507 Insufficient Storage: ", StoreFull),
        ("status code: 403 Forbidden: <?xml?><Error><Code>QuotaExceeded</Code>", StoreFull),
        ("status code: 500 Internal Server Error: ", StoreError),
    ],
)
def test_a_full_service_is_full(text: str, error: type[CheckpointableError]) -> None:
    result = bucket_of(open_store("s3://bucket/a"))
    assert type(result._translated(ValueError(text), "here")) is error


def test_without_obstore_it_says_what_to_install() -> None:
    code = """
import sys
sys.modules["obstore"] = None
from checkpointable import StoreError, open_store
try:
    open_store("s3://bucket/a")
except StoreError as error:
    print(error.hint)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "pip install 'checkpointable[object]'\n"


NAMES = ["50%", "%41", "a\\b", "a\nb", "\x7f", "x&y;=é😀", "a#b?c", "~*'\"<>[]{}", "\u200b", "a.."]


def test_any_name_is_kept_as_it_is(seaweedfs: str) -> None:
    store = Place(seaweedfs).store()
    with store.lock():
        for name in NAMES:
            store.create(name, 1, [b"x"])
    assert sorted(listed(store)) == sorted(NAMES)
    for name in NAMES:
        assert unescaped(escaped(name)) == name
        assert read(store, name) == b"x"
    assert unescaped("%41") is None
    assert unescaped(".probe") is None


def test_the_lifecycle_rule_of_the_docs_is_one(moto: str) -> None:
    page = (Path(__file__).parents[3] / "docs/object-stores.md").read_text()
    (rule,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    servers.client(moto).put_bucket_lifecycle_configuration(
        Bucket=BUCKET, LifecycleConfiguration=json.loads(rule)
    )
