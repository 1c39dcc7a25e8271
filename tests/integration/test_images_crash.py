"""SIGKILL at every step, and at any moment: what is there afterwards is whole, and a pull goes on from there."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from tinyo.v1.image_pb2 import PullProgress
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import Image, ImageStore, details, patience
from tinyo_runtime.images.prune import InUse, prune

from tests.support import crash
from tests.support.images import Built, file, image, layer, push
from tests.support.liar import liar, send
from tests.support.registry import registry, served
from tests.support.stores import in_store, sound

MB = 1 << 20
Use = Callable[[ImageStore], Awaitable[object]]


@pytest.fixture(scope="module")
def built() -> Built:
    """One layer, which is worth keeping when it did not come completely."""
    return image([layer(file("big", random.Random(1).randbytes(3 * MB)))])


@pytest.fixture(scope="module")
def demo(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its name in a registry."""
    with registry(tmp_path_factory.mktemp("registry")) as host:
        yield push(built, f"{host}/demo:1")


def restarted(root: Path, reference: str) -> None:
    """What must be true after a crash: a start clears up, nothing is wrong, and a pull completes."""
    in_store(root, sound)
    assert os.listdir(root / "pulling") == []

    async def again(store: ImageStore) -> None:
        pulled = await store.pull(reference)
        assert (root / "layers" / pulled.layers[0] / "big").stat().st_size == 3 * MB
        await sound(store)

    in_store(root, again)
    assert os.listdir(root / "pulling") == os.listdir(root / "partial") == []
    assert len(os.listdir(root / "images/blobs/sha256")) == 3
    assert len(os.listdir(root / "layers")) == 1


def test_sigkill_at_every_step_of_a_pull(demo: str, tmp_path: Path) -> None:
    def pull(root: Path) -> Callable[[], object]:
        return lambda: in_store(root, lambda store: store.pull(demo))

    points = crash.noted(pull(tmp_path / "noted"), tmp_path / "noted")
    assert len(points) > 20
    for number in range(1, len(points) + 1):
        root = tmp_path / str(number)
        assert crash.outcome(pull(root), f"{crash.steps(root)}#{number}=kill") in (0, -signal.SIGKILL)
        restarted(root, demo)
        shutil.rmtree(root)


async def _tag(store: ImageStore) -> None:
    details.tag(store, store.list()[0].digest, "localhost/new:1")


async def _remove(store: ImageStore) -> None:
    store.remove(store.list()[0].digest)


async def _prune(store: ImageStore) -> None:
    await prune(store, InUse, all=True, dry_run=False)


@pytest.mark.parametrize("use", [_tag, _remove, _prune])
def test_sigkill_at_every_step_of_other_work(demo: str, tmp_path: Path, use: Use) -> None:
    in_store(tmp_path / "before", lambda store: store.pull(demo))

    def work(root: Path) -> Callable[[], object]:
        shutil.copytree(tmp_path / "before", root)
        return lambda: in_store(root, use)

    points = crash.noted(work(tmp_path / "noted"), tmp_path / "noted")
    assert len(points) >= 5
    for number in range(1, len(points) + 1):
        root = tmp_path / str(number)
        assert crash.outcome(work(root), f"{crash.steps(root)}#{number}=kill") == -signal.SIGKILL
        restarted(root, demo)


def test_sigkill_at_any_moment(demo: str, tmp_path: Path) -> None:
    """Again and again in one store: what is left of one pull is where the next begins."""
    moments = random.Random(os.environ.get("TINYO_SEED", "1"))
    for _ in range(12):
        with crash.process(lambda: in_store(tmp_path, lambda store: store.pull(demo))) as pid:
            time.sleep(moments.uniform(0, 0.2))
            os.kill(pid, signal.SIGKILL)
        if moments.random() < 0.3:
            restarted(tmp_path, demo)
            in_store(tmp_path, _remove)
    restarted(tmp_path, demo)


