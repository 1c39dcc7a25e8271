"""Where containers keep their files: volumes, memory, a root that cannot be written to; with real services."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1.storage_pb2 import PROPAGATION_SLAVE, Tmpfs

from tests.support import images
from tests.support.client import Client
from tests.support.instance import Instance
from tests.support.registry import registry


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image with something to fill a volume with, and two volumes of its own."""
    content = images.layer(
        images.folder("srv/data", uid=7, gid=8, mode=0o750),
        images.file("srv/data/one", b"1", uid=1000, mode=0o4711),
        images.hard_link("srv/data/other", "srv/data/one"),
        images.symlink("srv/data/link", "../../etc/passwd"),
        images.folder("srv/data/below", mode=0o1777),
        images.file("srv/data/below/two", b"2" * 100_000, pax_headers={"SCHILY.xattr.user.colour": "blue"}),
        images.symlink("srv/out", "/../../../../etc"),
    )
    with registry(tmp_path_factory.mktemp("registry")) as address:
        yield images.busybox_image(address, "data", [content], Volumes={"/srv/data": {}, "/srv/none": {}})


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as made:
        yield made


@pytest.fixture
def client(instance: Instance) -> Iterator[Client]:
    """A client of a node that has no containers and no volumes, before and after."""
    with Client(instance.socket("tinyo-node")) as made:
        yield made
        if names := [container.spec.name for container in made.ls()]:
            made.down(*names)
        made.node.PruneVolumes(pb.PruneVolumesRequest())


def spec(name: str, image: str, *mounts: v1.Mount, **fields: object) -> v1.ContainerSpec:
    return v1.ContainerSpec(name=name, image=image, mounts=mounts, **fields)  # type: ignore[arg-type]


def said(client: Client, name: str, script: str) -> str:
    """What a script in a container says, both ways."""
    _, out, err = client.run(name, "sh", "-c", script)
    return (out + err).decode()


def refusal(client: Client, made: v1.ContainerSpec) -> str:
    """Why a container does not start."""
    return client.apply(made)[-1].settled.containers[0].status.error.message


def test_a_volume_is_filled_once_and_outlives_its_containers(
    client: Client, instance: Instance, image: str
) -> None:
    client.up(spec("a", image, v1.Mount(volume="data", target="/srv/data")))
    data = instance.state / "volumes/data/data"
    found = os.stat(data)
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (7, 8, 0o750)
    one = os.stat(data / "one")
    assert (one.st_uid, stat.S_IMODE(one.st_mode), one.st_mtime) == (1000, 0o4711, 1_600_000_000)
    assert one.st_ino == os.stat(data / "other").st_ino and one.st_nlink == 2
    assert os.readlink(data / "link") == "../../etc/passwd"
    assert os.getxattr(data / "below/two", "user.colour") == b"blue"
    assert (data / "below/two").read_bytes() == b"2" * 100_000
    assert stat.S_IMODE(os.stat(data / "below").st_mode) == 0o1777
    assert said(client, "a", "rm /srv/data/one; echo mine >/srv/data/new; cat /srv/data/other") == "1"
    client.down("a")
    client.up(spec("b", image, v1.Mount(volume="data", target="/srv/data", read_only=True)))
    assert said(client, "b", "cat /srv/data/new; ls /srv/data; touch /srv/data/x") == (
        "mine\nbelow\nlink\nnew\nother\ntouch: /srv/data/x: Read-only file system\n"
    )


def test_a_volume_that_was_half_filled_is_filled_again(
    client: Client, instance: Instance, image: str
) -> None:
    half = instance.state / "volumes/data/filling"
    half.mkdir(parents=True)
    (half / "rest").write_text("of a fill that was cut off")
    client.up(spec("a", image, v1.Mount(volume="data", target="/srv/data")))
    assert said(client, "a", "ls /srv/data") == "below\nlink\none\nother\n"
    assert not half.exists()


def test_volumes_stay_empty_when_asked_to_or_when_the_image_has_nothing(client: Client, image: str) -> None:
    nothing = v1.Mount(volume="none", target="/not/there")
    client.up(spec("a", image, v1.Mount(volume="data", target="/srv/data", no_copy=True), nothing))
    assert said(client, "a", "ls -A /srv/data /not/there") == "/not/there:\n\n/srv/data:\n"


def test_what_an_image_has_as_a_link_out_of_it_leads_to_itself(client: Client, image: str) -> None:
    """A hostile image must not fill a volume with the host's files."""
    client.up(spec("a", image, v1.Mount(volume="data", target="/srv/out")))
    assert Path("/etc/shadow").exists()
    assert "passwd" in (listed := said(client, "a", "ls /srv/out/")) and "shadow" not in listed


def test_volumes_of_the_image_go_with_the_container(client: Client, instance: Instance, image: str) -> None:
    container = client.up(spec("a", image))[0]
    assert said(client, "a", "ls /srv/data; grep -c /srv/ /proc/mounts; echo x >/srv/none/y") == (
        "below\nlink\none\nother\n2\n"
    )
    client.node.Stop(pb.StopRequest(names=["a"], grace_ms=0))
    client.node.Start(pb.StartRequest(names=["a"]))
    assert said(client, "a", "cat /srv/none/y") == "x\n"
    assert not client.node.ListVolumes(pb.ListVolumesRequest()).volumes
    client.down("a")
    assert not (instance.state / "containers" / container.id).exists()


