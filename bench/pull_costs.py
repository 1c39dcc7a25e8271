"""What pulls of TinyO cost besides time: memory, the patience of others, bytes on the disk, requests."""

import os
import shutil
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
from tinyo.runtime.v1.runtime_pb2 import ListRequest, PullImageRequest, RemoveImageRequest
from tinyo.runtime.v1.runtime_pb2_grpc import RuntimeServiceStub

from bench.contest import Table, run
from scripts.demo_image import MANIFEST

RUNS = 5
#: Seconds between two looks at memory, and between two calls of somebody else.
INTERVAL = 0.02


def measure(table: Table, instance: str, disk: Path, large: tuple[str, int, int], other: str) -> None:
    """Pulls a large image several times. `disk` is the folder of a file system that nobody else writes to."""
    reference, compressed, unpacked = large
    pid = int(Path("/run", instance, "runtime.pid").read_text().split()[0])
    with grpc.insecure_channel(f"unix:/run/{instance}/runtime.sock") as channel:
        runtime = RuntimeServiceStub(channel)
        memory, written, waits = list[float](), list[float](), list[float]()
        for _ in range(RUNS):
            os.sync()
            before = _written(disk)
            with _watching(pid, memory), _calling(runtime, waits):
                _pull(runtime, reference)
            os.sync()
            written.append((_written(disk) - before) / (compressed + unpacked))
            runtime.RemoveImage(RemoveImageRequest(reference=reference))
        table.figure(
            "most memory of runtime and helpers", max(memory) / 1e6, "MB", "PSS, while it pulls 182 MB"
        )
        hundredths = statistics.quantiles(waits, n=100)
        table.figure("a List meanwhile, 99 of 100", hundredths[98] * 1000, "ms", f"{len(waits)} calls")
        table.figure(
            "written to the disk", statistics.median(written), "x", "of compressed and unpacked bytes"
        )
        _moved(table, runtime, other)


def limits(table: Table, layout: Path, disk: Path) -> None:
    """What the one layer of an image costs others who only unpack or copy it, until it is on the disk."""
    layer = max((layout / "blobs/sha256").iterdir(), key=lambda blob: blob.stat().st_size)
    tree, copy = disk / "tree", disk / "copy"
    for title, made, command in (
        ("GNU tar -xz of that layer, and syncfs", tree, ["tar", "-xzf", str(layer), "-C", str(tree)]),
        ("cp -a of what is in it, and syncfs", copy, ["cp", "-a", f"{tree}/.", str(copy)]),
    ):
        seconds = []
        for _ in range(RUNS):
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            os.sync()
            start = time.perf_counter()
            run(*command)
            run("sync", "--file-system", str(disk))
            seconds.append(time.perf_counter() - start)
        table.figure(title, statistics.median(seconds) * 1000, "ms", "the disk's share")


def _moved(table: Table, runtime: RuntimeServiceStub, reference: str) -> None:
    """The tag goes from one image to another whose layers are the same, there and back."""
    _pull(runtime, reference)
    host, _, name = reference.partition("/")
    repository = f"http://{host}/v2/{name.partition(':')[0]}"
    first = _get(f"{repository}/manifests/latest")
    second = first[:-1] + b" }"  # the same, with another digest
    pulls, registry = list[float](), list[float]()
    for manifest in (second, first) * RUNS:
        upload = urllib.request.Request(f"{repository}/manifests/latest", manifest, method="PUT")
        upload.add_header("Content-Type", MANIFEST)
        urllib.request.urlopen(upload).close()
        start = time.perf_counter()
        _get(f"{repository}/manifests/latest")
        middle = time.perf_counter()
        _pull(runtime, reference)
        pulls.append(time.perf_counter() - middle)
        registry.append(middle - start)
    beyond = (statistics.median(pulls) - statistics.median(registry)) * 1000
    table.figure("tag moved, layers present: beyond the registry", beyond, "ms", "by PullImage")
    runtime.RemoveImage(RemoveImageRequest(reference=reference))


def _get(url: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": MANIFEST})) as answer:
        content: bytes = answer.read()
        return content


def _pull(runtime: RuntimeServiceStub, reference: str) -> None:
    for _ in runtime.PullImage(PullImageRequest(reference=reference, refresh=True)):
        pass


@contextmanager
def _watching(pid: int, memory: list[float]) -> Iterator[None]:
    """Notes now and then how much memory a process and its descendants have together."""

    def look() -> None:
        memory.append(sum(map(_memory, _family(pid))))

    with _repeating(look):
        yield


@contextmanager
def _calling(runtime: RuntimeServiceStub, waits: list[float]) -> Iterator[None]:
    """Notes how long somebody else waits for an answer."""

    def call() -> None:
        start = time.perf_counter()
        runtime.List(ListRequest())
        waits.append(time.perf_counter() - start)

    with _repeating(call):
        yield


@contextmanager
def _repeating(work: Callable[[], object]) -> Iterator[None]:
    """Does it again and again, in a thread."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(INTERVAL):
            work()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _family(pid: int) -> Iterator[int]:
    """A process and all that descend from it, without what ends meanwhile."""
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))


def _memory(pid: int) -> int:
    """Bytes (proc_pid_smaps(5), Pss); none of what has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0


def _written(folder: Path) -> int:
    """Bytes that went to the device below a folder (Documentation/admin-guide/iostats.rst, field 7)."""
    device = os.stat(folder).st_dev
    stat = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    return int(stat.read_text().split()[6]) * 512