#: What a process runs that pulls, with the folder and the reference as its arguments.
PULL = """
import asyncio, pathlib, sys
from tinyo_runtime.images import ImageStore
async def pull():
    store = ImageStore(pathlib.Path(sys.argv[1]))
    await store.pull(sys.argv[2])
    await store.close()
asyncio.run(pull())
"""


@pytest.mark.parametrize("call", ["write", "/^(mkdir|rename|link|unlink)(at2?)?$", "/^(fsync|syncfs)$"])
def test_sigkill_at_system_calls(demo: str, tmp_path: Path, call: str) -> None:
    """Of whichever process comes to it, those that unpack as well: the kernel knows points that Python does not."""
    at = random.Random(f"{call} {os.environ.get('TINYO_SEED', '1')}").randint(1, 6)
    inject = f"inject={call}:signal=KILL:when={at}"
    command = [
        "strace",
        "-f",
        "-qq",
        "-e",
        f"trace={call}",
        "-o",
        tmp_path / "trace",
        "-e",
        inject,
    ]
    in_store(tmp_path / "state", sound)
    subprocess.run([*map(str, command), sys.executable, "-c", PULL, tmp_path / "state", demo])
    assert "killed by SIGKILL" in (tmp_path / "trace").read_text()
    restarted(tmp_path / "state", demo)


class Halting:
    """A registry that halts after two thirds of the large layer, when it is first asked for it."""

    def __init__(self, built: Built) -> None:
        self.built, self.asked = built, list[str]()
        self.halted, self.goes_on = threading.Event(), threading.Event()

    def lie(self, request: BaseHTTPRequestHandler, body: bytes) -> bool:
        if len(body) < MB:
            return False
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        self.asked.append(request.headers.get("Range", "all"))
        if self.halted.is_set():
            send(request, body[start:], 206 if start else 200)
        else:
            send(request, body[: 2 * MB], length=len(body))
            self.halted.set()
            self.goes_on.wait(20)
            request.close_connection = True
        return True


@pytest.mark.parametrize("end", ["killed", "cancelled", "cut off"])
@pytest.mark.parametrize("kept", ["right", "wrong"])
def test_a_layer_is_continued(
    built: Built, tmp_path: Path, end: str, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ended the pull; and when the bytes that were kept are wrong, all are fetched anew."""
    monkeypatch.setattr(patience, "DELAYS", ())
    halting, reports = Halting(built), list[PullProgress]()

    def arrived() -> None:
        """Returns when most of what was sent is on the disk; the rest is on its way, or in a buffer."""
        assert halting.halted.wait(20)
        crash.until(lambda: sum(path.stat().st_size for path in (tmp_path / "partial").iterdir()) > 1.5 * MB)

    with served(liar(built, halting.lie)) as host:

        async def pull(store: ImageStore) -> Image:
            return await store.pull(f"{host}/x:1")

        async def interrupted(store: ImageStore) -> None:
            task = asyncio.create_task(pull(store))
            await asyncio.to_thread(arrived)
            if end == "cancelled":
                task.cancel()
            halting.goes_on.set()
            with pytest.raises(asyncio.CancelledError if end == "cancelled" else TinyoError):
                await task

        if end == "killed":
            with crash.process(lambda: in_store(tmp_path, pull)) as pid:
                arrived()
                os.kill(pid, signal.SIGKILL)
        else:
            in_store(tmp_path, interrupted)
        halting.goes_on.set()
        (left,) = (tmp_path / "partial").iterdir()
        size = left.stat().st_size
        if kept == "wrong":
            with left.open("r+b") as wrong:
                wrong.seek(MB)
                wrong.write(b"\0" * 1000)
        in_store(tmp_path, lambda store: store.pull(f"{host}/x:1", progress=reports.append))
        restarted(tmp_path, f"{host}/x:1")
    told = [one.layers[0] for one in reports if one.layers]
    assert told[-1].complete and told[-1].received_bytes == told[-1].total_bytes
    assert told[-1].resumed_bytes == (size if kept == "right" else 0)
    assert halting.asked == ["all", f"bytes={size}-", *(["all"] if kept == "wrong" else [])]
