"""Places in a bucket of a test server, and what lies in them."""

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import obstore
from attrs import field, frozen
from obstore.store import S3Store

from checkpointable.stores.object.store import ObjectStore
from tests.stores.object.servers import BUCKET, KEY, SECRET

if TYPE_CHECKING:
    from obstore.store import BackoffConfig


def remote(address: str, retries: int = 3, timeout: str = "20s") -> S3Store:
    """obstore's store of the bucket; it tries again, but not for long."""
    backoff: BackoffConfig = {
        "init_backoff": timedelta(milliseconds=1),
        "max_backoff": timedelta(milliseconds=20),
        "base": 2,
    }
    return S3Store(
        BUCKET, endpoint=address, region="us-east-1",
        access_key_id=KEY, secret_access_key=SECRET,
        client_options={"allow_http": True, "timeout": timeout},
        retry_config={
            "max_retries": retries, "retry_timeout": timedelta(seconds=20), "backoff": backoff,
        },
    )  # fmt: skip


@frozen
class Place:
    """A place at a server: its stores, and its objects without them."""

    address: str
    prefix: str = field(factory=lambda: uuid4().hex)

    def store(self, retries: int = 3) -> ObjectStore:
        """Open the place, as a process would."""
        return ObjectStore(remote(self.address, retries), self.prefix)

    def keys(self, folder: str = "") -> list[str]:
        """The keys of all objects below a folder."""
        result = obstore.list(remote(self.address), f"{self.prefix}/{folder}".rstrip("/")).collect()
        return sorted(one["path"].removeprefix(f"{self.prefix}/") for one in result)
