"""`tinyo inspect`: what it says of a container is what the kernel says, and what the container is asked itself."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import inspect_pb2 as ins
from tinyo.v1.event_pb2 import EVENT_REASON_EXITED
from tinyo.v1.resources_pb2 import Resources
from tinyo.v1.security_pb2 import CAPABILITY_CHOWN, CAPABILITY_SYS_ADMIN, CapabilityChange, Security
from tinyo.v1.userns_pb2 import USER_NAMESPACE_ON

from tests.support.client import Client
from tests.support.instance import Instance

#: A name of a folder that a terminal obeys, that ends lines.
HOSTILE = "/a b\\c\x1b[2J\u2028\x85\n"


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as made:
        yield made


def spec(image: str, **more: Any) -> v1.ContainerSpec:
    return v1.ContainerSpec(name="web", image=image, command=["sleep", "1000"], **more)


def of_kernel(client: Client) -> ins.Inspection:
    """What it says of the container."""
    return client.node.Inspect(pb.InspectRequest(name="web"), timeout=20).inspection


def test_it_is_what_the_kernel_says(instance: Instance, client: Client, image: str) -> None:
    change = CapabilityChange(add=[CAPABILITY_SYS_ADMIN], drop=[CAPABILITY_CHOWN])
    resources = Resources(memory_bytes=64 << 20, pids=77)
    security = Security(capabilities=change, new_privileges=True)
    (container,) = client.up(spec(image, security=security, resources=resources))
    found, pid = of_kernel(client), container.status.pid
    assert (found.pid, list(found.command)) == (pid, ["sleep", "1000"])
    for one in found.namespaces:
        link = os.readlink(f"/proc/{pid}/ns/{one.kind}")
        assert link.endswith(f"[{one.inode}]")
        assert one.of_host == (link == os.readlink(f"/proc/self/ns/{one.kind}"))
    assert {"mnt", "pid", "net", "ipc", "uts", "cgroup"} <= {
        one.kind for one in found.namespaces if not one.of_host
    }
    assert "CAP_SYS_ADMIN" in found.capabilities.bounding and "CAP_CHOWN" not in found.capabilities.bounding
    assert len(found.capabilities.bounding) == 11
    assert found.capabilities.bounding == found.capabilities.permitted == found.capabilities.effective
    assert not found.capabilities.inheritable and not found.capabilities.ambient
    assert (found.seccomp, found.seccomp_filters) == (ins.SECCOMP_MODE_FILTER, 1)
    assert not found.no_new_privileges
    assert found.oom_score_adj == int(Path(f"/proc/{pid}/oom_score_adj").read_text())
    assert [(one.inside, one.outside) for one in found.identity.uid_map] == [(0, 0)]
    (files,) = (limit for limit in found.limits if limit.name == "Max open files")
    assert (files.soft, files.unit) == (1024, "files")
    limits = {name: value for one in found.cgroups for name, value in one.limits.items()}
    assert limits["pids.max"] == "77"
    assert str(64 << 20) in (limits.get("memory.max"), limits.get("memory.limit_in_bytes"))
    asked = client.run("web", "cat", "/proc/1/mountinfo")[1].decode().splitlines()
    assert [one.target for one in found.mounts] == [line.split()[4] for line in asked]
    (root,) = (one for one in found.mounts if one.target == "/")
    assert root.kind == "overlay" and any(one.startswith("lowerdir=") for one in root.options)
    (proc,) = (one for one in found.mounts if one.target == "/proc/sys")
    assert "ro" in proc.flags and found.further_mounts == 0


def test_ids_of_a_user_namespace(client: Client, image: str) -> None:
    (container,) = client.up(spec(image, userns=USER_NAMESPACE_ON, user="1000:1001"))
    found, first = of_kernel(client), container.status.userns.first_id
    assert (found.identity.uid, found.identity.gid) == (first + 1000, first + 1001)
    (range,) = found.identity.uid_map
    assert (range.inside, range.outside, range.count) == (0, first, 65536)
    assert not found.capabilities.effective and len(found.capabilities.bounding) == 11


def test_what_a_container_calls_its_mounts_is_shown_and_not_obeyed(
    instance: Instance, client: Client, image: str
) -> None:
    change = CapabilityChange(add=[CAPABILITY_SYS_ADMIN])
    client.up(spec(image, security=Security(capabilities=change)))
    script = 'mkdir "$1" && mount -t tmpfs "$1" "$1"'
    code, out, err = client.run("web", "sh", "-c", script, "sh", HOSTILE)
    assert code == 0, (out, err)
    (mount,) = (one for one in of_kernel(client).mounts if one.kind == "tmpfs" and one.source == HOSTILE)
    assert mount.target == HOSTILE
    shown = instance.cli("inspect", "web").stdout
    assert "\x1b" not in shown and "\x85" not in shown and "\u2028" not in shown
    assert r"/a b\c\x1b[2J\u2028\x85\n" in shown
    for form, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        text = instance.cli("inspect", "web", "-o", form).stdout
        assert text.isascii() and "\x1b" not in text
        (document,) = read(text)
        assert HOSTILE in [one["target"] for one in document["inspection"]["mounts"]]
        assert document["spec"]["name"] == "web" and document["status"]["phase"] == "PHASE_RUNNING"


def test_thousands_of_mounts_are_counted(client: Client, image: str) -> None:
    change = CapabilityChange(add=[CAPABILITY_SYS_ADMIN])
    client.up(spec(image, security=Security(capabilities=change)))
    before = len(of_kernel(client).mounts)
    script = "mkdir /m; i=0; while [ $i -lt 7 ]; do mount --rbind / /m; i=$((i+1)); done; cat /proc/1/mountinfo | wc -l"
    there = int(client.run("web", "sh", "-c", script)[1])
    found = of_kernel(client)
    assert there > 1000 > before
    assert (len(found.mounts), found.further_mounts) == (1000, there - 1000)


def test_who_does_not_run_is_told_so(instance: Instance, client: Client, image: str) -> None:
    (container,) = client.up(spec(image))
    newest = client.events()[-1].sequence
    os.kill(container.status.pid, signal.SIGKILL)
    client.until("web", EVENT_REASON_EXITED, newest)
    shown = instance.cli("inspect", "web").stdout
    assert "exited (137)" in shown and "It does not run" in shown
    (document,) = json.loads(instance.cli("inspect", "-o", "json", "web").stdout)
    assert document["inspection"] is None and document["status"]["exit"]["code"] == 137
    done = instance.cli("inspect", "web", "nobody", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr == "tinyo: there is no container 'nobody' in cluster 'default': `tinyo ls -a` shows all\n"
    )
    with pytest.raises(grpc.RpcError) as caught:
        client.node.Inspect(pb.InspectRequest(name="nobody"), timeout=20)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_runtime_that_was_restarted_knows_it_as_well(image: str) -> None:
    with Instance() as instance, Client(instance.socket("tinyo-node")) as client:
        client.up(spec(image))
        before = of_kernel(client)
        instance.kill("tinyo-runtime")
        instance.start("tinyo-runtime")
        assert of_kernel(client) == before
        client.down("web")
