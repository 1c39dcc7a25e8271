"""What every test gets: nobody escapes, and nothing is left behind."""

import ctypes
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clean import assert_clean, snapshot
from tests.support.registry import registry

pytest_plugins = ["tests.support.box", "tests.support.cover", "tests.support.lan"]

PR_SET_CHILD_SUBREAPER = 36
HERE = Path(__file__).parent
#: Tests that touch the machine.
ON_THE_MACHINE = [HERE / name for name in ("attacks", "integration", "e2e", "faults")]


def pytest_configure() -> None:
    """A service that outlives what started it becomes our child, where `assert_clean` finds it."""
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("prctl(PR_SET_CHILD_SUBREAPER) failed")


@pytest.fixture(scope="module")
def registry_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the registry of `host` keeps its state and its log."""
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def host(registry_folder: Path) -> Iterator[str]:
    """A registry on loopback, which wants to know nothing; a module with needs of its own has fixtures of these names."""
    with registry(registry_folder) as address:
        yield address


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of a Debian with Python, made once for all tests that need a real distribution."""
    tree = tmp_path_factory.mktemp("debian") / "debian.tar"
    command = ["mmdebstrap", "--quiet", "--variant=essential", "--mode=root", "--include=libpython3-stdlib"]
    made = subprocess.run([*command, "bookworm", tree], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no Debian can be made here: {made.stderr.strip().splitlines()[-1]}")
    return tree


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """A leak fails the test that made it. Fixtures of a wider scope are there before and after."""
    if not any(request.path.is_relative_to(folder) for folder in ON_THE_MACHINE):
        yield
        return
    baseline = snapshot()
    yield
    assert_clean(baseline)
