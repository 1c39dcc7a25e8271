"""`tinyo image …` as people meet it, against a node in memory."""

import errno
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1.image_pb2 import Image, ImageDetails, ImageLayer, ImageProblem

from tests.support.fake_node import FakeNode

TINYO = str(Path(sys.executable).with_name("tinyo"))
PATIENCE = 60
Run = Callable[..., subprocess.CompletedProcess[str]]
DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def tinyo(environment: dict[str, str]) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [TINYO, "image", *arguments]
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    return run


def details(configuration: object) -> ImageDetails:
    layers = [
        ImageLayer(digest="sha256:01", diff_id="sha256:11", size_bytes=1000, unpacked_bytes=3000),
        ImageLayer(digest="sha256:02", diff_id="sha256:12", size_bytes=10),
    ]
    image = Image(references=["a:1", "b:2"], digest=DIGEST, platform="linux/amd64", size_bytes=1010)
    return ImageDetails(image=image, configuration=json.dumps(configuration), layers=layers)


def test_inspect_is_json_that_no_terminal_obeys(tinyo: Run, node: FakeNode) -> None:
    node.details.CopyFrom(
        details({"created": "2024-01-02T03:04:05Z", "config": {"Cmd": ["\x1b[2J\x9b"], "X": float("nan")}})
    )
    printed = tinyo("inspect", "a:1").stdout
    assert printed.isascii() and "\x1b" not in printed
    document = json.loads(printed)
    assert (document["digest"], document["references"]) == (DIGEST, ["a:1", "b:2"])
    assert (document["platform"], document["created"]) == ("linux/amd64", "2024-01-02T03:04:05Z")
    assert document["config"] == {"Cmd": ["\x1b[2J\x9b"], "X": None}
    assert [
        (one["digest"], one["diff_id"], one["size"], one["unpacked_size"]) for one in document["layers"]
    ] == [
        ("sha256:01", "sha256:11", 1000, 3000),
        ("sha256:02", "sha256:12", 10, None),
    ]


def test_history_is_newest_first(tinyo: Run, node: FakeNode) -> None:
    history = [
        {"created": "2020-01-01T00:00:00.123456789Z", "created_by": "ADD\nfile\x1b[2J"},
        {"created_by": "ENV a=b", "empty_layer": True},
        {"created": 5, "comment": "buildkit"},
        7,
    ]
    node.details.CopyFrom(details({"history": history}))
    heading, *lines = tinyo("history", "a:1").stdout.splitlines()
    assert heading.split() == ["CREATED", "SIZE", "COMMAND"]
    assert [line.split()[-3:] for line in lines[:2]] == [["-", "buildkit"], ["B", "ENV", "a=b"]]
    assert lines[2].endswith(r"d ago   3.0 kB   ADD file\x1b[2J")
    for none in ({}, {"history": None}, {"history": "x"}):
        node.details.CopyFrom(details(none))
        assert len(tinyo("history", "a:1").stdout.splitlines()) == 3


def test_tag(tinyo: Run, node: FakeNode) -> None:
    assert tinyo("tag", "a:1", "b:2").stdout == "✓ x.test/b:2  sha256:00\n"
    assert node.requests == [pb.TagImageRequest(reference="a:1", new_reference="b:2")]


def test_prune_does_not_ask_a_program(tinyo: Run, node: FakeNode) -> None:
    assert tinyo("prune").stdout == "0 B freed\n"
    node.prunable = [Image(references=["a:1", "\x1b:2"], digest=DIGEST), Image(digest=DIGEST)]
    done = tinyo("prune", "-a")
    assert done.stdout == f"✓ a:1, \\x1b:2  removed\n✓ {DIGEST}  removed\n5.0 kB freed\n"
    assert node.requests[-1] == pb.PruneImagesRequest(all=True)


@pytest.mark.parametrize(
    ("answer", "goes"), [(b"y\n", True), (b"\n", False), (b"no\n", False), (b"\x04", False)]
)
def test_prune_asks_at_a_terminal(
    node: FakeNode, environment: dict[str, str], answer: bytes, goes: bool
) -> None:
    node.prunable = [Image(references=["a:1"], digest=DIGEST)]
    code, said = at_terminal(environment, answer, "prune")
    assert "a:1" in said and "remove 1 image and free 2.5 kB? [y/N]" in said
    assert (code, "removed" in said.replace("nothing was removed", "")) == ((0, True) if goes else (1, False))
    assert [one.dry_run for one in node.requests if isinstance(one, pb.PruneImagesRequest)] == (
        [True, False] if goes else [True]
    )


def test_prune_with_force_asks_nobody(node: FakeNode, environment: dict[str, str]) -> None:
    node.prunable = [Image(references=["a:1"], digest=DIGEST)]
    code, said = at_terminal(environment, b"", "prune", "-f")
    assert code == 0 and "removed" in said and "[y/N]" not in said


def at_terminal(environment: dict[str, str], answer: bytes, *arguments: str) -> tuple[int, str]:
    """Exit code, and what a terminal shows at which somebody types."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [TINYO, "image", *arguments], env=environment, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    os.write(master, answer)
    said = b""
    try:
        while data := os.read(master, 4096):
            said += data
    except OSError as error:  # how Linux says that nobody has the other side open any more
        assert error.errno == errno.EIO
    os.close(master)
    return process.wait(PATIENCE), said.decode()


def test_usage(tinyo: Run) -> None:
    printed = tinyo("du").stdout.splitlines()
    assert printed[1].split() == ["a:1", "sha256:00", "1.0", "kB", "0", "B", "yes"]
    assert printed[3:] == [
        "1.0 kB on the disk: 400 B in blobs, 600 B in unpacked layers",
        "`tinyo image prune` would free 7 B, with -a 0 B",
    ]


def test_verify_names_what_is_corrupt_and_what_to_do(tinyo: Run, node: FakeNode) -> None:
    good = pb.VerifyImagesResponse(image=Image(references=["good:1"], digest=DIGEST, incomplete=True))
    node.findings = [good]
    assert tinyo("verify").stdout == "✓ good:1  intact  not unpacked yet\n"
    problem = ImageProblem(digest=DIGEST, message="the layer is missing")
    node.findings.append(pb.VerifyImagesResponse(image=Image(references=["bad:1"]), problems=[problem]))
    node.findings.append(pb.VerifyImagesResponse(image=Image(digest=DIGEST), problems=[problem]))
    done = tinyo("verify", "x", "y")
    assert done.returncode == 1
    assert done.stderr == (
        "✗ bad:1  the layer is missing\n  `tinyo image pull bad:1` fetches again what is wrong\n"
        f"✗ {DIGEST}  the layer is missing\n"
        "  it has no reference: `tinyo image prune` removes it, unless a container needs it\n"
    )
    assert node.requests[-1] == pb.VerifyImagesRequest(references=["x", "y"])
