"""Images kept in order by the command line: real services, a real registry, and skopeo beside them."""

import json
import os
from pathlib import Path

from tests.support.images import (
    busybox,
    busybox_image,
    file,
    image,
    index,
    layer,
    push,
    skopeo,
    write_layout,
)
from tests.support.instance import Instance


def references(instance: Instance) -> list[str]:
    return sorted(instance.cli("image", "ls", "-o", "name").stdout.split())


def test_images_are_looked_at_named_and_cleared_away(instance: Instance, host: str, tmp_path: Path) -> None:
    used, unused = busybox_image(host, "used"), busybox_image(host, "unused", [layer(file("x", b"x" * 9999))])
    for reference in (used, unused):
        instance.cli("image", "pull", reference)
    document = json.loads(instance.cli("image", "inspect", used).stdout)
    assert (document["references"], document["platform"], document["complete"]) == (
        [used],
        "linux/amd64",
        True,
    )
    assert document["config"]["Cmd"] == ["/bin/sh"] and document["created"] == "2024-01-02T03:04:05Z"
    assert document["layers"][0]["unpacked_size"] > document["layers"][0]["size"] > 0
    assert "d ago" not in instance.cli("image", "history", used).stdout  # it does not say how it was made
    (tmp_path / "web.yml").write_text(f"container: {used}\n")
    instance.cli("+", str(tmp_path / "web.yml"))
    assert instance.cli("image", "tag", unused, "team/app").returncode == 0
    assert references(instance) == sorted([used, unused, "docker.io/team/app:latest"])
    lines = [line.split() for line in instance.cli("image", "du").stdout.splitlines() if "sha256:" in line]
    assert [line[-1] for line in lines if line[0] == used] == ["yes"]
    assert instance.cli("image", "prune").stdout == "0 B freed\n"
    assert "team/app:latest" in instance.cli("image", "prune", "-a").stdout
    assert references(instance) == [used]
    failed = instance.cli("image", "inspect", unused, check=False)
    assert failed.returncode == 1 and "is not here: `tinyo image ls`" in failed.stderr


def test_the_image_of_a_container_that_the_runtime_forgot_stays(
    instance: Instance, host: str, tmp_path: Path
) -> None:
    """As after a reboot, when the run folder is empty and the container was stopped."""
    reference = busybox_image(host, "stopped")
    (tmp_path / "web.yml").write_text(f"container: {reference}\n")
    instance.cli("+", str(tmp_path / "web.yml"))
    instance.cli("stop", "web", "-t", "0")
    instance.stop("tinyo-node")
    instance.stop("tinyo-runtime")
    (record,) = (instance.run / "containers").iterdir()
    record.unlink()
    instance.start("tinyo-runtime")
    instance.start("tinyo-node")
    assert instance.cli("image", "prune", "-a").stdout == "0 B freed\n"
    instance.cli("start", "web")
    assert instance.cli("exec", "web", "--", "echo", "alive").stdout == "alive\n"


def test_damage_has_an_exit_code_a_name_and_a_remedy(instance: Instance, host: str) -> None:
    reference = busybox_image(host, "damaged")
    instance.cli("image", "pull", reference)
    assert instance.cli("image", "verify").stdout == f"✓ {reference}  intact\n"
    digest = json.loads(instance.cli("image", "inspect", reference).stdout)["layers"][0]["digest"]
    blob = instance.state / "images/blobs" / digest.replace(":", "/")
    blob.write_bytes(b"x" + blob.read_bytes()[1:])
    failed = instance.cli("image", "verify", reference, check=False)
    assert failed.returncode == 1
    assert f"the layer {digest} is corrupt" in failed.stderr
    assert f"`tinyo image pull {reference}` fetches again" in failed.stderr
    instance.cli("image", "pull", reference)
    assert instance.cli("image", "verify").returncode == 0


