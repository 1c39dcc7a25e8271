"""`tinyo cp` both ways, as people use it, and as a hostile container would like to have it used."""

import io
import os
import stat
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1

from tests.support.client import Client
from tests.support.instance import PROGRAMS, Instance


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as made:
        yield made


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a bit of everything."""
    folder = tmp_path / "site"
    (folder / "sub").mkdir(parents=True)
    (folder / "one").write_bytes(b"1" * 300_000)
    (folder / "one").chmod(0o640)
    os.utime(folder / "one", (1_600_000_000, 1_600_000_000))
    os.link(folder / "one", folder / "sub/same")
    (folder / "sub/link").symlink_to("../one")
    (folder / ".wh.odd").write_text("odd")
    return folder


def said(client: Client, script: str) -> str:
    _, out, err = client.run("web", "sh", "-c", script)
    return (out + err).decode()


def up(client: Client, image: str, *mounts: v1.Mount, script: str = "") -> v1.Container:
    command = ["sh", "-c", script] if script else []
    return client.up(v1.ContainerSpec(name="web", image=image, mounts=mounts, command=command))[0]


@pytest.mark.parametrize("runs", [True, False])
def test_there_and_back(client: Client, instance: Instance, image: str, here: Path, runs: bool) -> None:
    up(client, image, v1.Mount(volume="data", target="/data"))
    if not runs:
        client.node.Stop(pb.StopRequest(names=["web"], grace_ms=0))
    instance.cli("cp", str(here), "web:/srv")  # becomes /srv, which is not there
    instance.cli("cp", str(here), "web:/data")  # comes into /data
    instance.cli("cp", f"{here}/.", "web:/data/more")
    back = here.parent / "back"
    instance.cli("cp", "web:/srv", str(back))
    (instance.state / "volumes/data/data/site/one").read_bytes()
    assert (back / "one").read_bytes() == b"1" * 300_000 == (back / "sub/same").read_bytes()
    found = os.stat(back / "one")
    assert (stat.S_IMODE(found.st_mode), found.st_mtime, found.st_nlink) == (0o640, 1_600_000_000, 2)
    assert os.readlink(back / "sub/link") == "../one"
    instance.cli("cp", "web:/data/more/.", str(back / "sub"))
    assert (back / "sub/one").exists()
    tar = subprocess.run(
        [str(PROGRAMS / "tinyo"), "cp", "web:/srv/sub", "-"],
        env=instance.environment,
        capture_output=True,
        check=True,
    )
    with tarfile.open(fileobj=io.BytesIO(tar.stdout)) as archive:
        assert sorted(archive.getnames()) == ["sub", "sub/link", "sub/same"]
    subprocess.run(
        [str(PROGRAMS / "tinyo"), "cp", "-", "web:/data"],
        env=instance.environment,
        input=tar.stdout,
        check=True,
    )
    if not runs:
        client.node.Start(pb.StartRequest(names=["web"]))
    assert said(client, "ls /srv; ls /data /data/sub; stat -c '%u %a' /srv/one") == (
        "one\nsub\n/data:\nmore\nsite\nsub\n\n/data/sub:\nlink\nsame\n0 640\n"
    )


def test_files_take_names_and_places(client: Client, instance: Instance, image: str, here: Path) -> None:
    up(client, image)
    instance.cli("cp", f"{here}/one", "web:/tmp")
    instance.cli("cp", f"{here}/one", "web:/tmp/two")
    instance.cli("cp", f"{here}/.wh.odd", "web:/tmp/two")
    assert said(client, "wc -c /tmp/one; cat /tmp/two") == "300000 /tmp/one\nodd"
    instance.cli("cp", f"{here}/one", "web:/etc/hosts")  # which is mounted there
    assert said(client, "wc -c </etc/hosts") == "300000\n"
    instance.cli("cp", "web:/tmp/two", str(here / "sub/link"))
    assert (here / "one").stat().st_size == 300_000, "what a link leads to stays"


@pytest.mark.parametrize(
    ("source", "target", "why"),
    [
        ("web:/none", ".", "there is no /none in the container"),
        ("HERE/none", "web:/tmp", "does not exist"),
        ("HERE/one", "web:/none/", "there is no /none/"),
        ("HERE/one", "web:/no/where", "there is no /no/where"),
        ("HERE", "web:/etc/passwd", "not a folder"),
        ("web:/dev/null", ".", "neither a file nor a folder"),
        ("web:/etc", "HERE/one", "is a file, and a folder cannot take its place"),
        ("nobody:/x", ".", "there is no container 'nobody'"),
    ],
)
def test_what_cannot_be_is_said(
    client: Client, instance: Instance, image: str, here: Path, source: str, target: str, why: str
) -> None:
    up(client, image)
    words = [text.replace("HERE", str(here)) for text in (source, target)]
    done = instance.cli("cp", *words, check=False)
    assert done.returncode == 1 and why in done.stderr, done.stderr
    assert instance.cli("cp", "a", "b", check=False).returncode == 2


def test_links_of_the_container_lead_into_itself(
    client: Client, instance: Instance, image: str, here: Path
) -> None:
    """CVE-2018-15664, CVE-2019-14271: a container whose folders are links to the host's, and change all the time."""
    secret = here.parent / "secret"
    secret.mkdir()
    (secret / "key").write_text("the host's")
    swap = (
        f"mkdir -p /real /x{secret}; echo mine >/real/key; echo mine >/x{secret}/key; mkdir -p {secret.parent};"
        f"ln -s {secret} /evil; ln -s ../../../../../..{secret} /worse; ln -s /proc/1/root /magic; touch /ready;"
        "while :; do mv /real /away; ln -s /evil /real; rm /real; mv /away /real; done"
    )
    up(client, image, script=swap)
    while said(client, "ls /ready") != "/ready\n":
        time.sleep(0.01)
    for path in ("/evil/key", "/worse/key", f"/magic{secret}/key"):
        done = instance.cli("cp", f"web:{path}", str(here / "got"), check=False)
        assert done.returncode == 1 and not (here / "got").exists()
        assert instance.cli("cp", str(here / "one"), f"web:{path}", check=False).returncode == 1
    for _ in range(4):
        instance.cli("cp", "web:/real/key", str(here / "got"), check=False)
        assert not (here / "got").exists() or (here / "got").read_text() != "the host's"
        instance.cli("cp", str(here / "one"), "web:/real/key", check=False)
    assert (secret / "key").read_text() == "the host's" and os.listdir(secret) == ["key"]


