"""The power fails at every step that matters: no half image is ever used, and what was acknowledged is there."""

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tinyo_runtime.images import Image, ImageStore, details

from tests.support import crash
from tests.support.crash import Ext4
from tests.support.images import Built, file, folder, hard_link, image, layer, push
from tests.support.registry import registry
from tests.support.stores import in_store, sound

CONTENT = random.Random(1).randbytes(3 << 20)
SMALL = [(f"small/{number}", b"%d" % number * 1000) for number in range(50)]


@pytest.fixture(scope="module")
def built() -> Built:
    files = [file(name, data) for name, data in SMALL]
    return image([layer(file("big", CONTENT), hard_link("link", "big"), folder("small"), *files)])


@pytest.fixture(scope="module")
def demo(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry")) as host:
        yield push(built, f"{host}/demo:1")


async def whole(store: ImageStore) -> None:
    """Each image that can be used has all that it should have."""
    await sound(store)
    for one in store.list():
        tree = store.root / "layers" / one.layers[0]
        assert (tree / "big").read_bytes() == (tree / "link").read_bytes() == CONTENT
        assert [(name, (tree / name).read_bytes()) for name, _ in SMALL] == SMALL


#: Steps in whose order something could be wrong.
STEPS = ("os.rename", "os.remove", "tinyo.*")


@pytest.mark.parametrize("flag", [Ext4.NOLOGFLUSH, Ext4.LOGFLUSH])
def test_the_power_fails_during_a_pull(demo: str, tmp_path: Path, flag: int) -> None:
    def pull(root: Path) -> Image:
        return in_store(root, lambda store: store.pull(demo))

    noted = crash.noted(partial(pull, tmp_path / "noted"), tmp_path / "noted", *STEPS)
    count = len(noted)
    assert count > 12
    reached = tmp_path / "reached"

    def scenario() -> None:
        for number in range(1, count + 1):
            with Ext4(tmp_path / f"{number}.img", tmp_path / str(number)) as disk:
                root = disk.folder / "state"
                points = f"{crash.steps(root, *STEPS)}#{number}=wait:{reached}"
                with crash.process(partial(pull, root), points) as pid:
                    crash.until(reached.exists)
                    disk.fail(flag)
                    os.kill(pid, signal.SIGKILL)
                reached.unlink()
                disk.return_()
                in_store(root, whole)
                pull(root)
                in_store(root, whole)

    assert crash.outcome(scenario) == 0


def test_the_power_fails_while_an_image_is_removed(demo: str, tmp_path: Path) -> None:
    """It is there or gone, and what is left of it hurts nobody."""

    async def remove(store: ImageStore) -> None:
        store.remove(demo)

    before, reached = tmp_path / "before", tmp_path / "reached"
    in_store(before, lambda store: store.pull(demo))
    shutil.copytree(before, tmp_path / "noted")
    noted = partial(in_store, tmp_path / "noted", remove)
    count = len(crash.noted(noted, tmp_path / "noted", *STEPS))
    assert count > 6

    def scenario() -> None:
        for number in range(1, count + 1):
            with Ext4(tmp_path / f"{number}.img", tmp_path / str(number)) as disk:
                root = disk.folder / "state"
                shutil.copytree(before, root)
                subprocess.run(["sync", "-f", root], check=True)
                points = f"{crash.steps(root, *STEPS)}#{number}=wait:{reached}"
                with crash.process(partial(in_store, root, remove), points) as pid:
                    crash.until(reached.exists)
                    disk.fail(Ext4.NOLOGFLUSH)
                    os.kill(pid, signal.SIGKILL)
                reached.unlink()
                disk.return_()
                in_store(root, whole)
                in_store(root, lambda store: store.pull(demo))
                in_store(root, whole)

    assert crash.outcome(scenario) == 0


@pytest.mark.parametrize("flag", [Ext4.NOLOGFLUSH, Ext4.LOGFLUSH])
def test_what_was_acknowledged_outlives_the_power(demo: str, tmp_path: Path, flag: int) -> None:
    def scenario() -> None:
        with Ext4(tmp_path / "image", tmp_path / "disk") as disk:
            root = disk.folder / "state"

            async def pull(store: ImageStore) -> None:
                await store.pull(demo)
                disk.fail(flag)

            async def tag(store: ImageStore) -> None:
                assert [one.references for one in store.list()] == [(demo,)]
                await whole(store)
                details.tag(store, demo, "localhost/new:1")
                disk.fail(flag)

            async def remove(store: ImageStore) -> None:
                assert [one.references for one in store.list()] == [(demo, "localhost/new:1")]
                store.remove(store.list()[0].digest)
                disk.fail(flag)

            async def gone(store: ImageStore) -> None:
                assert store.list() == []
                await sound(store)

            for use in (pull, tag, remove):
                in_store(root, use, tidy=False)
                disk.return_()
            in_store(root, gone)

    assert crash.outcome(scenario) == 0
