"""The services hand the filter of system calls to the spawner: for a container's first process and further ones."""

from pathlib import Path

import pytest
from tinyo.v1 import container_pb2 as v1
from tinyo.v1.userns_pb2 import USER_NAMESPACE_OFF, USER_NAMESPACE_ON, UserNamespace

from tests.support import images
from tests.support.client import Client
from tests.support.instance import Instance

#: Without the filter anybody may make a user namespace (user_namespaces(7)), and is root of what the kernel has there.
ATTEMPT = "busybox unshare -U echo made a user namespace 2>&1 || echo refused"


@pytest.mark.parametrize("userns", [USER_NAMESPACE_OFF, USER_NAMESPACE_ON])
def test_no_container_makes_a_user_namespace(
    instance: Instance, host: str, userns: UserNamespace.ValueType
) -> None:
    assert int(Path("/proc/sys/user/max_user_namespaces").read_text()), "otherwise this test cannot fail"
    spec = v1.ContainerSpec(name="confined", image=images.busybox_image(host, "alpine"), userns=userns)
    spec.command[:] = ["sh", "-c", f"{ATTEMPT}; exec sleep 1000"]
    with Client(instance.socket("tinyo-node")) as client:
        client.up(spec)
        code, out, err = client.run("confined", "sh", "-c", ATTEMPT)
        assert (code, err) == (0, b"")
        assert out == b"unshare: unshare(0x10000000): Operation not permitted\nrefused\n"
        assert client.logs("confined", tail=2) == out
        client.down("confined")
