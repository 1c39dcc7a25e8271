"""A disk that becomes full, with real services on it."""

import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.images import busybox_image, file, layer
from tests.support.instance import Instance

MB = 1 << 20


@pytest.fixture
def instance() -> Iterator[Instance]:
    """On a disk of 52 MB, where unused images may go."""
    made = Instance(TINYO_RUNTIME_IMAGES_COLLECT="unused", TINYO_RUNTIME_IMAGES_LOW="40")
    made.state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=52m", "tmpfs", made.state], check=True)
    try:
        with made:
            yield made
    finally:
        subprocess.run(["umount", made.state], check=True)
        made.state.rmdir()


def large(host: str, name: str) -> str:
    """18 MB on the disk, packed and unpacked."""
    return busybox_image(host, name, [layer(file(name, random.Random(name).randbytes(9 * MB)))])


def aged(instance: Instance) -> None:
    """Nobody used anything for an hour."""
    hour = time.time() - 3600
    for blob in (instance.state / "images/blobs/sha256").iterdir():
        os.utime(blob, (hour, hour))


def test_unused_images_make_room_for_those_that_are_wanted(
    instance: Instance, host: str, tmp_path: Path
) -> None:
    used, unused = large(host, "used"), large(host, "unused")
    wanted, pulled = large(host, "wanted"), large(host, "pulled")
    (tmp_path / "web.yml").write_text(f"container: {used}\n")
    (tmp_path / "more.yml").write_text(f"container: {wanted}\n")
    instance.cli("+", str(tmp_path / "web.yml"))
    instance.cli("stop", "web", "-t", "0")
    instance.cli("image", "pull", unused)
    aged(instance)
    instance.cli("+", str(tmp_path / "more.yml"))  # needs the room of `unused`
    assert instance.cli("image", "ls", "-o", "name").stdout.split() == [used, wanted]
    (said,) = [line for line in instance.cli("events").stdout.splitlines() if "image_removed" in line]
    assert f"-  image_removed  {unused}: nobody uses it, and the disk is" in said
    # What containers need stays, and then there is no room.
    failed = instance.cli("image", "pull", pulled, check=False)
    assert failed.returncode == 1 and "disk_reserve in runtime.toml" in failed.stderr
    assert instance.cli("image", "ls", "-o", "name").stdout.split() == [used, wanted]
    instance.cli("-", "more")
    aged(instance)
    instance.cli("image", "pull", pulled)
    assert instance.cli("image", "ls", "-o", "name").stdout.split() == [pulled, used]
