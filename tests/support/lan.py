"""The network by itself on the real kernel: namespaces as containers, sockets in them, and a host next door.

    def test_it(lan: InLan) -> None:
        async def check(lan: Lan) -> None:
            web = await lan.container("web", tcp(8080))
            assert await lan.ask("127.0.0.1", 8080) == "web to 169.254.1.1"

        lan(check)

A socket belongs to the namespace in which it was made, so whoever holds it may be anywhere: the tests are
containers, host and neighbour in one process.
"""

import asyncio
import contextlib
import ctypes
import gc
import os
import secrets
import socket
import struct
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tinyo.runtime.v1.runtime_pb2 import ContainerConfig
from tinyo.v1.container_pb2 import PROTOCOL_TCP, PROTOCOL_UDP, ContainerSpec, Port
from tinyo_runtime.network import Adopted, Endpoint, Network, firewall
from tinyo_runtime.settings import Settings
from tinyo_runtime.spawner import syscalls

from tests.support.clean import assert_clean, snapshot

#: The host's address on a wire, and the one of its neighbour there (RFC 5737).
HOST, NEIGHBOUR = "198.51.100.1", "198.51.100.2"
#: The same for IPv6 (RFC 3849).
HOST6, NEIGHBOUR6 = "2001:db8::1", "2001:db8::2"
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
#: Seconds after which somebody who should answer does not, and who should not will not.
PATIENCE, SILENCE = 10.0, 0.3


@contextlib.contextmanager
def inside(netns: int | None) -> Iterator[None]:
    """This thread is in another network namespace for a while."""
    with open("/proc/thread-self/ns/net") as home:
        if netns is not None:
            syscalls.setns(netns, syscalls.CLONE_NEWNET)
        try:
            yield
        finally:
            syscalls.setns(home.fileno(), syscalls.CLONE_NEWNET)


def ip(command: str, netns: int | None = None) -> None:
    with inside(netns):
        subprocess.run(["ip", *command.split()], check=True, pass_fds=[netns] if netns else [])


def nft(commands: str, *, handles: bool = False) -> str:
    """What nft(8) prints; CalledProcessError when it does not like the commands."""
    return subprocess.run(
        ["nft", *(["-a"] if handles else []), "-f", "-"],
        input=commands,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


class Lan:
    """One instance's network, its containers, and a neighbour of the host."""

    def __init__(self, run: Path) -> None:
        self.run, self.name = run, f"t{secrets.token_hex(4)}"
        self.network = self.make()
        self.endpoints: dict[str, Endpoint] = {}
        self.open = contextlib.AsyncExitStack()
        with inside(None):
            syscalls.unshare(syscalls.CLONE_NEWNET)
            self.neighbour = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self.wire = f"{self.name}-w"
        ip(f"link add {self.wire} type veth peer name eth0")
        ip(f"link set {self.wire} addrgenmode none")
        subprocess.run(
            ["ip", "link", "set", "eth0", "netns", f"/proc/self/fd/{self.neighbour}"],
            check=True,
            pass_fds=[self.neighbour],
        )
        for command in (
            f"addr add {HOST}/24 dev {self.wire}",
            f"addr add {HOST6}/64 dev {self.wire} nodad",
            f"link set {self.wire} up",
        ):
            ip(command)
        for command in (
            "link set eth0 addrgenmode none up",
            f"addr add {NEIGHBOUR}/24 dev eth0",
            f"route add default via {HOST}",
            f"addr add {NEIGHBOUR6}/64 dev eth0 nodad",
            f"route add default via {HOST6}",
        ):
            ip(command, self.neighbour)
        ip(f"route add default via {NEIGHBOUR} metric 4000000000")
        ip(f"route add default via {NEIGHBOUR6} metric 4000000000")

    def make(self, **more: str) -> Network:
        settings = {"instance": self.name, "run": str(self.run), "state": str(self.run), "ready": "0"} | more
        return Network(Settings(**settings))

    async def container(self, name: str, *ports: Port, cluster: str = "default") -> Endpoint:
        """A container that answers at 80, TCP and UDP, with its name and the address that asked."""
        config = ContainerConfig(cluster=cluster, spec=ContainerSpec(name=name, ports=ports))
        self.endpoints[name] = endpoint = await self.network.acquire(config)
        await self.network.publish(name, endpoint.address, ports)
        await self.answer(name, endpoint.netns, "0.0.0.0", 80)
        if endpoint.address6:
            await self.answer(name, endpoint.netns, "::", 80)
        return endpoint

    async def answer(self, name: str, netns: int | None, address: str, port: int) -> list[str]:
        """Somebody answers until the end; the list is of who came."""
        came: list[str] = []

        async def tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            came.append(writer.get_extra_info("peername")[0])
            writer.write(f"{name} to {came[-1]}".encode())
            writer.close()

        class Udp(asyncio.DatagramProtocol):
            def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
                self.transport = transport

            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                came.append(addr[0])
                self.transport.sendto(f"{name} to {addr[0]}".encode(), addr)

        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with inside(netns):
            stream, datagram = socket.socket(family, TCP), socket.socket(family, UDP)
        for made in (stream, datagram):
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind((address, port))
        await self.open.enter_async_context(await asyncio.start_server(tcp, sock=stream))
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Udp, sock=datagram)
        self.open.callback(transport.close)
        return came

    async def ask(
        self, address: str, port: int, kind: int = TCP, *, of: int | None = None, patience: float = PATIENCE
    ) -> str:
        """What is answered there to the host, or to who is in namespace `of`; OSError when nothing is."""

        def talk() -> str:
            with inside(of):
                asking = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
            with asking:
                asking.settimeout(patience)
                asking.connect((address, port))
                if kind == UDP:
                    asking.send(b"?")
                return asking.recv(4096).decode()

        return await asyncio.to_thread(talk)

    async def silent(self, address: str, port: int, kind: int = TCP, *, of: int | None = None) -> None:
        """Nobody answers there."""
        with pytest.raises(OSError):
            raise AssertionError(await self.ask(address, port, kind, of=of, patience=SILENCE))

    def adopted(
        self, name: str, endpoint: Endpoint, cluster: str = "default", ports: Sequence[Port] = ()
    ) -> Adopted:
        """What the next runtime is told of a container."""
        config = ContainerConfig(cluster=cluster, spec=ContainerSpec(name=name, ports=ports))
        return Adopted(name, endpoint.address, endpoint.interface, ports, config, endpoint.address6)

    async def heard(self, came: list[str]) -> list[str]:
        """Who came to somebody who answers, after the time in which they would have."""
        await asyncio.sleep(SILENCE)
        heard, came[:] = came[:], []
        return heard

    def without(self, rule: str, family: str = "ip") -> None:
        """Takes a defence away: every rule of the instance's table with this in it."""
        self.network._repair.close()  # which would bring it back
        chain, found = "", 0
        for line in nft(f"list table {family} {self.name}", handles=True).splitlines():
            chain = line.split()[1] if line.strip().startswith("chain ") else chain
            if rule in line:
                nft(f"delete rule {family} {self.name} {chain} handle {line.split()[-1]}")
                found += 1
        assert found, f"no rule has {rule!r}"

    async def release(self) -> None:
        """All containers end."""
        while self.endpoints:
            await self.network.release(*self.endpoints.popitem())

    async def close(self) -> None:
        await self.open.aclose()
        await self.release()
        await self.network.close(remove=True)
        gc.collect()  # what is only held by networks of before a restart ends with them

    def destroy(self) -> None:
        ip(f"link del {self.wire}")
        os.close(self.neighbour)


