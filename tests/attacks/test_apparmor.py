"""AppArmor, where the kernel has it (`make test-v2`): what a profile refuses fails, for a container and for what is run in
it, whatever the container makes of its /proc; and is seen to succeed without the profile."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1.inspect_pb2 import Inspection
from tinyo.v1.security_pb2 import CAPABILITY_SYS_ADMIN, CapabilityChange, Security
from tinyo_runtime.options import apparmor

from tests.support import images
from tests.support.box import Box, InBox, line
from tests.support.bundles import Bundle
from tests.support.client import Client
from tests.support.instance import Instance

pytestmark = pytest.mark.skipif(
    not (apparmor.there() and shutil.which(apparmor.PARSER)), reason="no AppArmor, or no apparmor_parser(8)"
)

#: Nobody under it writes into /etc.
OWN = "tinyo-test-own"
TEXT = f"""
profile {OWN} flags=(attach_disconnected, mediate_deleted) {{
  file,
  network,
  capability,
  mount,
  umount,
  signal,
  ptrace,
  deny /etc/** w,
}}
"""
ATTEMPT = "echo x 2>/dev/null >/etc/new && echo done || echo kept"


@pytest.fixture(scope="module")
def own() -> Iterator[str]:
    """A profile that an administrator has loaded."""
    subprocess.run([apparmor.PARSER, "--replace", "--skip-cache"], input=TEXT, text=True, check=True)
    yield OWN
    subprocess.run([apparmor.PARSER, "--remove"], input=TEXT, text=True, check=True)


def test_what_a_profile_refuses(box: InBox, own: str) -> None:
    async def check(box: Box) -> None:
        for plan, result in (({}, "done"), ({"apparmor": own}, "kept")):
            assert (await box.run(ATTEMPT, **plan))[1] == f"{result}\n"

    box(check)


@pytest.mark.parametrize("labelled", [False, True])
def test_a_proc_of_the_containers_own_hides_no_label(box: InBox, own: str, labelled: bool) -> None:
    """Who may mount puts a folder in the place of /proc: what is written there would go nowhere (CVE-2019-19921)."""
    hide = "mount -t tmpfs tmpfs /proc; busybox mkdir -p /proc/self/attr/apparmor; >/proc/self/attr/apparmor/exec; "
    admin = {"capabilities": 0x800405FB | 1 << 21}

    async def check(box: Box) -> None:
        plan = admin | ({"apparmor": own} if labelled else {})
        container = await box.start(
            "c", "sh", "-c", f"{hide} >/proc/self/attr/exec; echo; exec sleep 1000", **plan
        )
        await line(container.stdout)
        process = await box.join(container, "e", "sh", "-c", ATTEMPT, **plan)
        assert await line(process.stdout) == ("kept" if labelled else "done")
        await asyncio.wait_for(process.exited, 60)
        await box.end(container)

    box(check)


def test_what_a_bundle_says(own: str, tmp_path: Path) -> None:
    """For its own program and for what is run in it: podman asks for a profile wherever the kernel has AppArmor."""
    bundle = Bundle(tmp_path)
    bundle.change(root={"readonly": False})
    for label, result in (("", "done"), (own, "kept")):
        bundle.change(process={"apparmorProfile": label})
        assert bundle.run(ATTEMPT) == f"{result}\n"
        bundle.shell("sleep 1000")
        pid = bundle.create("a")
        assert bundle.oci("start", "a").returncode == 0
        assert bundle.oci("exec", "a", "sh", "-c", ATTEMPT).stdout == f"{result}\n"
        bundle.oci("delete", "--force", "a")
        assert os.waitpid(pid, 0)[0] == pid
    bundle.change(process={"apparmorProfile": "nobody-loaded-it"})
    assert "the AppArmor profile cannot be used" in bundle.oci("run", "a").stderr


def test_what_a_statefile_says(own: str, host: str, tmp_path: Path) -> None:
    def inspected(client: Client) -> Inspection:
        return client.node.Inspect(pb.InspectRequest(name="web"), timeout=60).inspection

    image = images.busybox_image(host, "alpine")
    with Instance() as instance, Client(instance.socket("tinyo-node")) as client:
        change = CapabilityChange(add=[CAPABILITY_SYS_ADMIN])
        for name, label in (
            ("", f"{apparmor.DEFAULT} (enforce)"),
            ("unconfined", "unconfined"),
            (own, f"{own} (enforce)"),
        ):
            spec = v1.ContainerSpec(name="web", image=image, command=["sleep", "1000"])
            spec.security.CopyFrom(Security(apparmor=name, capabilities=change))
            client.up(spec)
            assert client.run("web", "cat", "/proc/self/attr/current")[1].decode().strip() == label
            assert inspected(client).apparmor == label
            mounts = client.run("web", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm")[0]
            assert (mounts != 0) == (name == "")
        spec.security.apparmor = "nobody-loaded-it"
        (container,) = client.apply(spec)[-1].settled.containers
        assert container.status.error.reason == "APPARMOR_UNUSABLE"
        assert "it is not loaded" in container.status.error.message
        client.down("web")
