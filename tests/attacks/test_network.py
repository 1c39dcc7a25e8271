"""Attacks by way of the network, by somebody who is root in the network namespace of a container and may send frames.

Each is seen to succeed as soon as the one defence that is against it is taken away.
"""

import contextlib
import socket
import subprocess

import pytest

from tests.support.lan import HOST, NEIGHBOUR, TCP, UDP, InLan, Lan, inside, ip, send, tcp, udp
from tests.support.registry import free_port


def test_nobody_sends_from_an_address_that_is_not_theirs(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        port = free_port()
        web, other = await lan.container("web"), await lan.container("other")
        outside = await lan.answer("neighbour", lan.neighbour, NEIGHBOUR, port)
        host = await lan.answer("host", None, "0.0.0.0", port)

        def attack() -> None:
            for source in (other.address, NEIGHBOUR, "169.254.1.1", "127.0.0.1", "10.77.200.200", "8.8.8.8"):
                for to in (NEIGHBOUR, HOST, "169.254.1.1"):
                    send(web.netns, source, to, port)

        attack()
        assert (await lan.heard(outside), host) == ([], [])
        send(web.netns, web.address, NEIGHBOUR, port)
        send(web.netns, web.address, HOST, port)
        assert (await lan.heard(outside), host) == ([HOST], [web.address]), "its own address is none of these"
        lan.without("fib saddr")
        attack()
        assert {other.address, "8.8.8.8"} & {*await lan.heard(host)}

    lan(check)


def test_nobody_reaches_the_loopback_of_the_host(lan: InLan) -> None:
    """CVE-2020-8558: the veth routes 127/8, and still nobody gets there."""

    async def check(lan: Lan) -> None:
        port = free_port()
        web = await lan.container("web")
        host = await lan.answer("host", None, "127.0.0.1", port)

        def attack() -> None:
            send(web.netns, web.address, "127.0.0.1", port)
            send(lan.neighbour, NEIGHBOUR, "127.0.0.1", port)

        attack()
        assert await lan.heard(host) == []
        assert await lan.ask("127.0.0.1", port) == "host to 127.0.0.1"
        host.clear()
        lan.without("127.0.0.0/8 drop")
        attack()
        assert await lan.heard(host) == [web.address]

    lan(check)


def test_metadata_of_the_machine_are_closed(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        port = free_port()
        web = await lan.container("web")
        ip(f"addr add 169.254.169.254/32 dev {lan.wire}")
        await lan.answer("cloud", None, "169.254.169.254", port)
        for kind in (TCP, UDP):
            await lan.silent("169.254.169.254", port, kind, of=web.netns)
        lan.without("169.254.169.254")
        for kind in (TCP, UDP):
            assert await lan.ask("169.254.169.254", port, kind, of=web.netns) == f"cloud to {web.address}"
        await lan.network.close(remove=False)
        with pytest.raises(SystemExit, match="metadata 'yes'"):
            lan.make(metadata="yes")
        for allowed in ("open", "closed"):
            lan.network = lan.make(metadata=allowed)
            await lan.network.open([])
            if allowed == "open":
                assert await lan.ask("169.254.169.254", port, of=web.netns) == f"cloud to {web.address}"
                await lan.network.close(remove=False)
            else:
                await lan.silent("169.254.169.254", port, of=web.netns)

    lan(check)


def test_from_outside_only_what_is_published_is_reached(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        web = await lan.container("web")
        for kind in (TCP, UDP):
            await lan.silent(web.address, 80, kind, of=lan.neighbour)
        lan.without(f'iifname != "{lan.network.prefix}*"')
        for kind in (TCP, UDP):
            assert await lan.ask(web.address, 80, kind, of=lan.neighbour) == f"web to {NEIGHBOUR}"

    lan(check)


def test_another_cluster_is_out_of_reach_but_for_what_it_publishes(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        port = free_port()
        web = await lan.container("web", cluster="shop")
        friend = await lan.container("friend", cluster="shop")
        other = await lan.container("other", tcp(port), udp(port), cluster="bank")
        for kind in (TCP, UDP):
            assert await lan.ask(friend.address, 80, kind, of=web.netns) == f"friend to {web.address}"
            await lan.silent(other.address, 80, kind, of=web.netns)
            await lan.silent(web.address, 80, kind, of=other.netns)
            for address in (HOST, "169.254.1.1"):
                assert (await lan.ask(address, port, kind, of=web.netns)).startswith("other to ")
        spare = await lan.network.make()
        for address in (web.address, other.address):
            await lan.silent(address, 80, of=spare.netns)
        await lan.network.release("", spare)
        lan.without("@joined")
        for kind in (TCP, UDP):
            assert await lan.ask(other.address, 80, kind, of=web.netns) == f"other to {web.address}"

    lan(check)


def test_clusters_stay_apart_across_a_restart(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        await lan.container("first", cluster="first")
        web, other = await lan.container("web", cluster="shop"), await lan.container("other", cluster="bank")
        await lan.network.release("first", lan.endpoints.pop("first"))
        await lan.network.close(remove=False)
        lan.network = lan.make()
        await lan.network.open([lan.adopted("other", other, "bank"), lan.adopted("web", web, "shop")])
        friend = await lan.container("friend", cluster="bank")
        assert await lan.ask(other.address, 80, of=friend.netns) == f"other to {friend.address}"
        await lan.silent(web.address, 80, of=friend.netns)
        await lan.silent(web.address, 80, of=other.netns)
        third = await lan.container("third", cluster="third")
        for endpoint in (web, other):
            await lan.silent(endpoint.address, 80, of=third.netns)

    lan(check)


def neighbours(interface: str) -> str:
    """What the host believes of who is where."""
    return subprocess.run(
        ["ip", "neigh", "show", "dev", interface], check=True, capture_output=True, text=True
    ).stdout


def test_nobody_plays_the_gateway(lan: InLan) -> None:
    """A container says by ARP that it is the gateway, another container and many more: nobody believes it."""

    async def check(lan: Lan) -> None:
        web, other = await lan.container("web"), await lan.container("other")

        def attack() -> None:
            with inside(web.netns):
                raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            evil = b"\x02\xee\xee\xee\xee\xee"
            with raw:
                raw.bind(("eth0", 0x0806))
                for address in ("169.254.1.1", other.address, web.address, NEIGHBOUR):
                    told = socket.inet_aton(address)
                    for operation in (b"\0\1", b"\0\2"):  # asks in the other's name, and answers unasked
                        frame = b"\x08\x06\0\1\x08\0\6\4" + operation + evil + told
                        raw.send(b"\xff" * 6 + evil + frame + b"\0" * 6 + socket.inet_aton("169.254.1.1"))

        attack()
        assert neighbours(web.interface).count("02:ee") == neighbours(other.interface).count("02:ee") == 0
        assert await lan.ask(other.address, 80, of=web.netns) == f"other to {web.address}"
        ip(f"link set {web.interface} arp on")
        attack()
        assert "02:ee" in neighbours(web.interface)

    lan(check)


def test_nobody_reads_what_others_send(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        web, other = await lan.container("web"), await lan.container("other")
        seen: dict[str, bytes] = {}
        with contextlib.ExitStack() as open:
            ears = {}
            for endpoint in (web, other):
                with inside(endpoint.netns):
                    ear = open.enter_context(
                        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
                    )
                    ip("link set eth0 promisc on", endpoint.netns)
                ear.setblocking(False)
                ears[endpoint.address] = ear
            secret = await lan.ask(other.address, 80)
            for address, ear in ears.items():
                with contextlib.suppress(BlockingIOError):
                    while True:
                        seen[address] = seen.get(address, b"") + ear.recv(1 << 16)
        assert secret.encode() in seen[other.address], "whose it is hears it"
        assert web.address not in seen

    lan(check)
