"""`tinyo image push` as people meet it, against a node in memory."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1.push_pb2 import PushProgress, UploadProgress

from tests.support.fake_node import FakeNode
from tests.support.screen import Screen

PUSH = [str(Path(sys.executable).with_name("tinyo")), "image", "push"]
PATIENCE = 60
CONFIG, LOWER, UPPER = (f"sha256:{digit * 64}" for digit in "abc")


def uploads(*parts: UploadProgress) -> PushProgress:
    return PushProgress(reference="r.test/app:1", uploads=parts)


def some() -> list[PushProgress]:
    """A configuration is there, a layer is mounted, and another one is sent in two steps."""
    there = UploadProgress(digest=CONFIG, total_bytes=10, present=True, complete=True)
    waiting = UploadProgress(digest=LOWER, total_bytes=10, layer=True)
    mounted = UploadProgress(
        digest=LOWER, total_bytes=10, layer=True, mounted_from="team/\x1b[2J", complete=True
    )
    half = UploadProgress(digest=UPPER, total_bytes=5_000_000, layer=True, sent_bytes=2_000_000)
    all = UploadProgress(digest=UPPER, total_bytes=5_000_000, layer=True, sent_bytes=5_000_000, complete=True)
    return [uploads(there, waiting, half), uploads(there, mounted, half), uploads(there, mounted, all)]


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*PUSH, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)


def test_a_line_for_each_blob_that_is_there(node: FakeNode, environment: dict[str, str]) -> None:
    node.uploads = some()
    done = run(environment, "app:1")
    assert (done.returncode, done.stderr) == (0, "")
    *lines, last = done.stdout.splitlines()
    assert lines == [
        "r.test/app:1  pushing 2 layers, 5.0 MB",
        "r.test/app:1  bbbbbbbbbbbb  mounted from team/\\x1b[2J  10 B",
        "r.test/app:1  cccccccccccc  sent  5.0 MB",
    ]
    assert last.startswith("✓ r.test/app:1  sha256:00  5 B  (5.0 MB in ")
    assert node.requests == [pb.PushImageRequest(reference="app:1")]


def test_nothing_to_send(node: FakeNode, environment: dict[str, str]) -> None:
    node.uploads = [uploads(UploadProgress(digest=LOWER, layer=True, present=True, complete=True))]
    assert (
        run(environment, "app:1").stdout.splitlines()[-1]
        == "✓ r.test/app:1  sha256:00  5 B  (nothing to send)"
    )


def test_bars_at_a_terminal(node: FakeNode, environment: dict[str, str]) -> None:
    goes_on = threading.Event()

    def steps() -> Iterator[PushProgress]:
        yield from some()[:2]
        assert goes_on.wait(PATIENCE)
        yield from some()[2:]

    node.uploads = steps()
    screen = Screen(100, 24)
    process = screen.run([*PUSH, "app:1", "r.test/x:2"], environment)
    shown = ("sending", "cccccccccccc", "2.0/5.0 MB", "mounted from team/\\x1b[2J")
    screen.until(lambda: all(text in screen.text for text in shown))
    goes_on.set()
    assert screen.end(process) == 0
    (line,) = screen.text.splitlines()
    assert line.startswith("✓ r.test/app:1  sha256:00  5 B  (5.0 MB in ")
    assert node.requests == [pb.PushImageRequest(reference="app:1", target="r.test/x:2")]


def test_objects_for_programs(node: FakeNode, environment: dict[str, str]) -> None:
    node.uploads = some()
    done = run(environment, "-o", "json", "app:1")
    assert done.stdout.isascii() and "\x1b" not in done.stdout
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["digest"], one["sent_bytes"], one["complete"]) for one in events[:-1]] == [
        (CONFIG, 0, True),
        (LOWER, 0, False),
        (UPPER, 2_000_000, False),
        (LOWER, 0, True),
        (UPPER, 5_000_000, True),
    ]
    assert (events[0]["present"], events[3]["mounted_from"]) == (True, "team/\x1b[2J")
    assert events[-1] == {
        "event": "pushed",
        "image": "app:1",
        "reference": "r.test/app:1",
        "digest": "sha256:00",
        "size_bytes": 5,
    }
    node.refuse(9, "REGISTRY_REJECTED", "it does not want it")
    done = run(environment, "-o", "json", "app:1")
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["reason"] == "REGISTRY_REJECTED"


def test_why_not(node: FakeNode, environment: dict[str, str]) -> None:
    node.refuse(9, "REGISTRY_REJECTED", "registry r.test does not take x")
    done = subprocess.run([*PUSH, "x"], env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "tinyo: registry r.test does not take x\n"
