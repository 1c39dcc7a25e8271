"""What most of these tests need; a module with needs of its own has fixtures of the same names."""

from collections.abc import Iterator

import pytest

from tests.support.instance import Instance
from tests.support.registry import registry


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry on loopback."""
    with registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def instance() -> Iterator[Instance]:
    """An installation of its own for each test."""
    with Instance() as made:
        yield made
