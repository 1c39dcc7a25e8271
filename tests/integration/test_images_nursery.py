"""The process from which those that unpack are forked: there while it is needed, and missed by nobody when it dies."""

import asyncio
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.images import ImageStore, child

from tests.integration.test_images_liars import is_layer
from tests.support.images import Built, file, image, layer
from tests.support.liar import liar
from tests.support.registry import served


@pytest.fixture
def built() -> Built:
    return image([layer(file(f"f{number}", os.urandom(300_000))) for number in range(6)])


@pytest.fixture(autouse=True)
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that tests before this one have left, which are not meant."""
    monkeypatch.setitem(OTHERS, os.getpid(), frozenset(children(os.getpid())))


#: By parent.
OTHERS: dict[int, frozenset[int]] = {}


def children(pid: int) -> list[int]:
    """Processes whose parent is this one."""
    found = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return [child for child in found if child not in OTHERS.get(pid, ())]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_nothing_of_it_is_left(tmp_path: Path, built: Built) -> None:
    async def run(host: str) -> None:
        store = ImageStore(tmp_path)
        await store.pull(f"{host}/x:1")
        assert len(os.listdir(tmp_path / "layers")) == 6
        assert children(os.getpid()) == []
        await store.close()

    with served(liar(built)) as host:
        before = descriptors()
        asyncio.run(run(host))
        assert descriptors() == before


@pytest.mark.parametrize("killed", ["the nursery", "a child"])
def test_killed(tmp_path: Path, built: Built, killed: str) -> None:
    half, whole = threading.Event(), threading.Event()

    def lie(request: BaseHTTPRequestHandler, body: bytes) -> bool:
        if not is_layer(request, body) or whole.is_set():
            return False
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[:100_000])
        half.set()
        whole.wait(30)
        request.wfile.write(body[100_000:])
        return True

    async def run(host: str) -> TinyoError:
        store = ImageStore(tmp_path)
        pull = asyncio.create_task(store.pull(f"{host}/x:1"))
        await asyncio.to_thread(half.wait, 30)
        (nursery,) = children(os.getpid())
        while not (born := children(nursery)):
            await asyncio.sleep(0)
        os.kill(nursery if killed == "the nursery" else born[0], signal.SIGKILL)
        whole.set()
        with pytest.raises(TinyoError) as caught:
            await pull
        assert children(os.getpid()) == []
        assert len(os.listdir(tmp_path / "layers")) < 6
        await store.pull(f"{host}/x:1")
        assert len(os.listdir(tmp_path / "layers")) == 6
        await store.close()
        return caught.value

    with served(liar(built, lie)) as host:
        before = descriptors()
        assert "ended" in asyncio.run(run(host)).message
        assert descriptors() == before


def test_a_process_whose_words_nobody_reads_ends_all_the_same(tmp_path: Path) -> None:
    """asyncio stops reading what nobody wants, and would not tell of the end before it has read all."""

    async def run() -> None:
        process = await asyncio.create_subprocess_exec("yes", stdout=asyncio.subprocess.PIPE)
        assert process.stdout
        with pytest.raises(ZeroDivisionError):
            async with asyncio.timeout(60), child.ended(process):
                while not process.stdout._paused:  # type: ignore[attr-defined]
                    await asyncio.sleep(0)
                print(1 / 0)

    asyncio.run(run())
