"""The promises of a store, at real servers."""

import hypothesis
import pytest

from checkpointable.stores.object.store import ObjectStore
from checkpointable.testing import StoreTests
from tests.stores.object.places import Place


class OfObjects(StoreTests):
    address: str

    def make(self) -> ObjectStore:
        return Place(self.address).store()

    def again(self, store: ObjectStore) -> ObjectStore:
        bucket = store._bucket
        return ObjectStore(bucket.remote, bucket.prefix)


class TestMoto(OfObjects):
    settings = hypothesis.settings(StoreTests.settings, max_examples=5, stateful_step_count=10)

    @pytest.fixture(autouse=True)
    def server(self, moto: str) -> None:
        self.address = moto


class TestSeaweedFS(OfObjects):
    settings = hypothesis.settings(StoreTests.settings, max_examples=10, stateful_step_count=15)

    @pytest.fixture(autouse=True)
    def server(self, seaweedfs: str) -> None:
        self.address = seaweedfs
