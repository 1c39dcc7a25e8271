"""What most of these tests need; a module with needs of its own has fixtures of the same names."""

from collections.abc import Iterator

import pytest

from tests.support import images
from tests.support.client import Client
from tests.support.instance import Instance
from tests.support.registry import registry


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image like alpine in a registry on loopback."""
    with registry(tmp_path_factory.mktemp("registry")) as address:
        yield images.busybox_image(address, "alpine")


@pytest.fixture
def instance() -> Iterator[Instance]:
    """An installation of its own for each test."""
    with Instance() as made:
        yield made


@pytest.fixture
def client(instance: Instance) -> Iterator[Client]:
    """A client of a node that has no containers, before and after."""
    with Client(instance.socket("tinyo-node")) as made:
        yield made
        if names := [container.spec.name for container in made.ls()]:
            made.down(*names)