@pytest.fixture
def lan_host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A network namespace that plays the host, so that nobody else's is touched; what is left in it is a leak."""
    with inside(None):
        syscalls.unshare(syscalls.CLONE_NEWNET)
        ip("link set lo up")
        nftables = ctypes.c_void_p(
            firewall.lib.nft_ctx_new(0)
        )  # it belongs to the namespace in which it is made
        firewall.lib.nft_ctx_buffer_error(nftables)
        monkeypatch.setattr(firewall, "context", nftables)
        baseline = snapshot()
        yield
        assert_clean(baseline)
        firewall.lib.nft_ctx_free(nftables)


@pytest.fixture
def lan(lan_host: None, tmp_path: Path) -> Iterator["InLan"]:
    """Runs a coroutine with a network that is open, and closes that."""
    made = Lan(tmp_path)

    async def whole(test: Callable[[Lan], Awaitable[None]]) -> None:
        await made.network.open([])
        try:
            await test(made)
        finally:
            await made.close()

    yield lambda test: asyncio.run(whole(test))
    made.destroy()


#: What the fixture `lan` is.
InLan = Callable[[Callable[[Lan], Awaitable[None]]], None]


def tcp(host_port: int, host_ip: str = "") -> Port:
    return Port(host_ip=host_ip, host_port=host_port, container_port=80, protocol=PROTOCOL_TCP)


def udp(host_port: int, host_ip: str = "") -> Port:
    return Port(host_ip=host_ip, host_port=host_port, container_port=80, protocol=PROTOCOL_UDP)


def send(netns: int, source: str, to: str, port: int) -> None:
    """A frame with a UDP packet, whatever the kernel of the container thinks of it."""
    with inside(netns):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with raw:
        raw.bind(("eth0", 0x0800))
        mac = raw.getsockname()[4]
        header = struct.pack(
            "!BBHHHBBH4s4s",
            0x45,
            0,
            32,
            0,
            0,
            64,
            socket.IPPROTO_UDP,
            0,
            socket.inet_aton(source),
            socket.inet_aton(to),
        )
        words = sum(struct.unpack("!10H", header))
        checksum = ~((words & 0xFFFF) + (words >> 16)) & 0xFFFF
        header = header[:10] + struct.pack("!H", checksum) + header[12:]
        raw.send(mac * 2 + b"\x08\x00" + header + struct.pack("!HHHH4s", 4444, port, 12, 0, b"evil"))


def send6(netns: int, source: str, to: str, payload: bytes, next: int, hops: int = 64) -> None:
    """The same for a packet of IPv6, with a payload of this protocol whose checksum is put in: UDP or ICMPv6."""
    with inside(netns):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with raw:
        raw.bind(("eth0", 0x86DD))
        mac = raw.getsockname()[4]
        ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, to)
        summed = ends + struct.pack("!II", len(payload), next) + payload + b"\0" * (len(payload) % 2)
        words = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
        while words >> 16:
            words = (words & 0xFFFF) + (words >> 16)
        place = 6 if next == socket.IPPROTO_UDP else 2
        payload = payload[:place] + struct.pack("!H", ~words & 0xFFFF) + payload[place + 2 :]
        raw.send(
            mac * 2 + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(payload), next, hops) + ends + payload
        )


def datagram(port: int) -> bytes:
    """A payload of UDP for `send6`."""
    return struct.pack("!HHHH4s", 4444, port, 12, 0, b"evil")
