"""`userns`: root of a container is nobody on the host, and nobody in the container notices."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import event_pb2 as ev
from tinyo.v1.userns_pb2 import USER_NAMESPACE_OFF, USER_NAMESPACE_ON

from tests.support import images
from tests.support.box import PYTHON_NEEDS, python
from tests.support.client import PATIENCE, Client
from tests.support.images import file, folder, layer
from tests.support.instance import Instance
from tests.support.registry import free_port

IDS = 1 << 16
#: For tests that give the host's Python to a container with a user namespace.
hosts_python = pytest.mark.skipif(
    any(line.split()[1:3] == ["/", "overlay"] for line in Path("/proc/mounts").read_text().splitlines()),
    reason="the root of this machine is an overlay, whose mounts cannot be id-mapped",
)
T = TypeVar("T")
#: Files of many users; one of them has an id that no container with a range of 65,536 has.
FILES = [
    folder("srv"),
    file("srv/user", b"1", uid=1000, gid=1001),
    file("srv/nobody", b"2", uid=65534, gid=65534),
    file("srv/high", b"3", uid=70000, gid=70000, mode=0o600),
    folder("srv/folder", uid=7, gid=8),
]


@pytest.fixture(scope="module")
def image(host: str) -> str:
    """Busybox, with files of many users."""
    return images.busybox_image(host, "users", [layer(*FILES)])


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as made:
        yield made


def mapped(name: str, image: str, script: str = "", **more: object) -> v1.ContainerSpec:
    """A container with a user namespace that runs a script, or a shell that stays."""
    command = ["sh", "-c", script] if script else []
    return v1.ContainerSpec(name=name, image=image, command=command, userns=USER_NAMESPACE_ON, **more)  # type: ignore[arg-type]


def ids_of(container: v1.Container) -> tuple[int, int]:
    """The user and group of a container's process on the host."""
    status = Path(f"/proc/{container.status.pid}/status").read_text().splitlines()
    uid, gid = (next(line.split()[1] for line in status if line.startswith(name)) for name in ("Uid", "Gid"))
    return int(uid), int(gid)


def refused(client: Client, *specs: v1.ContainerSpec) -> v1.Container:
    """What became of a container that could not be started."""
    container: v1.Container = client.apply(*specs)[-1].settled.containers[0]
    assert container.status.phase == v1.PHASE_FAILED
    return container


def test_ids_look_as_the_image_says_and_are_others_on_the_host(
    instance: Instance, client: Client, image: str
) -> None:
    (container,) = client.up(mapped("web", image))
    first = container.status.userns.first_id
    assert first >= IDS and container.status.userns.ids == IDS
    assert ids_of(container) == (first, first)
    owners = "stat -c %u:%g / /etc/passwd /srv/user /srv/nobody /srv/folder /srv/high /dev /dev/null /dev/shm"
    said = client.run("web", *owners.split())[1].decode().split()
    assert said == ["0:0", "0:0", "1000:1001", "65534:65534", "7:8", "65534:65534", "0:0", "0:0", "0:0"]
    script = "touch /new; mkdir /srv/folder/a; chown 33:44 /new; cat /srv/nobody; chown 5 /srv/user; id -u"
    assert client.run("web", "sh", "-c", script) == (0, b"20\n", b"")
    upper = instance.state / "containers" / container.id / "upper"
    for name, uid, gid in (("", 0, 0), ("new", 33, 44), ("srv/folder", 7, 8), ("srv/folder/a", 0, 0), ("srv/user", 5, 1001)):  # fmt: skip
        found = os.stat(upper / name)
        assert (found.st_uid - first, found.st_gid - first) == (uid, gid)
    code, _, error = client.run("web", "cat", "/srv/high")
    assert code == 1 and b"Permission denied" in error


