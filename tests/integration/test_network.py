"""The network by itself on the real kernel: namespaces as containers, sockets in them, and a host next door.

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
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tinyo.v1.container_pb2 import PROTOCOL_TCP, PROTOCOL_UDP, Port
from tinyo_runtime.errors import TinyoError
from tinyo_runtime.network import Adopted, Endpoint, Network, firewall
from tinyo_runtime.settings import Settings
from tinyo_runtime.spawner import syscalls

from tests.support.clean import assert_clean, snapshot
from tests.support.registry import free_port

#: The host's address on a wire, and the one of its neighbour there (RFC 5737).
HOST, NEIGHBOUR = "198.51.100.1", "198.51.100.2"
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


def nft(commands: str) -> str:
    """What nft(8) prints; CalledProcessError when it does not like the commands."""
    return subprocess.run(
        ["nft", "-f", "-"], input=commands, check=True, capture_output=True, text=True
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
        for command in (f"addr add {HOST}/24 dev {self.wire}", f"link set {self.wire} up"):
            ip(command)
        for command in (
            "link set eth0 addrgenmode none up",
            f"addr add {NEIGHBOUR}/24 dev eth0",
            f"route add default via {HOST}",
        ):
            ip(command, self.neighbour)
        ip(f"route add default via {NEIGHBOUR} metric 4000000000")

    def make(self, **more: str) -> Network:
        settings = {"instance": self.name, "run": str(self.run), "state": str(self.run), "ready": "0"} | more
        return Network(Settings(**settings))

    async def container(self, name: str, *ports: Port) -> Endpoint:
        """A container that answers at 80, TCP and UDP, with its name and the address that asked."""
        self.endpoints[name] = endpoint = await self.network.acquire()
        await self.network.publish(name, endpoint.address, ports)
        await self.answer(name, endpoint.netns, "0.0.0.0", 80)
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

        with inside(netns):
            stream, datagram = socket.socket(type=TCP), socket.socket(type=UDP)
        for made in (stream, datagram):
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

    async def release(self) -> None:
        """All containers end."""
        while self.endpoints:
            await self.network.release(*self.endpoints.popitem())

    async def close(self) -> None:
        await self.open.aclose()
        await self.release()
        await self.network.close(remove=True)

    def destroy(self) -> None:
        ip(f"link del {self.wire}")
        os.close(self.neighbour)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
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
def lan(host: None, tmp_path: Path) -> Iterator[Callable[[Callable[[Lan], Awaitable[None]]], None]]:
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


Run = Callable[[Callable[[Lan], Awaitable[None]]], None]


def tcp(host_port: int, host_ip: str = "") -> Port:
    return Port(host_ip=host_ip, host_port=host_port, container_port=80, protocol=PROTOCOL_TCP)


def udp(host_port: int, host_ip: str = "") -> Port:
    return Port(host_ip=host_ip, host_port=host_port, container_port=80, protocol=PROTOCOL_UDP)


def test_a_published_port_answers_wherever_the_host_is_addressed(lan: Run) -> None:
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


def test_a_port_of_one_address_answers_there_only(lan: Run) -> None:
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


def test_a_container_reaches_the_world_others_and_its_own_ports(lan: Run) -> None:
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


def test_from_outside_only_what_is_published_is_reached(lan: Run) -> None:
    async def check(lan: Lan) -> None:
        endpoint = await lan.container("web")
        for kind in (TCP, UDP):
            await lan.silent(endpoint.address, 80, kind, of=lan.neighbour)

    lan(check)


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


def test_nobody_sends_from_an_address_that_is_not_theirs(lan: Run) -> None:
    async def check(lan: Lan) -> None:
        port = free_port()
        web, other = await lan.container("web"), await lan.container("other")
        outside = await lan.answer("neighbour", lan.neighbour, NEIGHBOUR, port)
        host = await lan.answer("host", None, "0.0.0.0", port)
        foreign = (other.address, NEIGHBOUR, HOST, "169.254.1.1", "127.0.0.1", "10.77.200.200", "8.8.8.8")
        for source in foreign:
            for to in (NEIGHBOUR, HOST, "169.254.1.1"):
                send(web.netns, source, to, port)
        await asyncio.sleep(SILENCE)
        assert (outside, host) == ([], [])
        send(web.netns, web.address, NEIGHBOUR, port)
        send(web.netns, web.address, HOST, port)
        await asyncio.sleep(SILENCE)
        assert (outside, host) == ([HOST], [web.address]), "its own address is none of these"

    lan(check)


def test_the_loopback_of_the_host_and_metadata_are_closed(lan: Run) -> None:
    """CVE-2020-8558: the veth routes 127/8, and still nobody gets there."""

    async def check(lan: Lan) -> None:
        port = free_port()
        web = await lan.container("web")
        ip(f"addr add 169.254.169.254/32 dev {lan.wire}")
        host = await lan.answer("host", None, "0.0.0.0", port)
        for to in ("127.0.0.1", "127.1.2.3", "169.254.169.254"):
            send(web.netns, web.address, to, port)
            send(lan.neighbour, NEIGHBOUR, to, port)
            for kind in (TCP, UDP):
                if to.startswith("169"):
                    await lan.silent(to, port, kind, of=web.netns)
        await asyncio.sleep(SILENCE)
        assert host == []
        assert await lan.ask("127.0.0.1", port) == "host to 127.0.0.1"
        assert await lan.ask(HOST, port, of=web.netns) == f"host to {web.address}"

    lan(check)


def test_who_holds_a_port_is_named(lan: Run) -> None:
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


def test_ports_answer_across_a_restart(lan: Run) -> None:
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
                adopted = Adopted("web", web.address, web.interface, ports)
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
        assert endpoint[1:] == (web.address, web.interface)
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


def test_everything_goes(lan: Run) -> None:
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
        endpoints = [await lan.network.acquire() for _ in range(5)]
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


def test_who_gives_up_while_a_namespace_is_made_loses_nothing(lan: Run) -> None:
    async def check(lan: Lan) -> None:
        before = snapshot()
        for patience in (0.0, 0.0003, 0.001):
            with contextlib.suppress(TimeoutError):
                endpoint = await asyncio.wait_for(lan.network.acquire(), patience)
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
def test_a_firewall_that_drops_what_is_forwarded_lets_containers_through(lan: Run, chain: str) -> None:
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


def test_the_pool_is_checked_claimed_and_remembered(lan: Run) -> None:
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
        endpoints = [await network.acquire() for _ in range(6)]
        assert sorted(endpoint.address for endpoint in endpoints) == [f"10.99.99.{n}" for n in range(1, 7)]
        with pytest.raises(TinyoError) as caught:
            await network.acquire()
        assert caught.value.reason == "POOL_EMPTY"
        await network.release("", endpoints.pop())
        endpoints.append(await network.acquire())
        for endpoint in endpoints:
            await network.release("", endpoint)
        await network.close(remove=True)

    lan(check)
