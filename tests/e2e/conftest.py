"""What most of these tests need; a module with needs of its own has fixtures of the same names."""

from collections.abc import Iterator

import pytest

from tests.support.instance import Instance


@pytest.fixture
def instance() -> Iterator[Instance]:
    """An installation of its own for each test."""
    with Instance() as made:
        yield made
