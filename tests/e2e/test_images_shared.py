"""Many who want one image at the same time."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tinyo.node.v1 import node_pb2 as pb

from tests.support.client import Client
from tests.support.images import busybox_image, file, layer
from tests.support.instance import PATIENCE, Instance
from tests.support.registry import registry, requests


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def host(folder: Path) -> Iterator[str]:
    with registry(folder) as address:
        yield address


def test_each_layer_comes_once_whoever_asks(
    instance: Instance, host: str, folder: Path, tmp_path: Path
) -> None:
    """Command lines that pull, and one that brings up a container of another image with the same layers."""
    big = [layer(file("big", os.urandom(8_000_000)))]
    reference, other = busybox_image(host, "one", big), busybox_image(host, "other", big, User="1")
    (tmp_path / "web.yml").write_text(f"container: {other}\n")
    before = len(requests(folder))
    commands = [("image", "pull", reference)] * 3 + [("+", str(tmp_path / "web.yml"))]
    with ThreadPoolExecutor(len(commands)) as clients:
        list(clients.map(lambda command: instance.cli(*command), commands))
    blobs = [line.rpartition("/")[2] for line in requests(folder)[before:] if "/blobs/" in line]
    assert len(blobs) == len(set(blobs)) == 2 + 2  # layers, configurations
    assert instance.cli("image", "ls", "-o", "name").stdout.split() == sorted([reference, other])


def test_a_runtime_that_dies_in_a_pull_goes_on_with_it(host: str, folder: Path, tmp_path: Path) -> None:
    """What it had is not fetched again, and the container comes up without being asked for again."""
    reference = busybox_image(host, "dies", [layer(file("big", os.urandom(8_000_000)))])
    (tmp_path / "web.yml").write_text(f"container: {reference}\n")
    with Instance("tinyo-runtime", TINYO_FAILPOINTS="os.rename */images/index.json#2=kill") as instance:
        del instance.environment["TINYO_FAILPOINTS"]
        instance.start("tinyo-node")
        with ThreadPoolExecutor(1) as client:
            up = client.submit(instance.cli, "+", str(tmp_path / "web.yml"))
            assert instance.running.pop("tinyo-runtime").wait(60) == -signal.SIGKILL
            before = len(requests(folder))
            instance.start("tinyo-runtime")
            assert "running" in up.result().stdout
        assert [line for line in requests(folder)[before:] if "/blobs/" in line] == []


def test_a_pull_waits_for_a_runtime_that_is_just_being_started(host: str) -> None:
    """As after a crash, when somebody asks for the same again at once."""
    reference = busybox_image(host, "waits")
    with Instance("tinyo-node") as instance, Client(instance.socket("tinyo-node")) as client:
        pull = client.node.PullImage(pb.PullImageRequest(reference=reference), timeout=PATIENCE)
        instance.start("tinyo-runtime")
        assert [answer.image.references for answer in pull if answer.HasField("image")] == [[reference]]


def test_any_call_about_images_waits_for_it() -> None:
    with Instance("tinyo-node") as instance, Client(instance.socket("tinyo-node")) as client:
        listed = client.node.ListImages.future(pb.ListImagesRequest(), timeout=PATIENCE)
        measured = client.node.MeasureImages.future(pb.MeasureImagesRequest(), timeout=PATIENCE)
        instance.start("tinyo-runtime")
        assert list(listed.result().images) == list(measured.result().images) == []
