"""A node that says what a test wants, and the environment of a command line that finds it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_node import FakeNode


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    with FakeNode(tmp_path) as one:
        yield one


@pytest.fixture
def environment(node: FakeNode) -> dict[str, str]:
    return {**os.environ, "TINYO_HOST": node.address, "TINYO_INSTANCE": "nobody", "TERM": "xterm"}
