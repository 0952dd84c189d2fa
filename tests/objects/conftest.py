"""The servers, started by the first test of a process that needs one."""

from collections.abc import Iterator

import pytest

from tests.objects import servers
from tests.objects.places import Place, make_bucket


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as address:
        make_bucket(address)
        yield address


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.moto(tmp_path_factory.mktemp("moto")) as address:
        make_bucket(address)
        yield address


@pytest.fixture
def place(moto: str) -> Place:
    """A new place at the fast server."""
    return Place(moto)