def test_volumes_are_made_listed_and_removed(client: Client, instance: Instance, image: str) -> None:
    assert instance.cli("volume", "create", "free").stdout == "✓ free  created\n"
    client.up(spec("a", image, v1.Mount(volume="used", target="/v")))
    client.node.Stop(pb.StopRequest(names=["a"], grace_ms=0))
    listed = [line.split() for line in instance.cli("volume", "ls").stdout.splitlines()]
    assert [(row[0], row[-1]) for row in listed[1:]] == [("free", "-"), ("used", "a")]
    refused = instance.cli("volume", "rm", "free", "used", check=False)
    assert (refused.returncode, refused.stderr) == (
        1,
        "tinyo: volume 'used' is used by a: remove what uses it first\n",
    )
    assert instance.cli("volume", "ls", "-o", "name").stdout == "free\nused\n"
    assert '"containers": [\n    "a"\n  ]' in instance.cli("volume", "inspect", "used").stdout
    assert instance.cli("volume", "prune", "-f").stdout == "✓ free  removed\n0 B freed\n"
    client.down("a")
    assert instance.cli("volume", "rm", "used").stdout == "✓ used  removed\n"
    for name in ("../../etc", "..", "", "a/b"):
        assert instance.cli("volume", "create", name, check=False).returncode == 2
    assert "there is no volume 'none'" in instance.cli("volume", "rm", "none", check=False).stderr


def test_memory_has_the_size_and_mode_that_were_asked_for(client: Client, image: str) -> None:
    made = spec("a", image, shm_size_bytes=8 << 20)
    made.tmpfs.append(Tmpfs(target="/run/x", size_bytes=1 << 20, mode=0o750))
    made.tmpfs.append(Tmpfs(target="/srv/data"))
    client.up(made)
    assert said(client, "a", "df -k /run/x /dev/shm | awk 'NR>1 {print $2}'") == "1024\n8192\n"
    assert said(client, "a", "stat -c %a /run/x /srv/data; ls /srv/data") == "750\n1777\n"
    assert said(client, "a", "head -c 2000000 /dev/zero >/run/x/y; wc -c </run/x/y").startswith("1048576\n")


def test_a_read_only_root_leaves_what_is_mounted_in_it(client: Client, image: str) -> None:
    made = spec("a", image, v1.Mount(volume="data", target="/deep/new/target"), read_only=True)
    made.tmpfs.append(Tmpfs(target="/run"))
    client.up(made)
    tried = said(client, "a", "touch /x; mkdir /etc/y; touch /deep/new/target/z /run/z /dev/shm/z && echo ok")
    assert tried == (
        "ok\ntouch: /x: Read-only file system\nmkdir: can't create directory '/etc/y': Read-only file system\n"
    )


def test_a_part_of_a_source_is_found_beneath_it(client: Client, image: str, tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "good/file").write_text("yes")
    (tmp_path / "bad").symlink_to("/etc")
    (tmp_path / "worse").symlink_to("../../../../../../etc/hostname")
    source = str(tmp_path)
    client.up(
        spec(
            "a",
            image,
            v1.Mount(source=source, target="/f", sub_path="good/file"),
            v1.Mount(source=source, target="/d", sub_path="good"),
            v1.Mount(volume="data", target="/v", sub_path="made/for/me", create=True),
        )
    )
    assert said(client, "a", "cat /f /d/file; ls -A /v") == "yesyes"
    for path, why in (("bad", "leads out of"), ("worse", "leads out of"), ("none", "does not exist in")):
        mount = v1.Mount(source=source, target="/x", sub_path=path)
        assert why in refusal(client, spec("b", image, mount))


def test_what_is_mounted_later_is_seen_where_it_was_asked_for(
    client: Client, image: str, tmp_path: Path
) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    try:
        (tmp_path / "sub").mkdir()
        mount = v1.Mount(source=str(tmp_path), target="/m", propagation=PROPAGATION_SLAVE)
        assert "does not spread" in refusal(client, spec("a", image, mount))
        subprocess.run(["mount", "--make-shared", tmp_path], check=True)
        client.up(spec("b", image, mount, v1.Mount(source=str(tmp_path), target="/private")))
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / "sub"], check=True)
        (tmp_path / "sub/later").touch()
        assert said(client, "b", "ls /m/sub /private/sub") == "/m/sub:\nlater\n\n/private/sub:\n"
    finally:
        client.down(*[container.spec.name for container in client.ls()])
        subprocess.run(["umount", "-R", tmp_path], check=True)


def test_a_hosts_folder_that_is_mounted_upon_is_not_marked(
    client: Client, image: str, tmp_path: Path
) -> None:
    client.up(
        spec("a", image, v1.Mount(source=str(tmp_path), target="/m"), v1.Mount(volume="data", target="/m/v"))
    )
    assert [name for name in os.listxattr(tmp_path / "v") if name.startswith("trusted.")] == []


def test_what_is_wrong_is_told_with_its_field(client: Client, image: str) -> None:
    made = spec("a", image, v1.Mount(volume="../x", target="/a"), v1.Mount(source="/", target="/a"))
    made.mounts.add(volume="ok", source="/x", target="/b")
    made.mounts.add(volume="ok", target="/c", sub_path="../y")
    made.mounts.add(source="/tmp", target="/d", no_copy=True)
    made.tmpfs.append(Tmpfs(target="run", size_bytes=1))
    with pytest.raises(grpc.RpcError) as caught:
        client.apply(made)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    trailing = str(caught.value.trailing_metadata())
    for field in ("mounts[0].volume", "mounts[1].target", "mounts[2].volume", "mounts[3].sub_path",
                  "mounts[4].no_copy", "tmpfs[0].target", "tmpfs[0].size_bytes"):  # fmt: skip
        assert field in trailing
