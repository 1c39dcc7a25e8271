"""`tinyo image push` as people meet it, against a node in memory."""

import errno
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1.push_pb2 import PushProgress, UploadProgress

from tests.support.fake_node import FakeNode

PUSH = [str(Path(sys.executable).with_name("tinyo")), "image", "push"]
PATIENCE = 60
CONFIG, LOWER, UPPER = (f"sha256:{digit * 64}" for digit in "abc")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    with FakeNode(tmp_path) as one:
        yield one


@pytest.fixture
def environment(node: FakeNode) -> dict[str, str]:
    return {**os.environ, "TINYO_HOST": node.address, "TINYO_INSTANCE": "nobody", "TERM": "xterm"}


def uploads(*parts: UploadProgress) -> PushProgress:
    return PushProgress(reference="r.test/app:1", uploads=parts)


def some() -> list[PushProgress]:
    """One blob is there, one is mounted, and one is sent in two steps."""
    there = UploadProgress(digest=CONFIG, total_bytes=10, present=True, complete=True)
    mounted = UploadProgress(
        digest=LOWER, total_bytes=10, layer=True, mounted_from="team/\x1b[2J", complete=True
    )
    half = UploadProgress(digest=UPPER, total_bytes=5_000_000, layer=True, sent_bytes=2_000_000)
    all = UploadProgress(digest=UPPER, total_bytes=5_000_000, layer=True, sent_bytes=5_000_000, complete=True)
    return [uploads(there), uploads(there, half), uploads(there, mounted, half), uploads(there, mounted, all)]


def test_a_line_for_each_blob_that_is_there(node: FakeNode, environment: dict[str, str]) -> None:
    node.uploads = some()
    done = subprocess.run([*PUSH, "app:1"], env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "config aaaaaaaaaaaa  exists already\n"
        "layer bbbbbbbbbbbb  mounted from team/\\x1b[2J\n"
        "layer cccccccccccc  5.0 MB sent\n"
        "✓ r.test/app:1  sha256:00  5 B\n"
    )
    assert node.requests == [pb.PushImageRequest(reference="app:1")]


def test_bars_at_a_terminal(node: FakeNode, environment: dict[str, str]) -> None:
    node.uploads = some()
    code, said = at_terminal(environment, "app:1", "r.test/x:2")
    assert code == 0
    assert "layer cccccccccccc" in said and "/5.0 MB" in said
    lines = [line for line in said.replace("\r", "\n").split("\n") if "sent" in line or "✓" in line]
    assert len(lines) == 2 and "5.0 MB sent" in lines[0] and "r.test/app:1" in lines[1]
    assert node.requests == [pb.PushImageRequest(reference="app:1", target="r.test/x:2")]
    code, said = at_terminal(environment | {"TERM": "dumb"}, "app:1")
    assert code == 0 and "/5.0 MB" not in said and "5.0 MB sent" in said


def test_why_not(node: FakeNode, environment: dict[str, str]) -> None:
    node.refuse(9, "REGISTRY_REJECTED", "registry r.test does not take x")
    done = subprocess.run([*PUSH, "x"], env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "tinyo: registry r.test does not take x\n"


def at_terminal(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Exit code, and what a terminal shows."""
    master, slave = pty.openpty()
    process = subprocess.Popen([*PUSH, *arguments], env=environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    said = b""
    try:
        while data := os.read(master, 4096):
            said += data
    except OSError as error:  # how Linux says that nobody has the other side open any more
        assert error.errno == errno.EIO
    os.close(master)
    return process.wait(PATIENCE), said.decode()
