"""Names of containers on the real kernel: what a container asks for, a server outside, and who must not know."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
from tinyo.runtime.v1.runtime_pb2 import ContainerConfig
from tinyo_runtime.network import Endpoint
from tinyo_runtime.network.names import files, message, resolvers

from tests.support.lan import HOST, NEIGHBOUR, SILENCE, InLan, Lan, inside, ip, tcp, udp

A, AAAA, PTR, TXT = 1, 28, 12, 16
OK, FORMERR, SERVFAIL, NXDOMAIN = 0, 1, 2, 3


def query(name: str, kind: int = A, *, id: int = 7, edns: int = 0) -> bytes:
    """A question as resolvers send it; with `edns`, an answer over UDP may be so long."""
    wire = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    more = b"\0\0\x29" + struct.pack("!HIH", edns, 0, 0) if edns else b""
    return (
        struct.pack("!6H", id, 0x0100, 1, 0, 0, 1 if edns else 0)
        + wire
        + struct.pack("!BHH", 0, kind, 1)
        + more
    )


def asks(netns: int, data: bytes, *, over: str = "udp", patience: float = 10) -> bytes:
    """What a container hears from the gateway; OSError when nothing."""
    with inside(netns):
        asking = socket.socket(type=socket.SOCK_STREAM if over == "tcp" else socket.SOCK_DGRAM)
    with asking:
        asking.settimeout(patience)
        asking.connect(("169.254.1.1", 53))
        if over == "udp":
            asking.settimeout(1)
            for _ in range(
                int(patience)
            ):  # as resolvers do: an interface that is new loses what comes too early
                asking.send(data)
                with contextlib.suppress(TimeoutError):
                    return asking.recv(1 << 16)
            raise TimeoutError
        asking.sendall(struct.pack("!H", len(data)) + data)
        with asking.makefile("rb") as answers:
            return answers.read(*struct.unpack("!H", answers.read(2)))


def told(said: bytes) -> tuple[int, list[str]]:
    """Code and addresses of an answer whose records have the name that was asked for."""
    _, flags, _, count, *_ = struct.unpack_from("!6H", said)
    place = said.index(b"\0", 12) + 5
    found = []
    for _ in range(count):
        kind, _, _, length = struct.unpack_from("!HHIH", said, place + 2)
        data = said[place + 12 : place + 12 + length]
        found.append(str(ip_address(data)) if kind in (A, AAAA) else data.decode("latin-1"))
        place += 12 + length
    return flags & 0xF, found


async def look(lan: Lan, name: str, of: str, kind: int = A, over: str = "udp") -> tuple[int, list[str]]:
    """What a container learns of a name."""
    return told(await asyncio.to_thread(asks, lan.endpoints[of].netns, query(name, kind), over=over))


Answer = Callable[[bytes, bool], list[bytes]]


@contextlib.asynccontextmanager
async def outside(lan: Lan, answer: Answer, address: str = NEIGHBOUR) -> AsyncIterator[list[str]]:
    """A server on the neighbour, which gives these answers to a question; the list is of names it was asked for."""
    names: list[str] = []

    def answers(data: bytes, over_tcp: bool) -> list[bytes]:
        names.append(message.question(data).name)
        return answer(data, over_tcp)

    class Udp(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            for said in answers(data, False):
                self.transport.sendto(said, addr)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readexactly(*struct.unpack("!H", await reader.readexactly(2)))
        for said in answers(data, True):
            writer.write(struct.pack("!H", len(said)) + said)
        writer.close()

    with inside(lan.neighbour):
        datagram, stream = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
    datagram.bind((address, 53))
    stream.bind((address, 53))
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Udp, sock=datagram)
    server = await asyncio.start_server(connected, sock=stream)
    try:
        yield names
    finally:
        transport.close()
        server.close()


def record(data: bytes, address: str = "192.0.2.1") -> bytes:
    """The answer to a question: one address."""
    asked = message.question(data)
    return message.answer(asked, OK, [(A, socket.inet_aton(address))])


@pytest.fixture(autouse=True)
def resolv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The host's resolv.conf."""
    file = tmp_path / "resolv.conf"
    file.write_text(
        f"# ours\nnameserver nonsense\nnameserver {NEIGHBOUR}\nsearch corp.example\noptions edns0\n"
    )
    monkeypatch.setattr(resolvers, "HOST", file)
    monkeypatch.setattr(files, "HOST", file)
    return file