def test_skopeo_writes_beside_us(instance: Instance, tmp_path: Path) -> None:
    write_layout(busybox([layer(file("big", os.urandom(100_000)))]), tmp_path / "source")
    skopeo("copy", f"oci:{tmp_path}/source:image", f"oci:{instance.state}/images:localhost/theirs:1")
    assert "not unpacked" in instance.cli("image", "ls").stdout
    assert json.loads(instance.cli("image", "inspect", "localhost/theirs:1").stdout)["complete"] is False
    assert "intact  not unpacked yet" in instance.cli("image", "verify").stdout
    instance.cli("image", "tag", "localhost/theirs:1", "localhost/ours:1")
    (tmp_path / "web.yml").write_text("container: localhost/ours:1\n")
    instance.cli("+", str(tmp_path / "web.yml"))
    assert instance.cli("exec", "web", "--", "wc", "-c", "/big").stdout.split()[0] == "100000"
    skopeo("inspect", f"oci:{instance.state}/images:localhost/ours:1")
    assert instance.cli("image", "verify").returncode == 0


def test_an_image_for_another_machine(instance: Instance, host: str, tmp_path: Path) -> None:
    """It comes and is listed; started it is not, and one sentence says why. A container needs another one."""
    theirs = image([layer(file("f", b"x"))], architecture="s390x")
    reference = push(theirs, f"{host}/theirs:1")
    instance.cli("image", "pull", "--platform", "Linux/s390x", reference)
    (line,) = [line for line in instance.cli("image", "ls").stdout.splitlines() if line.startswith(reference)]
    assert "linux/s390x" in line and "not unpacked" not in line
    for name in (reference, f"{host}/theirs@{theirs.descriptor['digest']}"):
        (tmp_path / "web.yml").write_text(f"container: {name}\n")
        failed = instance.cli("+", str(tmp_path / "web.yml"), check=False)
        assert failed.returncode == 1
        assert f"image {name} is not made for linux/amd64" in failed.stdout + failed.stderr
        assert "but for linux/s390x" in failed.stdout + failed.stderr
        instance.cli("-", str(tmp_path / "web.yml"))
    both = push(index([theirs, busybox()]), f"{host}/both:1")
    instance.cli("image", "pull", "--platform", "s390x", both)
    (tmp_path / "web.yml").write_text(f"container: {both}\n")
    instance.cli("+", str(tmp_path / "web.yml"))
    wrong = instance.cli("image", "pull", "--platform", "linux//amd64", both, check=False)
    assert wrong.returncode == 2
    assert (
        "'linux//amd64' is not a platform: write it like linux/amd64, linux/arm/v7 or arm64\n" in wrong.stderr
    )


def test_a_root_looks_as_its_image_says(instance: Instance, host: str, tmp_path: Path) -> None:
    """A layer that has something in /tmp and /root, and says nothing of them; what a container changes stays."""
    upper = layer(file("tmp/here"), file("root/.wh.absent"))
    reference = busybox_image(host, "undescribed", [upper])
    (tmp_path / "web.yml").write_text(f"container: {reference}\n")
    instance.cli("+", str(tmp_path / "web.yml"))
    assert instance.cli("exec", "web", "--", "stat", "-c", "%a %n", "/tmp", "/root", "/").stdout.split() == (
        ["1777", "/tmp", "700", "/root", "755", "/"]
    )
    assert instance.cli("exec", "web", "--", "ls", "/tmp", "/root").stdout == "/root:\n\n/tmp:\nhere\n"
    instance.cli("exec", "web", "--", "chmod", "711", "/", "/tmp")
    instance.stop("tinyo-node")
    instance.stop("tinyo-runtime")
    instance.start("tinyo-runtime")
    instance.start("tinyo-node")
    instance.cli("stop", "web", "-t", "0")
    instance.cli("start", "web")
    assert instance.cli("exec", "web", "--", "stat", "-c", "%a", "/tmp", "/").stdout.split() == ["711", "711"]
