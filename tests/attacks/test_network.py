"""Attacks by way of the network, by somebody who is root in the network namespace of a container and may send frames.

Each is seen to succeed as soon as the one defence that is against it is taken away.
"""

import contextlib
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from tests.support.lan import (
    HOST,
    HOST6,
    NEIGHBOUR,
    NEIGHBOUR6,
    TCP,
    UDP,
    InLan,
    Lan,
    datagram,
    inside,
    ip,
    nft,
    send,
    send6,
    tcp,
    udp,
)
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
        await (first := lan.network).close(remove=False)
        assert first.taken, "it holds the namespace of the container until the end"
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
        spare = await lan.network.make()  # for whoever joins the cluster that was joined last
        await lan.silent(web.address, 80, of=spare.netns)
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
        assert secret.encode() not in seen.get(web.address, b""), "of others, that is"

    lan(check)


def test_nobody_sends_from_an_ipv6_address_that_is_not_theirs(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        port = free_port()
        web, other = await lan.container("web"), await lan.container("other")
        outside = await lan.answer("neighbour", lan.neighbour, NEIGHBOUR6, port)
        host = await lan.answer("host", None, "::", port)
        victim = await lan.answer("victim", other.netns, other.address6, port)

        def attack() -> None:
            for source in (
                other.address6,
                NEIGHBOUR6,
                HOST6,
                "fe80::1",
                "fe80::2",
                "::1",
                "::",
                "fd00::1",
                "2001:4860::8",
            ):
                for to in (NEIGHBOUR6, HOST6, other.address6):
                    send6(web.netns, source, to, datagram(port), socket.IPPROTO_UDP)

        attack()
        assert (await lan.heard(outside), host, victim) == ([], [], [])
        for to in (NEIGHBOUR6, HOST6, other.address6):
            send6(web.netns, web.address6, to, datagram(port), socket.IPPROTO_UDP)
        heard = await lan.heard(outside), host, victim
        assert heard == ([HOST6], [web.address6], [web.address6]), "its own address is none of these"
        host.clear()
        lan.without("fib saddr", "ip6")
        attack()
        assert {other.address6, "2001:4860::8"} <= {*await lan.heard(host)}

    lan(check)


def advertisement(router: bytes) -> bytes:
    """A router says that it leads everywhere, for half an hour (RFC 4861), and that its link has a network."""
    prefix = (
        b"\x03\x04\x40\xc0" + struct.pack("!III", 1800, 1800, 0) + bytes.fromhex("20010db8dead") + bytes(10)
    )
    return struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + b"\1\1" + router + prefix


def test_nobody_plays_a_router(lan: InLan) -> None:
    """A container advertises itself to the host and to others as the way to everywhere."""

    async def check(lan: Lan) -> None:
        web, other = await lan.container("web"), await lan.container("other")

        def attack() -> str:
            for to in ("ff02::1", "fe80::1"):
                send6(web.netns, "fe80::66", to, advertisement(b"\2\x66" * 3), socket.IPPROTO_ICMPV6, 255)
            return ip6("route show") + ip6("addr show")

        accept_ra = Path(f"/proc/sys/net/ipv6/conf/{web.interface}/accept_ra")
        before = attack()
        accept_ra.write_text("2")  # also of an interface that forwards, as all do before Linux 6.17
        assert attack() == before
        accept_ra.write_text("0")
        assert "fe80::66" not in before and "dead" not in before
        for netns in (other.netns, web.netns):
            with inside(netns):
                assert ip6("route show").count("default") == 1 and "dead" not in ip6("addr show")
        lan.network._repair.close()
        nft(f"flush chain ip6 {lan.name} before")
        assert attack() == before, "nor does the host's end listen"
        accept_ra.write_text("2")
        assert "via fe80::66" in (after := attack()) and "2001:db8:dead::/64" in after
        with inside(other.netns):
            assert "fe80::66" not in ip6("route show"), "what is of one link is not passed on to another"

    lan(check)


def ip6(command: str) -> str:
    return subprocess.run(["ip", "-6", *command.split()], check=True, capture_output=True, text=True).stdout


def test_nobody_plays_an_ipv6_neighbour(lan: InLan) -> None:
    """A container says that it is the gateway and another container; and asks in the names of many, so that the host's
    table of neighbours, which is one for all of its networks, has no place for others."""

    async def check(lan: Lan) -> None:
        web, other = await lan.container("web"), await lan.container("other")
        evil = b"\2\1\x02\xee\xee\xee\xee\xee"

        def attack() -> str:
            for told in ("fe80::1", other.address6, web.address6, NEIGHBOUR6):
                packed = socket.inet_pton(socket.AF_INET6, told)
                said = struct.pack("!BBHI", 136, 0, 0, 0x60000000) + packed + evil  # solicited, override
                asked = (
                    struct.pack("!BBHI", 135, 0, 0, 0)
                    + socket.inet_pton(socket.AF_INET6, "fe80::1")
                    + b"\1"
                    + evil[1:]
                )
                for source in (told, web.address6):
                    for message in (said, asked):
                        send6(web.netns, source, "fe80::1", message, socket.IPPROTO_ICMPV6, 255)
            return ip6(f"neigh show nud all dev {web.interface}")

        assert NEIGHBOUR6 not in attack() and "02:ee" not in attack()
        assert await lan.ask(other.address6, 80, of=web.netns) == f"other to {web.address6}"
        lan.network._repair.close()
        nft(f"flush chain ip6 {lan.name} before")
        after = attack()
        assert NEIGHBOUR6 in after, "the host remembers whom it was told of"
        assert "02:ee" not in after, "but not where that is: nobody is asked here"
        ip(f"link set {web.interface} arp on")
        ip(f"neigh flush dev {web.interface}")
        assert "02:ee" in attack()

    lan(check)


def test_nobody_reaches_the_ipv6_loopback_of_the_host(lan: InLan) -> None:
    """That is the kernel's own doing: no interface but loopback takes ::1 (ip6_rcv_core), so there is no rule."""

    async def check(lan: Lan) -> None:
        port = free_port()
        web = await lan.container("web")
        host = await lan.answer("host", None, "::1", port)
        send6(web.netns, web.address6, "::1", datagram(port), socket.IPPROTO_UDP)
        send6(lan.neighbour, NEIGHBOUR6, "::1", datagram(port), socket.IPPROTO_UDP)
        assert await lan.heard(host) == []
        assert await lan.ask("::1", port, UDP) == "host to ::1"

    lan(check)


def test_what_the_host_says_to_its_links_alone_is_not_for_containers(lan: InLan) -> None:
    """Services of the host on its link-local address, and its groups; answers and pings come through."""

    async def check(lan: Lan) -> None:
        port = free_port()
        web = await lan.container("web")
        host = await lan.answer("host", None, "::", port)
        group = struct.pack(
            "=16sI", socket.inet_pton(socket.AF_INET6, "ff02::fb"), socket.if_nametoindex(web.interface)
        )
        hearing = socket.socket(socket.AF_INET6, UDP)
        with hearing:
            hearing.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
            hearing.bind(("ff02::fb", port + 1, 0, socket.if_nametoindex(web.interface)))
            hearing.setblocking(False)

            def attack() -> None:
                send6(web.netns, web.address6, "fe80::1", datagram(port), socket.IPPROTO_UDP)
                send6(web.netns, web.address6, "ff02::fb", datagram(port + 1), socket.IPPROTO_UDP)

            attack()
            assert await lan.heard(host) == []
            with pytest.raises(BlockingIOError):
                hearing.recv(100)
            lan.without("fe80::/10 meta l4proto", "ip6")
            lan.without("ff00::/8", "ip6")
            attack()
            assert await lan.heard(host) == [web.address6]
            assert hearing.recv(100) == b"evil"

    lan(check)


def test_from_outside_only_what_is_published_is_reached_over_ipv6(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        web = await lan.container("web")
        for kind in (TCP, UDP):
            await lan.silent(web.address6, 80, kind, of=lan.neighbour)
        lan.without(f'iifname != "{lan.network.prefix}*" oifname', "ip6")
        for kind in (TCP, UDP):
            assert await lan.ask(web.address6, 80, kind, of=lan.neighbour) == f"web to {NEIGHBOUR6}"

    lan(check)


def test_another_cluster_is_out_of_reach_over_ipv6_but_for_what_it_publishes(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        port = free_port()
        web = await lan.container("web", cluster="shop")
        friend = await lan.container("friend", cluster="shop")
        other = await lan.container("other", tcp(port), udp(port), cluster="bank")
        for kind in (TCP, UDP):
            assert await lan.ask(friend.address6, 80, kind, of=web.netns) == f"friend to {web.address6}"
            await lan.silent(other.address6, 80, kind, of=web.netns)
            await lan.silent(web.address6, 80, kind, of=other.netns)
            assert (await lan.ask(HOST6, port, kind, of=web.netns)).startswith("other to ")
        await (first := lan.network).close(remove=False)
        assert first.taken
        lan.network = lan.make()
        await lan.network.open([lan.adopted("other", other, "bank"), lan.adopted("web", web, "shop")])
        for kind in (TCP, UDP):
            await lan.silent(other.address6, 80, kind, of=web.netns)
        lan.without("@joined", "ip6")
        for kind in (TCP, UDP):
            assert await lan.ask(other.address6, 80, kind, of=web.netns) == f"other to {web.address6}"

    lan(check)


def test_metadata_of_the_machine_are_closed_over_ipv6(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        web = await lan.container("web")
        ip(f"addr add fd00:ec2::254/128 dev {lan.wire} nodad")
        await lan.answer("cloud", None, "fd00:ec2::254", 8080)
        await lan.silent("fd00:ec2::254", 8080, of=web.netns)
        lan.without("fd00:ec2::254", "ip6")
        assert await lan.ask("fd00:ec2::254", 8080, of=web.netns) == f"cloud to {web.address6}"

    lan(check)