def test_mounts_show_the_same_owners_on_both_sides(client: Client, image: str, tmp_path: Path) -> None:
    """Root inside is root on what it was given, and nowhere else; what no container may own it may not even read."""
    for name, owner in (("mine", 0), ("theirs", 1000), ("far", 70000)):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(0o600)
        os.chown(tmp_path / name, owner, owner)
    spec = mapped("web", image, "cat /etc/hosts /etc/resolv.conf >/dev/null && echo read; sleep 1000")
    spec.mounts.add(source=str(tmp_path), target="/data")
    spec.mounts.add(source=str(tmp_path / "theirs"), target="/single", read_only=True)
    spec.mounts.add(source=str(tmp_path / "mine"), target="/data/deep/er", read_only=True)
    spec.mounts.add(source=str(tmp_path / "mine"), target="/made/for/it", read_only=True)
    client.up(spec)
    made = ("stat", "-c", "%u", "/data/deep", "/made/for", "/made/for/it", "/data/deep/er")
    assert client.run("web", *made)[1].split() == [b"0"] * 4
    assert os.stat(tmp_path / "deep").st_uid == 0
    stat = ("stat", "-c", "%u", "/data/mine", "/data/theirs", "/data/far", "/single", "/etc/hosts", "/data")
    assert client.run("web", *stat)[1].split() == [b"0", b"1000", b"65534", b"1000", b"0", b"0"]
    assert client.run("web", "sh", "-c", "touch /data/new /data/other; chown 33 /data/other") == (0, b"", b"")
    assert [os.stat(tmp_path / name).st_uid for name in ("new", "other")] == [0, 33]
    assert client.run("web", "cat", "/data/theirs") == (0, b"theirs", b"")
    for attack in ("cat /data/far", "chown 0 /data/far", "rm -f /single", "chown 70000 /data/new"):
        assert client.run("web", *attack.split())[0] == 1
    assert client.logs("web") == b"read\n"


def test_a_port_below_1024_is_the_containers_to_open(client: Client, image: str) -> None:
    """Its network namespace is the host's, in which it has no capability; and so is `ping`."""
    port = free_port()
    spec = mapped("web", image, "while :; do echo hello | nc -l -p 80; done", user="1000")
    spec.ports.add(host_port=port, container_port=80)
    client.up(spec)
    deadline, answer = time.monotonic() + PATIENCE, b""
    while not answer and time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
                answer = connection.recv(100)
        except ConnectionError:
            time.sleep(0.02)
    assert answer == b"hello\n"
    groups = client.run("web", "cat", "/proc/sys/net/ipv4/ping_group_range")[1].split()
    assert groups == [b"0", b"65535"]


def test_exec_and_stop_and_start_stay_in_it(client: Client, image: str) -> None:
    script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    (container,) = client.up(mapped("web", image, script))
    one, two = (client.run("web", "readlink", f"/proc/{pid}/ns/user")[1] for pid in ("self", "1"))
    assert one == two and one.decode().strip() != os.readlink("/proc/self/ns/user")
    who = client.run("web", "sh", "-c", "id -u; id -G; grep CapEff /proc/self/status; echo 1 >/file")[1]
    assert who.split() == [b"0", b"0", b"CapEff:", b"00000000800405fb"]
    stopped = client.node.Stop(pb.StopRequest(names=["web"]), timeout=PATIENCE).containers[0]
    assert stopped.status.exit.code == 5
    started = client.node.Start(pb.StartRequest(names=["web"]), timeout=PATIENCE).containers[0]
    assert started.status.userns == container.status.userns
    assert ids_of(started)[0] == container.status.userns.first_id
    assert client.run("web", "cat", "/file")[1] == b"1\n"


def test_no_two_containers_have_the_same_ids(image: str) -> None:
    """Whether their namespace was made ahead of need or not."""
    with Instance(TINYO_RUNTIME_READY="2") as own, Client(own.socket("tinyo-node")) as client:
        specs = [mapped(f"c{number}", image) for number in range(6)]
        containers = [container for spec in specs[:3] for container in client.up(spec)] + client.up(
            *specs[3:]
        )
        firsts = [container.status.userns.first_id for container in containers]
        assert firsts == [ids_of(container)[0] for container in containers]
        assert len(set(firsts)) == 6


