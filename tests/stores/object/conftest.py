"""The servers, started by the first test of a process that needs one."""

from collections.abc import Iterator

import pytest

from tests.stores.object import servers
from tests.stores.object.places import Place
from tests.stores.object.proxy import Proxy, proxied


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as address:
        servers.make_bucket(address)
        yield address


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.moto(tmp_path_factory.mktemp("moto")) as address:
        servers.make_bucket(address)
        yield address


@pytest.fixture
def place(moto: str) -> Place:
    """A new place at the fast server."""
    return Place(moto)


@pytest.fixture
def proxy(seaweedfs: str) -> Iterator[Proxy]:
    """A proxy of the real server."""
    with proxied(seaweedfs) as proxy:
        yield proxy


@pytest.fixture
def near(seaweedfs: str, proxy: Proxy) -> Place:
    """A new place at the real server, without the proxy between."""
    return Place(seaweedfs)


@pytest.fixture
def far(near: Place, proxy: Proxy) -> Place:
    """The same place by the proxy."""
    return Place(proxy.address, near.prefix)
