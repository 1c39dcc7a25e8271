"""How containers are on the network, as their programs see it: names, hosts, and networks that are not their own."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tinyo.v1 import container_pb2 as v1
from tinyo.v1.network_pb2 import (
    NETWORK_KIND_CONTAINER,
    NETWORK_KIND_HOST,
    NETWORK_KIND_NONE,
    ExtraHost,
    Network,
)

from tests.support.client import Client
from tests.support.instance import Instance
from tests.support.registry import free_port


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as made:
        yield made


def said(client: Client, name: str, command: str) -> str:
    """What a shell in a container says, both streams."""
    _, out, _ = client.run(name, "sh", "-c", f"({command}) 2>&1")
    return out.decode()


def answered(port: int) -> bytes:
    """What somebody answers who connects, as soon as anybody does."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 10) as asking:
                return asking.recv(4096)
        except ConnectionError:  # nc answers once, and is started again
            assert time.monotonic() < deadline


def test_a_container_finds_another_by_name_and_says_its_own(
    client: Client, image: str, instance: Instance
) -> None:
    serve = "while :; do echo hello | nc -l -p 80; done"
    host = ExtraHost(name="gateway.test", address="host-gateway")
    web, asking = client.up(
        v1.ContainerSpec(name="web", image=image, command=["sh", "-c", serve]),
        v1.ContainerSpec(name="asking", image=image, extra_hosts=[host]),
    )
    for name in ("web", "web.default.internal"):
        assert said(client, "asking", f"until nc {name} 80; do :; done") == "hello\n"
    assert web.status.address in said(client, "asking", "nslookup -type=a web.default.internal")
    reverse = said(client, "web", f"nslookup {asking.status.address}")
    assert "name = asking.default.internal" in reverse, reverse
    assert "169.254.1.1\tgateway.test\n" in said(client, "asking", "cat /etc/hosts")
    client.down("web")
    assert "bad address" in said(client, "asking", "nc web 80")


def test_no_network_is_loopback_alone(client: Client, image: str) -> None:
    spec = v1.ContainerSpec(name="alone", image=image, network=Network(kind=NETWORK_KIND_NONE))
    (alone,) = client.up(spec)
    assert alone.status.address == ""
    assert said(client, "alone", "ls /sys/class/net") == "lo\n"
    assert (
        said(
            client,
            "alone",
            "nc -l -p 80 >/got & until echo x | nc 127.0.0.1 80; do :; done 2>/dev/null; wait; cat /got",
        )
        == "x\n"
    )
    assert "unreachable" in said(client, "alone", "nc 169.254.1.1 53")
    assert said(client, "alone", "cat /proc/net/route").count("\n") == 1


def test_the_network_of_the_host_is_the_hosts(client: Client, image: str) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        spec = v1.ContainerSpec(name="open", image=image, network=Network(kind=NETWORK_KIND_HOST))
        (there,) = client.up(spec)
        assert os.readlink(f"/proc/{there.status.pid}/ns/net") == os.readlink("/proc/self/ns/net")
        assert said(client, "open", f"grep -q ':{port:04X} ' /proc/net/tcp && echo yes") == "yes\n"
    assert said(client, "open", "hostname") == "open\n"
    assert sorted(said(client, "open", "ls /sys/class/net").split()) == sorted(
        name for _, name in socket.if_nameindex()
    )
    assert "Read-only" in said(client, "open", "echo 1 >/sys/class/net/lo/mtu")
    for command in ("ip link set lo down", "hostname x"):
        assert "not permitted" in said(client, "open", command)


def test_a_container_on_the_network_of_another(client: Client, image: str) -> None:
    port = free_port()
    ports = [v1.Port(host_port=port, container_port=80, protocol=v1.PROTOCOL_TCP)]
    (web,) = client.up(v1.ContainerSpec(name="web", image=image, ports=ports))
    serve = ["sh", "-c", "while :; do echo beside | nc -l -p 80; done"]
    joined = Network(kind=NETWORK_KIND_CONTAINER, container="web")
    client.up(
        v1.ContainerSpec(name="beside", image=image, command=serve, network=joined), origin="/beside.yml"
    )
    assert said(client, "web", "until nc 127.0.0.1 80; do :; done") == "beside\n"
    assert answered(port) == b"beside\n"
    for file in ("/etc/hosts", "/etc/resolv.conf"):
        assert said(client, "beside", f"cat {file}") == said(client, "web", f"cat {file}")
    assert said(client, "beside", "hostname") == "beside\n"
    client.down("web")
    assert web.status.address in said(client, "beside", "ip addr"), "it stays while anybody is on it"
    assert client.get("beside").status.phase == v1.PHASE_RUNNING


def test_the_network_of_a_container_that_does_not_run_is_an_error_with_its_place(
    client: Client, image: str, instance: Instance, tmp_path: Path
) -> None:
    file = tmp_path / "beside.yml"
    file.write_text(f'container: "{image}"\nnetwork: container:web\n')
    done = instance.cli("+", str(file), check=False)
    assert done.returncode == 1
    assert f"{file}:2:10: container 'web' is not running: start it first" in done.stdout + done.stderr


def test_a_restart_of_the_runtime_changes_nothing(image: str) -> None:
    with Instance() as own, Client(own.socket("tinyo-node")) as client:
        client.up(
            v1.ContainerSpec(name="web", image=image),
            v1.ContainerSpec(name="open", image=image, network=Network(kind=NETWORK_KIND_HOST)),
        )
        client.up(
            v1.ContainerSpec(
                name="beside", image=image, network=Network(kind=NETWORK_KIND_CONTAINER, container="web")
            ),
            origin="/beside.yml",
        )
        own.kill("tinyo-runtime")
        own.start("tinyo-runtime")
        client.up(v1.ContainerSpec(name="asking", image=image), origin="/asking.yml")
        address = client.get("web").status.address
        for name in ("asking", "beside"):
            assert address in said(client, name, "nslookup -type=a web.default.internal")
        assert {one.spec.name for one in client.ls() if one.status.phase == v1.PHASE_RUNNING} == {
            "web",
            "open",
            "beside",
            "asking",
        }


def test_names_are_as_safe_as_addresses(client: Client, image: str) -> None:
    """A name that is no name cannot come into /etc/hosts by another client."""
    spec = v1.ContainerSpec(
        name="web", image=image, extra_hosts=[ExtraHost(name="a\n1.2.3.4 b", address="1.1.1.1")]
    )
    with pytest.raises(Exception, match="is no name of a host"):
        client.apply(spec)
    assert not client.ls()
