"""Devices of the host in containers, by their nodes and by CDI files: real services, the real kernel."""

import json
import os
import secrets
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1.devices_pb2 import Device

from tests.support import images
from tests.support.client import Client
from tests.support.instance import PATIENCE, Instance

LOG = "/dev/kmsg"
OPEN = "for device; do (exec 3<$device) && echo $device; done"


@pytest.fixture(scope="module")
def image(host: str) -> str:
    return images.busybox_image(host, "alpine")


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as made:
        yield made


@pytest.fixture
def vendor() -> Iterator[str]:
    """The name of somebody who makes devices; what is written into files of that name is taken away again."""
    name = f"v{secrets.token_hex(4)}.test"
    yield name
    for folder in CDI:
        for path in folder.glob(f"{name}*"):
            path.unlink()
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


CDI = (Path("/etc/cdi"), Path("/var/run/cdi"))


def describe(
    vendor: str, devices: list[dict[str, Any]], *, folder: int = 1, suffix: str = "", **more: Any
) -> Path:
    """Writes a CDI file."""
    CDI[folder].mkdir(exist_ok=True)
    path = CDI[folder] / f"{vendor}{suffix}.json"
    document = {"cdiVersion": "0.6.0", "kind": f"{vendor}/thing", "devices": devices, **more}
    path.write_text(json.dumps(document))
    return path


def refused(client: Client, spec: v1.ContainerSpec) -> str:
    """Why a container could not be started."""
    (settled,) = [a.settled for a in client.apply(spec) if a.HasField("settled")]
    assert settled.containers[0].status.error.reason == "DEVICE_UNUSABLE"
    client.down(spec.name)
    return str(settled.containers[0].status.error.message)


def succeeds(client: Client, script: str) -> bool:
    """Whether it can be run, and ends well; the node may not know the new runtime yet."""
    try:
        return client.run("web", "sh", "-c", script)[0] == 0
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        return False


def test_fuse_and_tun_can_be_opened_by_those_who_ask(client: Client, image: str) -> None:
    wanted = ["/dev/fuse", "/dev/net/tun"]
    for module in ("fuse", "tun"):
        if not Path("/dev", "net" * (module == "tun"), module).exists():
            subprocess.run(["modprobe", module], check=True)
    client.up(
        v1.ContainerSpec(name="asks", image=image, devices=[Device(source=path) for path in wanted]),
        v1.ContainerSpec(name="not", image=image),
    )
    code, out, _ = client.run("asks", "sh", "-c", OPEN, "sh", *wanted)
    assert out.decode().split() == wanted
    _, out, _ = client.run("asks", "stat", "-c", "%t:%T %a %u:%g", "/dev/fuse")
    status = os.stat("/dev/fuse")
    assert out.decode().strip() == f"a:e5 {stat.S_IMODE(status.st_mode):o} {status.st_uid}:{status.st_gid}"
    code, out, _ = client.run("not", "sh", "-c", OPEN, "sh", *wanted)
    assert (code, out) == (1, b"")


def test_permissions_hold_for_programs_too_and_after_a_restart(image: str) -> None:
    with Instance() as own, Client(own.socket("tinyo-node")) as client:
        device = Device(source=LOG, target="/dev/my/log", permissions="w")
        client.up(v1.ContainerSpec(name="web", image=image, devices=[device]))
        own.kill("tinyo-runtime")
        own.start("tinyo-runtime")
        write, read = "echo tinyo: a test > /dev/my/log", "read line < /dev/my/log"
        deadline = time.monotonic() + PATIENCE
        while client.ls()[0].status.phase != v1.PHASE_RUNNING or not succeeds(client, write):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        code, _, said = client.run("web", "sh", "-c", read)
        assert code == 1
        assert b"Operation not permitted" in said
        client.down("web")


def test_what_is_mounted_of_the_hosts_devices_cannot_be_used(client: Client, image: str) -> None:
    """As with Docker: a device is asked for as a device."""
    spec = v1.ContainerSpec(name="web", image=image)
    spec.mounts.add(source=LOG, target="/log")
    client.up(spec)
    code, _, said = client.run("web", "sh", "-c", "echo tinyo: a test > /log")
    assert code == 1
    assert b"Operation not permitted" in said


def test_what_is_no_device_is_told(client: Client, image: str) -> None:
    for source, why in (
        ("/dev/none", "No such file or directory: /dev/none"),
        ("/etc/hosts", "it is no device"),
    ):
        spec = v1.ContainerSpec(name="web", image=image, devices=[Device(source=source)])
        assert refused(client, spec) == f"device {source} cannot be used: {why}"
    with pytest.raises(grpc.RpcError) as caught:
        client.apply(
            v1.ContainerSpec(name="web", image=image, devices=[Device(source="/dev/x", permissions="rr")])
        )
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "permissions 'rr' are not some of 'rwm'" in str(caught.value.details())