def test_a_crash_leaves_no_file_to_the_wrong_owner(host: str) -> None:
    """Folders that the image describes in another layer are on the container's from the beginning, and are given to it:
    all of them, though the runtime dies at the second."""
    described = layer(folder("srv", uid=7), folder("srv/folder", uid=7))
    image = images.busybox_image(host, "implied", [described, layer(file("srv/folder/file"))])
    with Instance(TINYO_FAILPOINTS="tinyo.userns */upper#2=kill") as own:
        del own.environment["TINYO_FAILPOINTS"]
        with Client(own.socket("tinyo-node")) as client:
            apply = pb.ApplyRequest(containers=[mapped("web", image)], origin="/test.yml", correlation_id="c")
            answers = client.node.Apply(apply, timeout=PATIENCE)
            assert own.running.pop("tinyo-runtime").wait(PATIENCE) == -signal.SIGKILL
            own.start("tinyo-runtime")
            (container,) = [*answers][-1].settled.containers
            upper = own.state / "containers" / container.id / "upper"
            owners = [os.stat(upper / name).st_uid for name in ("", "srv", "srv/folder")]
            assert [uid - container.status.userns.first_id for uid in owners] == [0, 7, 7]
            look = client.run("web", "stat", "-c", "%u", "/", "/srv", "/srv/folder", "/srv/folder/file")
            assert look[1].split() == [b"0", b"7", b"7", b"0"]


def test_neither_a_restart_nor_a_reboot_changes_ids(image: str) -> None:
    """After a reboot the run folder is empty: the files of the container belong to its ids still, and nobody else gets
    them."""
    web = mapped("web", image, "id -u >>/file; exec sleep 1000")
    with Instance() as own, Client(own.socket("tinyo-node")) as client:
        (container,) = client.up(web)
        first = container.status.userns.first_id
        own.kill("tinyo-runtime")
        own.start("tinyo-runtime")
        os.kill(own.spawners()[0], signal.SIGKILL)
        joined = patient(lambda: client.run("web", "cat", "/proc/self/uid_map"))
        assert joined[1].split() == [b"0", b"%d" % first, b"%d" % IDS]
        own.stop("tinyo-node")
        own.stop("tinyo-runtime")
        (record,) = (own.run / "containers").iterdir()
        record.unlink()
        os.kill(container.status.pid, signal.SIGKILL)
        own.start("tinyo-runtime")
        own.start("tinyo-node")
        ids = {one.spec.name: one.status.userns.first_id for one in client.up(mapped("other", image), web)}
        assert ids["web"] == first != ids["other"]
        assert client.run("web", "cat", "/file")[1] == b"0\n0\n"


def patient(call: Callable[[], T]) -> T:
    """The answer of a node that may have to find its runtime first."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except grpc.RpcError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@hosts_python
def test_terminals_belong_to_whoever_opens_them(client: Client, image: str) -> None:
    """And to the group 5, which programs that write to others' terminals are in."""

    def inside() -> None:
        import os

        for user in (0, 1000):
            os.setuid(user)
            found = os.fstat(os.openpty()[1])
            print(found.st_uid, found.st_gid, oct(found.st_mode & 0o777))

    spec = mapped("web", image)
    for needed in dict.fromkeys(PYTHON_NEEDS):
        spec.mounts.add(source=needed, target=needed, read_only=True)
    client.up(spec)
    assert client.run("web", *python(inside)) == (0, b"0 5 0o620\n1000 5 0o620\n", b"")


