"""`tinyo commit`: what somebody did in a container is in the image, exactly, and in containers that are made of it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.images import busybox_image, file, folder, layer
from tests.support.instance import PATIENCE, PROGRAMS, Instance
from tests.support.trees import Listing, listing

#: Nothing has to be made in it for what TinyO mounts.
COMPLETE = [layer(file("etc/resolv.conf"), folder("old/below"), file("old/below/f", b"1"), file("old/f", b"2"),
                  file("etc/changed", b"before"), file("srv/file"), folder("tree/a"), file("tree/a/f"))]  # fmt: skip
#: Every kind of change, by busybox.
CHANGES = r"""
set -e; cd /
echo after >etc/changed; chmod 4711 etc/changed; chown 7:8 etc/changed
rm etc/group; rm -r old/below; rm -r srv; mkdir srv; echo new >srv/new
rm -r tree; echo 'a file now' >tree
mkdir -p data/a/b; chmod 3770 data/a; chown 4000000000:5 data/a
echo linked >data/one; ln data/one data/a/two; ln -s ../../nowhere data/link
mkfifo -m 640 data/pipe; mkdir "data/$(printf 'odd\377\n\033[2J')"
touch -d '1960-02-03 04:05:06' data/old; touch "data/$(printf '%0255d' 7)"
mv usr/bin/env data/env; chmod 1770 /root
dd if=/dev/zero of=data/hole bs=1 count=1 seek=104857600 2>/dev/null
mkdir dev/shm/x; echo hidden >etc/hosts
"""
#: Where TinyO mounts something.
MOUNTED = tuple(
    f"./{name}" for name in ("dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf")
)


def inside(instance: Instance, name: str) -> Listing:
    """The root of a container, but for what is mounted in it; and for its time, which is that of its making."""
    pid = processes(instance, name)[0]
    return without_mounts(listing(Path(f"/proc/{pid}/root")))


def without_mounts(found: Listing) -> Listing:
    return {
        name: about
        for name, about in found.items()
        if name != b"." and not any(os.fsdecode(name).startswith(mount) for mount in MOUNTED)
    }


def identity(instance: Instance, name: str) -> str:
    containers = json.loads(instance.cli("ls", "-a", "-o", "json").stdout)
    return str(next(one["id"] for one in containers if one["spec"]["name"] == name))


def processes(instance: Instance, name: str) -> list[int]:
    """Those of a container, on the host."""
    (cgroup,) = Path("/sys/fs/cgroup").glob(f"pids/{instance.name}/{identity(instance, name)}")
    return [*map(int, (cgroup / "cgroup.procs").read_text().split())]


def up(instance: Instance, name: str, image: str, more: str = "") -> None:
    statefile = instance.run / f"{name}.yml"
    statefile.write_text(f"container: {image}\n{more}")
    instance.cli("+", str(statefile))


def wait(check: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.001)


@contextlib.contextmanager
def held(instance: Instance, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A `tinyo commit` whose packer was stopped just when it began."""
    before = {*packers()}
    command = subprocess.Popen(
        [PROGRAMS / "tinyo", "commit", *arguments], env=instance.environment, stdout=-1, stderr=-1, text=True
    )
    wait(lambda: {*packers()} - before, "nobody packs")
    (packer,) = {*packers()} - before
    os.kill(packer, signal.SIGSTOP)
    try:
        yield command
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(packer, signal.SIGCONT)
        command.wait(PATIENCE)
        wait(lambda: packer not in packers(), "the packer goes on")


def packers() -> Iterator[int]:
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if b"/pack/__main__.py\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                yield int(pid)


