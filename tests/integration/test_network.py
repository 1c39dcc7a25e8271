"""The network by itself on the real kernel: addresses, published ports, restarts, and firewalls of others."""

import asyncio
import contextlib
import fcntl
import gc
import os
import secrets
import socket
import struct
import subprocess
from pathlib import Path

import pytest
from tinyo.runtime.v1.runtime_pb2 import ContainerConfig
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.network import Endpoint, uplink

from tests.support.clean import assert_clean, snapshot
from tests.support.lan import HOST, NEIGHBOUR, TCP, UDP, InLan, Lan, inside, ip, nft, tcp, udp
from tests.support.registry import free_port

#: ip(7); not in Python's socket.
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2


def test_a_published_port_answers_wherever_the_host_is_addressed(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        a, b, port = free_port(), free_port(), free_port()
        await lan.container("web", tcp(a), udp(a), tcp(port))
        await lan.container("other", tcp(b, "0.0.0.0"), udp(port))
        for kind in (TCP, UDP):
            assert await lan.ask("127.0.0.1", a, kind) == "web to 169.254.1.1"
            assert (await lan.ask(HOST, a, kind)).startswith("web to ")
            assert await lan.ask(HOST, a, kind, of=lan.neighbour) == f"web to {NEIGHBOUR}"
        assert (await lan.ask("::1", a)).startswith("web to ")
        assert (await lan.ask("::1", b)).startswith("other to ")
        assert await lan.ask(HOST, b, of=lan.neighbour) == f"other to {NEIGHBOUR}"
        assert (await lan.ask(HOST, port, TCP)).startswith("web "), "TCP and UDP of one number are two ports"
        assert (await lan.ask(HOST, port, UDP)).startswith("other ")

    lan(check)


def test_a_port_of_one_address_answers_there_only(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        port = free_port()
        await lan.container("here", tcp(port, "127.0.0.1"), udp(port, "127.0.0.1"))
        await lan.container("there", tcp(port, HOST), udp(port, HOST))
        for kind in (TCP, UDP):
            assert (await lan.ask("127.0.0.1", port, kind)).startswith("here ")
            assert (await lan.ask(HOST, port, kind)).startswith("there ")
            assert (await lan.ask(HOST, port, kind, of=lan.neighbour)).startswith("there ")
            await lan.silent("127.0.0.2", port, kind)
            await lan.silent("169.254.1.1", port, kind, of=lan.endpoints["here"].netns)
        await lan.silent("::1", port)

    lan(check)


def test_a_range_of_udp_answers_from_where_it_was_asked(lan: InLan) -> None:
    """Who asks one address hears nobody else, whichever of the host's addresses it is: the sockets are connected."""

    async def check(lan: Lan) -> None:
        ip(f"addr add 198.51.100.9/24 dev {lan.wire}")
        first = min(free_port() for _ in range(3))
        await lan.container("web", *(udp(first + step, "198.51.100.9") for step in range(2)), udp(first + 2))
        for address, wanted in (("198.51.100.9", (0, 1, 2)), (HOST, (2,)), ("127.0.0.1", (2,))):
            for step in range(3):
                for of in (None, lan.neighbour) if address != "127.0.0.1" else (None,):
                    if step in wanted:
                        assert (await lan.ask(address, first + step, UDP, of=of)).startswith("web to ")
                    else:
                        await lan.silent(address, first + step, UDP, of=of)

    lan(check)


def test_a_container_reaches_the_world_others_and_its_own_ports(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        a, b = free_port(), free_port()
        first = await lan.container("first", tcp(a), udp(a))
        second = await lan.container("second", tcp(b), udp(b))
        await lan.answer("neighbour", lan.neighbour, NEIGHBOUR, 80)
        for kind in (TCP, UDP):
            assert await lan.ask(second.address, 80, kind, of=first.netns) == f"second to {first.address}"
            for address in (HOST, "169.254.1.1"):
                assert (await lan.ask(address, a, kind, of=first.netns)).startswith("first to ")
                assert (await lan.ask(address, b, kind, of=first.netns)).startswith("second to ")
            assert await lan.ask(NEIGHBOUR, 80, kind, of=first.netns) == f"neighbour to {HOST}"
            assert await lan.ask(first.address, 80, kind) == "first to 169.254.1.1"
            assert (await lan.ask("127.0.0.1", 80, kind, of=first.netns)) == "first to 127.0.0.1"

    lan(check)


def test_who_holds_a_port_is_named(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        free, port = free_port(), free_port()
        web = await lan.container("web", tcp(port))
        other = await lan.container("other")
        for wanted in (tcp(port), tcp(port, "127.0.0.1")):
            with pytest.raises(
                TinyoError, match=f"port {port} of the host is used by container web"
            ) as caught:
                await lan.network.publish("other", other.address, [tcp(free), wanted])
            assert (caught.value.reason, caught.value.field) == ("PORT_IN_USE", "ports[1].host_port")
        for kind, publish in ((TCP, tcp), (UDP, udp)):
            with socket.socket(type=kind) as held:
                held.bind(("127.0.0.1", 0))
                if kind == TCP:
                    held.listen()
                taken = held.getsockname()[1]
                with pytest.raises(TinyoError, match=rf"used by \S+ \(pid {os.getpid()}\)") as caught:
                    await lan.network.publish("other", other.address, [tcp(free), publish(taken)])
                assert caught.value.metadata["port"] == str(taken)
        with pytest.raises(TinyoError, match=r"203\.0\.113\.1 cannot be used"):
            await lan.network.publish("other", other.address, [tcp(free, "203.0.113.1")])
        await lan.silent("127.0.0.1", free)
        with socket.socket() as another, pytest.raises(OSError, match="in use"):
            another.bind(("0.0.0.0", port))
        await lan.network.publish("other", other.address, [tcp(free)])
        await lan.network.release("web", web)
        await lan.network.publish("other", other.address, [tcp(port)])
        assert (await lan.ask("127.0.0.1", port)).startswith("other "), "it can be had again"

    lan(check)


def test_what_a_firewall_flushes_comes_back(lan: InLan) -> None:
    """RELIABILITY F8. What is given back afterwards is not there a second time, and new containers get theirs."""

    async def check(lan: Lan) -> None:
        a, b = free_port(), free_port()
        web = await lan.container("web", tcp(a), udp(a), tcp(b, HOST))
        whole = nft(f"list table ip {lan.name}")
        for flush in ("flush ruleset", f"delete table ip {lan.name}", f"flush chain ip {lan.name} before"):
            nft(flush)
            assert table(lan.name) != whole, "nobody else had a turn yet"
            async with asyncio.timeout(10):
                while await asyncio.to_thread(table, lan.name) != whole:
                    await asyncio.sleep(0.01)
            assert (await lan.ask(HOST, a, of=lan.neighbour)).startswith("web to ")
            assert (await lan.ask(HOST, b)).startswith("web to ")
        await lan.container("other", tcp(free_port()))
        await lan.network.release("web", web)
        assert f" {a} : " not in table(lan.name)

    lan(check)


def table(name: str) -> str:
    try:
        return nft(f"list table ip {name}")
    except subprocess.CalledProcessError:
        return ""


def test_ports_answer_across_a_restart(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        a, b = free_port(), free_port()
        ports = [tcp(a), udp(a), tcp(b, HOST)]
        web = await lan.container("web", *ports)
        await lan.network.close(remove=False)
        assert (await lan.ask("127.0.0.1", a)).startswith("web "), "while there is no runtime"
        for held in (False, True):  # by somebody else when the runtime comes back
            lan.network = lan.make()
            with socket.socket() if held else contextlib.nullcontext() as somebody:
                if somebody:
                    somebody.bind(("127.0.0.1", a))
                adopted = lan.adopted("web", web, ports=ports)
                await lan.network.open([adopted])
            for kind in (TCP, UDP):
                assert (await lan.ask("127.0.0.1", a, kind)).startswith("web ")
            assert (await lan.ask(HOST, b)).startswith("web ")
            if not held:
                assert (await lan.ask("::1", a)).startswith("web ")
                await lan.network.close(remove=False)
        another = await lan.container("another")
        assert another.address != web.address
        endpoint = lan.network.endpoint(adopted)
        assert endpoint[1:] == web[1:]
        del lan.endpoints["web"], web
        gc.collect()  # as if the process had ended that made it
        await lan.network.release("web", endpoint)
        for address, port, kind in (
            ("127.0.0.1", a, TCP),
            ("127.0.0.1", a, UDP),
            (HOST, b, TCP),
            ("::1", a, TCP),
        ):
            await lan.silent(address, port, kind)

    lan(check)


def mtus(endpoint: Endpoint) -> tuple[int, int]:
    """MTU of the host's end and of the container's."""
    found = []
    for interface, netns in ((endpoint.interface, None), ("eth0", endpoint.netns)):
        with inside(netns), socket.socket() as asking:
            request = struct.pack("16si12x", interface.encode(), 0)
            found.append(struct.unpack_from("16xi", fcntl.ioctl(asking, uplink.SIOCGIFMTU, request))[0])
    return found[0], found[1]


def test_packets_are_as_large_as_the_uplink_takes(lan: InLan) -> None:
    """Jumbo frames, tunnels, less than IPv6 allows, and no way out at all."""

    async def check(lan: Lan) -> None:
        for size, meant in ((1450, 1450), (9000, 9000), (576, 1280)):
            ip(f"link set {lan.wire} mtu {size}")
            assert mtus(await lan.container(f"of{size}")) == (meant, meant)
        ip(f"link set {lan.wire} mtu 9000")
        ip("link set eth0 mtu 9000", lan.neighbour)
        big = b"x" * 8900
        with inside(lan.endpoints["of9000"].netns):
            sending = socket.socket(type=UDP)
        with inside(lan.neighbour):
            hearing = socket.socket(type=UDP)
        with sending, hearing:
            hearing.bind((NEIGHBOUR, 80))
            hearing.settimeout(10)
            sending.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
            sending.sendto(big, (NEIGHBOUR, 80))
            assert await asyncio.to_thread(hearing.recv, 10_000) == big, "in one piece"
        ip("route del default")
        assert mtus(await lan.container("alone")) == (1500, 1500)
        ip(f"route add default via {NEIGHBOUR}")

    lan(check)


def test_everything_goes(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        forwarding = Path(f"/proc/sys/net/ipv4/conf/{lan.wire}/forwarding")
        assert forwarding.read_text() == "1\n"
        await lan.network.close(remove=True)
        await lan.open.aclose()
        assert forwarding.read_text() == "0\n"
        before = snapshot()
        lan.network = lan.make(ready="3")
        await lan.network.open([])
        ports = [tcp(free_port()), udp(free_port()), tcp(free_port(), "127.0.0.1")]
        endpoints = [await lan.network.acquire(ContainerConfig()) for _ in range(5)]
        await lan.network.publish("web", endpoints[0].address, ports)
        assert (
            len({endpoint.address for endpoint in endpoints})
            == len({endpoint.interface for endpoint in endpoints})
            == 5
        )
        await asyncio.sleep(0.1)  # others are being made
        for endpoint in endpoints:
            await lan.network.release("web", endpoint)
            await lan.network.release("web", endpoint)
        await lan.network.close(remove=True)
        await asyncio.to_thread(assert_clean, before)
        assert not list(lan.run.iterdir())
        lan.network = lan.make()
        await lan.network.open([])

    lan(check)


def test_who_gives_up_while_a_namespace_is_made_loses_nothing(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        before = snapshot()
        for patience in (0.0, 0.0003, 0.001):
            with contextlib.suppress(TimeoutError):
                endpoint = await asyncio.wait_for(lan.network.acquire(ContainerConfig()), patience)
                await lan.network.release("", endpoint)
        await asyncio.to_thread(assert_clean, before)

    lan(check)


DROPPING = """
table ip filter {
  chain DOCKER-USER { return; }
  chain FORWARD { type filter hook forward priority filter; policy drop; jump DOCKER-USER; }
}
"""


@pytest.mark.parametrize("chain", ["DOCKER-USER", "FORWARD"])
def test_a_firewall_that_drops_what_is_forwarded_lets_containers_through(lan: InLan, chain: str) -> None:
    if subprocess.run(["nft", "list", "table", "ip", "filter"], capture_output=True).returncode == 0:
        pytest.skip("this machine has such a table itself")

    async def check(lan: Lan) -> None:
        await lan.network.close(remove=True)
        rules = (
            DROPPING
            if chain == "DOCKER-USER"
            else "\n".join(
                line
                for line in DROPPING.replace("jump DOCKER-USER;", "").splitlines()
                if "DOCKER" not in line
            )
        )
        nft(rules)
        before = nft("list table ip filter")
        try:
            for _ in range(2):  # also after a restart
                lan.network = lan.make()
                await lan.network.open([])
                ours = nft(f"list chain ip filter {chain}").count(f'"{lan.network.prefix}*"')
                assert ours == 2
                if not _:
                    await lan.network.close(remove=False)
            port = free_port()
            web = await lan.container("web", tcp(port))
            other = await lan.container("other")
            await lan.answer("neighbour", lan.neighbour, NEIGHBOUR, 80)
            assert await lan.ask(HOST, port, of=lan.neighbour) == f"web to {NEIGHBOUR}"
            assert await lan.ask(NEIGHBOUR, 80, of=web.netns) == f"neighbour to {HOST}"
            assert await lan.ask(other.address, 80, of=web.netns) == f"other to {web.address}"
            await lan.silent(web.address, 80, of=lan.neighbour)
            await lan.release()
            await lan.network.close(remove=True)
            assert nft("list table ip filter") == before
            lan.network = lan.make()
            await lan.network.open([])
        finally:
            nft("delete table ip filter")

    lan(check)


def test_the_pool_is_checked_claimed_and_remembered(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        second = Lan.__new__(Lan)
        second.run, second.name = lan.run / "second", f"t{secrets.token_hex(4)}"
        second.run.mkdir()
        for wanted, reason in ((f"{lan.network.pool}", "POOL_TAKEN"), ("198.51.100.128/25", "POOL_TAKEN")):
            with pytest.raises(TinyoError) as caught:
                await second.make(pool=wanted).open([])
            assert caught.value.reason == reason
        with pytest.raises(SystemExit, match="pool 'nonsense'"):
            await second.make(pool="nonsense").open([])
        network = second.make()
        await network.open([])
        chosen = network.pool
        assert not chosen.overlaps(lan.network.pool)
        await network.close(remove=False)
        network = second.make(pool="10.99.99.0/24")
        await network.open([])
        assert network.pool == chosen, "containers are in it"
        await network.close(remove=True)

        network = second.make(pool="10.99.99.0/29")
        await network.open([])
        endpoints = [await network.acquire(ContainerConfig()) for _ in range(6)]
        assert sorted(endpoint.address for endpoint in endpoints) == [f"10.99.99.{n}" for n in range(1, 7)]
        with pytest.raises(TinyoError) as caught:
            await network.acquire(ContainerConfig())
        assert caught.value.reason == "POOL_EMPTY"
        await network.release("", endpoints.pop())
        endpoints.append(await network.acquire(ContainerConfig()))
        for endpoint in endpoints:
            await network.release("", endpoint)
        await network.close(remove=True)

    lan(check)