def test_an_archive_cannot_leave_the_folder_that_it_comes_to(
    client: Client, instance: Instance, image: str
) -> None:
    up(client, image)
    for name in ("../out", "/../../out", "link/out"):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc"
            archive.addfile(link)
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
        done = subprocess.run(
            [str(PROGRAMS / "tinyo"), "cp", "-", "web:/tmp"],
            env=instance.environment,
            input=data.getvalue(),
            capture_output=True,
        )
        assert done.returncode == 1
        assert said(client, "ls /out /etc/out 2>/dev/null; rm -f /tmp/link") == ""


def test_what_is_read_only_stays_so_when_the_container_is_stopped(
    client: Client, instance: Instance, image: str, here: Path
) -> None:
    mount = v1.Mount(source=str(here), target="/mnt", read_only=True)
    client.up(v1.ContainerSpec(name="web", image=image, mounts=[mount], read_only=True))
    for path in ("/mnt/new", "/new"):
        done = instance.cli("cp", str(here / "one"), f"web:{path}", check=False)
        assert "Read-only file system" in done.stderr
    client.node.Stop(pb.StopRequest(names=["web"], grace_ms=0))
    for path in ("/mnt/new", "/new"):
        done = instance.cli("cp", str(here / "one"), f"web:{path}", check=False)
        assert "Read-only file system" in done.stderr
    assert not (here / "new").exists()