def test_the_image_is_exactly_what_the_container_was(instance: Instance, host: str, tmp_path: Path) -> None:
    up(instance, "web", busybox_image(host, "base", COMPLETE))
    instance.cli("exec", "web", "--", "sh", "-c", CHANGES)
    done = instance.cli("commit", "web", "team/web:2")
    assert done.stdout.startswith("✓ docker.io/team/web:2  sha256:") and done.stderr == ""
    before = inside(instance, "web")
    assert b"./srv/new" in before and b"./srv/file" not in before and b"./old/f" in before
    up(instance, "two", "team/web:2")
    assert inside(instance, "two") == before
    unpack = ["umoci", "--log=error", "unpack", "--image", f"{instance.state}/images:docker.io/team/web:2"]
    subprocess.run([*unpack, tmp_path / "bundle"], check=True)
    theirs = listing(tmp_path / "bundle/rootfs")
    assert without_mounts(theirs) == before
    assert theirs[b"./data/hole"][4] == (100 << 20) + 1
    assert theirs[b"./etc/hosts"][4] == len("127.0.0.1\tlocalhost\n"), (
        "the base's, not what was mounted there"
    )
    instance.cli("image", "verify")
    # A container of the image changes, and becomes one more.
    instance.cli("exec", "two", "--", "sh", "-c", "rm /data/one; echo 3 >/three")
    instance.cli("commit", "two", "team/web:3")
    up(instance, "three", "team/web:3")
    assert instance.cli("exec", "three", "--", "sh", "-c", "cat /three /data/a/two; ls /data/one", check=False).stdout == "3\nlinked\n"  # fmt: skip


def test_what_tinyo_made_for_mounts_is_not_in_the_image(
    instance: Instance, host: str, tmp_path: Path
) -> None:
    """The base has none of these files and folders."""
    mounts = [("/etc/hostname", "/mnt/deep/er/file"), (tmp_path, "/new/folder"), (tmp_path, "/own")]
    listed = "".join(f"  - {{source: {source}, target: {target}}}\n" for source, target in mounts)
    bare = busybox_image(host, "bare", [layer(file(".wh.proc"), file(".wh.sys"), file("etc/.wh.hosts"))])
    up(instance, "web", bare, f"mounts:\n{listed}")
    instance.cli("exec", "web", "--", "sh", "-c", "echo mine >/new/mine; echo theirs >/own/theirs")
    instance.cli("commit", "web", "team/web")
    unpack = [
        "umoci",
        "--log=error",
        "unpack",
        "--image",
        f"{instance.state}/images:docker.io/team/web:latest",
    ]
    subprocess.run([*unpack, tmp_path / "bundle"], check=True)
    root = tmp_path / "bundle/rootfs"
    assert {"mnt", "own", "proc", "sys"}.isdisjoint(os.listdir(root)) and os.listdir(root / "new") == ["mine"]
    assert sorted(os.listdir(root / "etc")) == ["group", "hostname", "os-release", "passwd"]


def test_what_the_image_is_to_be(instance: Instance, host: str) -> None:
    up(instance, "web", busybox_image(host, "base", Entrypoint=["sleep"], Cmd=["x"]), "command: 1000\n")
    changes = ['ENTRYPOINT ["/bin/sh", "-c"]', 'CMD ["echo $A >/out; exec sleep 1000"]', "ENV A=hello"]
    instance.cli("commit", "-m", "for \x1b[2Jus", "-a", "me", "--compression", "zstd",
                 *(word for change in changes for word in ("-c", change)), "web", "localhost/app:1")  # fmt: skip
    history = instance.cli("image", "history", "localhost/app:1").stdout
    assert "tinyo commit # for " in history and "\x1b" not in history
    up(instance, "app", "localhost/app:1")
    wait(
        lambda: instance.cli("exec", "app", "--", "cat", "/out", check=False).stdout == "hello\n", "no output"
    )