def test_containers_of_a_cluster_find_each_other(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        web = await lan.container("web", tcp(53), udp(53), cluster="shop")
        await lan.container("db.1", cluster="shop")
        other = await lan.container("bank", cluster="bank")
        own = await lan.container("web", cluster="bank")
        lan.endpoints |= {"web": web, "own": own}
        for over in ("udp", "tcp"):
            for name in ("web", "WEB", "web.shop.internal"):
                assert await look(lan, name, "db.1", over=over) == (OK, [web.address])
            assert await look(lan, "web", "bank", over=over) == (OK, [own.address])
            assert await look(lan, "db.1.shop.internal", "web", over=over) == (
                OK,
                [lan.endpoints["db.1"].address],
            )
            for name in ("bank", "bank.bank.internal", "x.shop.internal", "nobody", "bank.internal"):
                assert await look(lan, name, "web", over=over) == (NXDOMAIN, []), name
            assert await look(lan, "web", "db.1", AAAA, over) == (OK, [web.address6])
            assert await look(lan, "web", "web", TXT, over) == (OK, [])
        reverse = ".".join(reversed(web.address.split("."))) + ".in-addr.arpa"
        assert await look(lan, reverse, "db.1", PTR) == (OK, ["\3web\4shop\10internal\0"])
        assert await look(lan, reverse, "bank", PTR) == (NXDOMAIN, [])
        reverse = ip_address(web.address6).reverse_pointer
        assert await look(lan, reverse, "db.1", PTR) == (OK, ["\3web\4shop\10internal\0"])
        assert await look(lan, reverse.upper(), "bank", PTR) == (NXDOMAIN, [])
        nobody = ip_address(web.address6) + 1000
        assert await look(lan, nobody.reverse_pointer, "bank", PTR) == (NXDOMAIN, [])
        await lan.network.release("bank", other)
        del lan.endpoints["bank"], other
        assert await look(lan, "bank", "own") == (NXDOMAIN, [])

    lan(check)


def test_all_other_names_are_asked_of_others(lan: InLan, resolv: Path) -> None:
    async def check(lan: Lan) -> None:
        web = await lan.container("web")
        big = b"x" * 900

        def answer(data: bytes, over_tcp: bool) -> list[bytes]:
            asked = message.question(data)
            if asked.name == "big.example":
                return [message.answer(asked, OK, [(TXT, big)] * (50 if over_tcp else 1))]
            return [record(data)]

        async with outside(lan, answer) as names:
            for over in ("udp", "tcp"):
                assert await look(lan, "www.example.org", "web", over=over) == (OK, ["192.0.2.1"])
                assert await look(lan, "metadata.google.internal", "web", over=over) == (OK, ["192.0.2.1"])
            short = await asyncio.to_thread(asks, web.netns, query("big.example", TXT))
            assert len(short) < 512 and short[2] & 2, "it is cut off, and says so"
            long = await asyncio.to_thread(asks, web.netns, query("big.example", TXT, edns=1232))
            assert len(long) > 900 and not long[2] & 2
            assert (
                len(await asyncio.to_thread(asks, web.netns, query("big.example", TXT), over="tcp")) > 45_000
            )
            await look(lan, "nobody", "web")
            assert "nobody" not in names
            resolv.write_text(f"nameserver {HOST}\nnameserver {NEIGHBOUR}\n")  # nobody there: refused at once
            assert await look(lan, "www.example.org", "web") == (OK, ["192.0.2.1"])
        resolv.unlink()
        resolv.write_text("nameserver 127.0.0.1\n")
        assert await look(lan, "www.example.org", "web") == (SERVFAIL, [])
        assert await look(lan, "web", "web") == (OK, [web.address])

    lan(check)


def test_answers_to_other_questions_are_not_believed(lan: InLan) -> None:
    """Wrong number, wrong name, wrong type, a question in place of an answer, and rubbish: the true answer counts."""

    async def check(lan: Lan) -> None:
        await lan.container("web")

        def lie(data: bytes, over_tcp: bool) -> list[bytes]:
            evil = record(data, "203.0.113.66")
            other = query("www.example.net") + evil[33:]
            return [
                bytes([evil[0] ^ 1]) + evil[1:],
                data[:2] + message.answer(message.question(query("www.example.net")), OK, [(A, b"evil")])[2:],
                data[:2]
                + message.answer(message.question(query("www.example.org", AAAA)), OK, [(A, b"evil")])[2:],
                data,
                data[:2] + b"\x80",
                data[:2] + os.urandom(100),
                other,
                record(data),
            ]

        async with outside(lan, lie):
            assert await look(lan, "www.example.org", "web") == (OK, ["192.0.2.1"])
            assert await look(lan, "www.example.org", "web", over="tcp") == (SERVFAIL, [])

    lan(check)


def test_rubbish_harms_nobody(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        web = await lan.container("web")
        good = query("web")
        rubbish = [good[:n] for n in range(len(good))]
        rubbish += [
            good[:12] + b"\xc0\x0c\0\1\0\1",
            good[:12] + b"\x3f" * 400,
            good[:4] + b"\0\2" + good[6:],
            good[:2] + b"\x81" + good[3:],
        ]
        rubbish += [os.urandom(n) for n in (1, 12, 40, 600)] + [good[:12] + b"\1a" * 200 + b"\0\0\1\0\1"]
        with inside(web.netns):
            asking = socket.socket(type=socket.SOCK_DGRAM)
        with asking:
            for data in rubbish:
                asking.sendto(data, ("169.254.1.1", 53))
            for data in rubbish[:4]:
                with contextlib.suppress(OSError, struct.error):  # silence, or the end
                    await asyncio.to_thread(asks, web.netns, data, over="tcp", patience=SILENCE)
        assert await look(lan, "web", "web") == (OK, [web.address])

    lan(check)


def test_one_container_cannot_keep_the_others_from_asking(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        greedy, _ = await lan.container("greedy"), await lan.container("web")

        def answer(data: bytes, over_tcp: bool) -> list[bytes]:
            if message.question(data).name.startswith("slow"):
                return []
            return [record(data)]

        async with outside(lan, answer) as names:
            with inside(greedy.netns):
                asking = socket.socket(type=socket.SOCK_DGRAM)
            with asking:
                for number in range(400):
                    asking.sendto(query(f"slow-{number}.example"), ("169.254.1.1", 53))
                    if number % 8 == 0:
                        await asyncio.sleep(0)
            assert await look(lan, "www.example.org", "web") == (OK, ["192.0.2.1"])
            assert len(set(names)) <= 256 + 1

    lan(check)


def test_who_asks_during_a_restart_is_answered_afterwards(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        web = await lan.container("web")
        assert await look(lan, "web", "web") == (OK, [web.address])
        await lan.network.close(remove=False)
        with inside(web.netns):
            asking = socket.socket(type=socket.SOCK_DGRAM)
        with asking:
            asking.connect(("169.254.1.1", 53))
            asking.settimeout(SILENCE)
            asking.send(query("web"))
            with pytest.raises(TimeoutError):  # not refused
                await asyncio.to_thread(asking.recv, 512)
            lan.network = lan.make()
            await lan.network.open([lan.adopted("web", web)])
            asking.settimeout(10)
            asking.send(query("web"))
            assert told(await asyncio.to_thread(asking.recv, 512)) == (OK, [web.address])

    lan(check)


def test_a_container_can_have_servers_of_its_own(lan: InLan) -> None:
    async def check(lan: Lan) -> None:
        config = ContainerConfig(cluster="shop")
        config.spec.name = "web"
        config.spec.dns.servers.append("198.51.100.3")
        lan.endpoints["web"] = await lan.network.acquire(config)
        await lan.container("other", cluster="shop")
        ip("addr add 198.51.100.3/24 dev eth0", lan.neighbour)
        async with (
            outside(lan, lambda data, _: [record(data)]),
            outside(lan, lambda data, _: [record(data, "192.0.2.3")], "198.51.100.3"),
        ):
            assert await look(lan, "www.example.org", "web") == (OK, ["192.0.2.3"])
            assert await look(lan, "www.example.org", "other") == (OK, ["192.0.2.1"])

    lan(check)


def test_the_files_of_a_container_say_what_is_so(resolv: Path) -> None:
    config = ContainerConfig(cluster="shop")
    config.spec.name = "web"
    config.spec.extra_hosts.add(name="db", address="192.0.2.7")
    config.spec.extra_hosts.add(name="host.internal", address="host-gateway")
    assert files.hosts(config.spec, Endpoint(-1, "10.77.0.1", "", "fd00::1")) == (
        "127.0.0.1\tlocalhost\n::1\tlocalhost\n10.77.0.1\tweb\nfd00::1\tweb\n192.0.2.7\tdb\n169.254.1.1\thost.internal\n"
    )
    assert files.resolv_conf(config) == (
        "nameserver 169.254.1.1\nsearch shop.internal corp.example\noptions edns0\n"
    )
    config.spec.dns.search.append("example.org")
    config.spec.dns.options.append("ndots:2")
    assert files.resolv_conf(config) == (
        "nameserver 169.254.1.1\nsearch shop.internal example.org\noptions ndots:2\n"
    )
    resolv.unlink()
    config.spec.ClearField("dns")
    assert files.resolv_conf(config) == "nameserver 169.254.1.1\nsearch shop.internal\n"