def test_a_statefile_says_it_in_short(instance: Instance, client: Client, image: str, tmp_path: Path) -> None:
    statefile = tmp_path / "web.yml"
    statefile.write_text(
        f"container: {image}\ndevices:\n  - {LOG}:/dev/log:w\n  - nvidia.com/gpu=0\n  - /dev/a:x\n"
    )
    done = instance.cli("+", str(statefile), check=False)
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if "web.yml" in line] == [
        f"{statefile}:4:5: 'nvidia.com/gpu=0' is the name of a CDI device: write it under `cdi`",
        f"{statefile}:5:5: '/dev/a:x' is no device: write /dev/NAME, /dev/NAME:/dev/OTHER, each also with :r, :w, :m"
        " or several of them",
    ]
    statefile.write_text(f"container: {image}\ndevices: {LOG}:/dev/log:w\n")
    instance.cli("+", str(statefile))
    assert client.run("web", "sh", "-c", "echo tinyo: a test > /dev/log")[0] == 0
    instance.cli("-", str(statefile))


def test_a_cdi_file_gives_nodes_mounts_and_variables(
    client: Client, image: str, vendor: str, tmp_path: Path
) -> None:
    (tmp_path / "library").write_text("of the vendor\n")
    mount = {
        "hostPath": str(tmp_path),
        "containerPath": "/usr/lib/vendor",
        "options": ["ro", "nosuid", "bind"],
    }
    node = {"path": "/dev/thing0", "hostPath": LOG, "type": "c", "major": 1, "minor": 11, "permissions": "w"}
    one = {"name": "0", "containerEdits": {"deviceNodes": [node], "env": ["THING=0", "MINE=theirs"]}}
    common = {"mounts": [mount], "env": ["DRIVER=1", "PATH=/bin:/usr/lib/vendor"]}
    describe(
        vendor, [{"name": "0", "containerEdits": {"hooks": [{}]}}], folder=0
    )  # the other folder counts first
    path = describe(
        vendor, [one, {"name": "1", "containerEdits": {"env": ["THING=1"]}}], containerEdits=common
    )
    spec = v1.ContainerSpec(name="web", image=image, cdi=[f"{vendor}/thing=0"], env={"MINE": "mine"})
    client.up(spec)
    path.unlink()  # it was looked at when the container started
    show = "echo $THING $MINE $DRIVER $PATH; cat /usr/lib/vendor/library; echo tinyo: a test > /dev/thing0"
    code, out, _ = client.run("web", "sh", "-c", f"{show} && touch /usr/lib/vendor/x")
    assert out == b"0 mine 1 /bin:/usr/lib/vendor\nof the vendor\n"
    assert (code, [*tmp_path.iterdir()]) == (1, [tmp_path / "library"])


def test_a_cdi_device_that_cannot_be_had_is_told(client: Client, image: str, vendor: str) -> None:
    def why(device: str = "0") -> str:
        spec = v1.ContainerSpec(name="web", image=image, cdi=[f"{vendor}/thing={device}"])
        return refused(client, spec).removeprefix(f"device {vendor}/thing={device} cannot be used: ")

    assert why() == "no file in /etc/cdi and /var/run/cdi describes it"
    hook = {"hookName": "createContainer", "path": "/usr/bin/vendor-hook"}
    path = describe(vendor, [{"name": "0", "containerEdits": {"hooks": [hook]}}])
    assert why() == f"{path} asks for hooks, which TinyO does not do"
    describe(vendor, [{"name": "0", "containerEdits": {"deviceNodes": [{"path": LOG, "major": 2}]}}])
    assert why() == f"{LOG}: major is 1 on this host, and not 2"
    other = describe(vendor, [{"name": "0", "containerEdits": {}}], suffix="-b")
    assert why() == f"both {other} and {path} describe it: remove one of them"
    other.unlink()
    path.write_text("{")
    assert f"no file in /etc/cdi and /var/run/cdi describes it; {path} cannot be understood: " in why()


def test_nothing_of_it_stays(instance: Instance, client: Client, image: str) -> None:
    """A container that is killed, with everything that it had."""
    container = client.up(v1.ContainerSpec(name="web", image=image, devices=[Device(source=LOG)]))[0]
    (folder,) = [*Path("/sys/fs/cgroup").glob(f"**/{instance.name}/{container.id}")][:1]
    os.kill(container.status.pid, signal.SIGKILL)
    client.node.Stop(pb.StopRequest(names=["web"]), timeout=30)
    assert not folder.exists()