def test_the_container_stands_still_and_goes_on(instance: Instance, host: str) -> None:
    """It goes on when it is read, when somebody interrupts that, and when the runtime is killed meanwhile."""
    up(instance, "web", busybox_image(host, "base"))
    instance.cli("exec", "web", "--", "sh", "-c", "(while :; do :; done) </dev/null >/dev/null 2>&1 &")
    (folder,) = Path("/sys/fs/cgroup").glob(f"pids/{instance.name}/*/")
    members = processes(instance, "web")
    assert len(members) == 2

    def paused() -> bool:
        states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in members]
        return states == ["D", "D"]

    def images() -> tuple[list[str], list[str]]:
        return os.listdir(instance.state / "images/blobs/sha256"), os.listdir(instance.state / "pulling")

    with held(instance, "--no-pause", "web", "team/a"):
        assert not paused()
    before = images()
    with held(instance, "web", "team/b") as command:
        wait(paused, "it is not paused")
        assert instance.cli("image", "ls").returncode == 0, "the runtime answers meanwhile"
        command.send_signal(signal.SIGINT)
        assert command.wait(PATIENCE) == 130
        wait(lambda: not paused(), "it is still paused")
        wait(lambda: images() == before, "something is left")
    with held(instance, "web", "team/c") as command:
        wait(paused, "it is not paused")
        instance.kill("tinyo-runtime")
        assert paused()
        instance.start("tinyo-runtime")
        assert not paused()
    assert command.returncode in (1, 3)
    with held(instance, "web", "team/c") as command:
        wait(paused, "it is not paused")
        instance.stop("tinyo-runtime")
        assert not paused() and images()[1] == []
        instance.start("tinyo-runtime")
    assert command.returncode in (1, 3)
    assert instance.cli("commit", "web", "team/d").returncode == 0
    assert not paused() and processes(instance, "web") == members
    assert folder.is_dir()
    instance.cli("image", "prune")
    instance.cli("image", "verify")


def test_a_container_that_is_read_is_neither_stopped_nor_deleted(instance: Instance, host: str) -> None:
    up(instance, "web", busybox_image(host, "base"))
    instance.cli("exec", "web", "--", "sh", "-c", "echo 1 >/file")
    with held(instance, "web", "team/web") as command:
        removing = subprocess.Popen([PROGRAMS / "tinyo", "-", "web"], env=instance.environment, stdout=-1)
        wait(
            lambda: "STATE_RUNNING" not in instance.cli("ls", "-a", "-o", "json").stdout, "nobody removes it"
        )
        assert removing.poll() is None
    assert command.returncode == 0 and removing.wait(PATIENCE) == 0
    up(instance, "two", "team/web")
    assert instance.cli("exec", "two", "--", "cat", "/file").stdout == "1\n"


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_stopped_container_becomes_an_image(instance: Instance, host: str, forgotten: bool) -> None:
    """Also one that the runtime forgot, as after a reboot, when the run folder is empty."""
    up(instance, "web", busybox_image(host, "base"))
    instance.cli("exec", "web", "--", "sh", "-c", "echo 1 >/file")
    instance.cli("stop", "web", "-t", "0")
    if forgotten:
        instance.stop("tinyo-node")
        instance.stop("tinyo-runtime")
        (record,) = (instance.run / "containers").iterdir()
        record.unlink()
        instance.start("tinyo-runtime")
        instance.start("tinyo-node")
    instance.cli("commit", "web", "team/web")
    up(instance, "two", "team/web")
    assert instance.cli("exec", "two", "--", "cat", "/file").stdout == "1\n"


def test_what_cannot_be_done_is_said(instance: Instance, host: str) -> None:
    missing = instance.run / "missing.yml"
    missing.write_text(f"container: {host}/nothing\nname: missing\n")
    assert instance.cli("+", str(missing), check=False).returncode == 1
    broken = instance.run / "broken.yml"
    broken.write_text(f"container: {busybox_image(host, 'base')}\nname: broken\ncommand: [nothing]\n")
    assert instance.cli("+", str(broken), check=False).returncode == 1
    for name in ("missing", "broken"):
        failed = instance.cli("commit", name, "team/web", check=False)
        assert failed.returncode == 1 and f"container '{name}' was never started" in failed.stderr
    failed = instance.cli("commit", "nobody", "team/web", check=False)
    assert failed.returncode == 1 and "there is no container 'nobody'" in failed.stderr
    up(instance, "web", f"{host}/base")
    instance.cli("exec", "web", "--", "sh", "-c", "mkfifo /pipe; echo >/.wh.etc")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/{processes(instance, 'web')[0]}/root/socket")
    note = instance.cli("commit", "web", "team/web").stderr
    assert note.splitlines() == [
        "note: a socket is not in the image",
        'note: a file or folder whose name begins with ".wh." is not in the image',
    ]
    for wrong in (["web", "Team"], ["-c", "FROM x", "web", "team/y"], ["web", "x@sha256:" + "0" * 64]):
        failed = instance.cli("commit", *wrong, check=False)
        assert failed.returncode == 2 and len(failed.stderr.splitlines()) == 1
    assert os.listdir(instance.state / "pulling") == []