@hosts_python
def test_an_image_that_is_made_of_it_has_the_ids_of_the_container(
    client: Client, instance: Instance, image: str
) -> None:
    """Owners, access control lists and capabilities, whose ids are the host's on the disk."""

    def inside() -> None:
        import os
        import struct

        entries = ((1, 6, -1), (2, 4, 1000), (4, 4, -1), (8, 4, 33), (0x10, 6, -1), (0x20, 4, -1))
        acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
        for name in ("listed", "capable"):
            with open(f"/srv/{name}", "w"):
                os.chown(f"/srv/{name}", 12, 34)
        os.setxattr("/srv/listed", "system.posix_acl_access", acl)
        os.setxattr("/srv/capable", "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))
        os.chmod("/srv/user", 0o4755)
        os.mkdir("/srv/folder/below")
        os.remove("/srv/nobody")

    spec = mapped("web", image)
    for needed in dict.fromkeys(PYTHON_NEEDS):
        spec.mounts.add(source=needed, target=needed, read_only=True)
    client.up(spec)
    assert client.run("web", *python(inside)) == (0, b"", b"")
    instance.cli("commit", "web", "team/web:1")
    copy = client.up(v1.ContainerSpec(name="copy", image="team/web:1", userns=USER_NAMESPACE_OFF))[0]
    root = Path(f"/proc/{copy.status.pid}/root/srv")
    look = client.run(
        "copy", "stat", "-c", "%n %u:%g %a", *(f"/srv/{name}" for name in sorted(os.listdir(root)))
    )
    assert look[1].decode().splitlines() == [
        "/srv/capable 12:34 644",
        "/srv/folder 7:8 755",
        "/srv/high 70000:70000 600",
        "/srv/listed 12:34 664",
        "/srv/user 1000:1001 4755",
    ]
    assert os.stat(root / "folder/below").st_uid == 0
    assert os.getxattr(root / "capable", "security.capability")[:8] == b"\1\0\0\2\0\4\0\0"
    assert os.getxattr(root / "listed", "system.posix_acl_access")[12:20] == b"\2\0\4\0\xe8\3\0\0"
    assert client.up(mapped("again", "team/web:1"))[0].status.userns.first_id
    assert client.run("again", "stat", "-c", "%u", "/srv/capable")[1] == b"12\n"


def test_a_hundred_layers_are_mapped_as_one(client: Client, host: str) -> None:
    client.up(mapped("deep", images.push(images.many_layers(100), f"{host}/deep:1")))
    assert client.run("deep", "stat", "-c", "%u", "/top", "/layers/1")[1] == b"0\n0\n"
    assert client.run("deep", "cat", "/top")[1] == b"99"


def test_what_cannot_be_mapped_is_named(
    client: Client, instance: Instance, image: str, tmp_path: Path
) -> None:
    (tmp_path / "below").mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", tmp_path / "below"], check=True)
    try:
        spec = mapped("web", image)
        spec.mounts.add(source=str(tmp_path), target="/data")
        failed = refused(client, spec).status.error
        assert (failed.reason, failed.field) == ("USERNS_IMPOSSIBLE", "mounts[0].source")
        assert failed.message == (
            f"the container cannot have a user namespace: mount {tmp_path}: ramfs at {tmp_path}/below cannot be "
            "mapped to a user namespace; without one (`userns: false`) it can run"
        )
    finally:
        subprocess.run(["umount", tmp_path / "below"], check=True)


def test_a_user_without_an_id_there_is_told(client: Client, image: str) -> None:
    failed = refused(client, mapped("web", image, user="70000")).status.error
    assert (failed.reason, failed.field) == ("START_FAILED", "user")
    assert "the user 70000 or a group of theirs has no id in the container's user namespace" in failed.message


def test_the_nodes_default_holds_where_it_can(image: str, tmp_path: Path) -> None:
    """Where it cannot, the container runs without, and its event says why; what a Statefile says comes first."""
    with Instance(TINYO_RUNTIME_USERNS="true") as instance, Client(instance.socket("tinyo-node")) as client:
        spec = v1.ContainerSpec(name="plain", image=image)
        assert client.up(spec)[0].status.userns.first_id
        spec = v1.ContainerSpec(name="never", image=image, userns=USER_NAMESPACE_OFF)
        assert ids_of(client.up(spec)[0]) == (0, 0)
        spec = v1.ContainerSpec(name="system", image=image)
        spec.mounts.add(source="/proc/sys/kernel", target="/kernel", read_only=True)
        (container,) = client.up(spec)
        assert ids_of(container) == (0, 0) and client.run("system", "id", "-u")[1] == b"0\n"
        why = "mount /proc/sys/kernel: proc at /proc/sys/kernel cannot be mapped to a user namespace"
        assert container.status.userns.missing == why
        running = client.until("system", ev.EVENT_REASON_RUNNING)
        assert running.message == f"{container.status.address}, without a user namespace: {why}"


def test_a_spec_that_says_neither_is_refused(client: Client, image: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.apply(v1.ContainerSpec(name="web", image=image, userns=9))  # type: ignore[arg-type]
    assert "userns 9 is unknown" in str(caught.value.details())
