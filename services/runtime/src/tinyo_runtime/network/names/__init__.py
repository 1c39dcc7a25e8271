"""Names of containers, by DNS (docs/decisions/0022-names.md): one socket for every container of an instance.

A container asks 169.254.1.1, as all do. nftables leads that to our socket, and no container can send from an address
that is not its own, so the sender says who asks and which names are its business.
"""

import asyncio
import struct
from collections import Counter
from contextlib import AbstractContextManager, suppress
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from tinyo.runtime.v1.runtime_pb2 import ContainerConfig

from tinyo_runtime.network.names import message
from tinyo_runtime.network.names.book import Book, Entry
from tinyo_runtime.network.names.resolvers import Resolvers
from tinyo_runtime.network.names.sockets import Sockets
from tinyo_runtime.network.veth import Endpoint

#: Questions that others are asked for one container at a time, and for all; what is more is not heard.
EACH, ALL = 256, 2048
#: Seconds that a connection may be silent; connections of one container.
SILENCE, CONNECTIONS = 10.0, 32
#: Messages that are read before others get their turn.
AT_ONCE = 64

#: Before anything that is published: port 53 of the gateway is nobody else's. That our port is closed while the runtime
#: is restarted is not told to who asks: they ask again, and are answered then. (They would hear it in a message of
#: ICMP that quotes theirs, with our port or 53 at this place.)
RULES = """
insert rule ip {table} arriving iifname "{prefix}*" ip daddr 169.254.1.1 meta l4proto {{ tcp, udp }} th dport 53 \
redirect to :{port}
table ip {table} {{
  chain said {{
    type filter hook output priority filter
    oifname "{prefix}*" icmp type destination-unreachable icmp code port-unreachable @th,240,16 {{ 53, {port} }} drop
  }}
}}
"""


class Names:
    """Answers what containers ask, between `open` and `close`."""

    def __init__(self, run: Path) -> None:
        self.book = Book()
        self._sockets, self._resolvers = Sockets(run / "names"), Resolvers()
        self._busy, self._connections = Counter[str](), Counter[str]()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def rules(self, table: str, prefix: str, pool: IPv4Network, pool6: IPv6Network | None) -> str:
        """Leads questions to our port."""
        self.book.pools = [pool, *([pool6] if pool6 else [])]
        return RULES.format(table=table, prefix=prefix, port=self._sockets.bind())

    def known(self, config: ContainerConfig, endpoint: Endpoint) -> AbstractContextManager[None]:
        """A container has its name inside."""
        addresses = [*filter(None, (endpoint.address, endpoint.address6))]
        return self.book.entry(config.cluster, config.spec.name, addresses, list(config.spec.dns.servers))

    async def open(self) -> None:
        """Begins to answer."""
        asyncio.get_running_loop().add_reader(self._sockets.udp, self._datagrams)
        self._server = await asyncio.start_server(self._connection, sock=self._sockets.tcp)

    async def close(self, *, remove: bool) -> None:
        """Ends; with `remove` nothing is left."""
        if self._server:
            asyncio.get_running_loop().remove_reader(self._sockets.udp)
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._sockets.close(remove=remove)

    def _datagrams(self) -> None:
        """Some questions that wait."""
        for _ in range(AT_ONCE):
            try:
                data, sender = self._sockets.udp.recvfrom(1 << 16)
            except OSError:  # no more
                return
            entry = self.book.who(sender[0])
            if not entry:
                continue
            try:
                asked = message.question(data)
            except ValueError:
                self._say(message.malformed(data), sender)
                continue
            if asked.flags & message.RESPONSE:
                continue
            if said := self.book.answer(entry, asked):
                self._say(said, sender)
            elif self._takes(sender[0]):
                self._keep(asyncio.ensure_future(self._pass_on(entry, asked, data, sender)))

    def _takes(self, address: str) -> bool:
        """Whether one more question of a container is passed on; `_others` must be called then."""
        if self._busy[address] >= EACH or self._busy.total() >= ALL:
            return False
        self._busy[address] += 1
        return True

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass_on(
        self, entry: Entry, asked: message.Question, data: bytes, sender: tuple[str, int]
    ) -> None:
        said = await self._others(sender[0], entry, asked, data, tcp=False)
        self._say(message.fitting(asked, said), sender)

    async def _others(
        self, address: str, entry: Entry, asked: message.Question, data: bytes, *, tcp: bool
    ) -> bytes:
        try:
            return await self._resolvers.ask(asked, data, entry.servers, tcp=tcp)
        finally:
            self._busy[address] -= 1
            if not self._busy[address]:
                del self._busy[address]

    def _say(self, said: bytes, to: tuple[str, int]) -> None:
        with suppress(OSError):  # it has ended, or hears nothing: who asks asks again
            if said:
                self._sockets.udp.sendto(said, to)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Questions of one container, one after the other."""
        task = asyncio.current_task()
        assert task
        self._keep(task)
        address = writer.get_extra_info("peername")[0]
        self._connections[address] += 1
        try:
            while (entry := self.book.who(address)) and self._connections[address] <= CONNECTIONS:
                async with asyncio.timeout(SILENCE):
                    data = await reader.readexactly(*struct.unpack("!H", await reader.readexactly(2)))
                asked = message.question(data)
                said = self.book.answer(entry, asked)
                if said is None and self._takes(address):
                    said = await self._others(address, entry, asked, data, tcp=True)
                said = said or message.answer(asked, message.FAILED)
                async with asyncio.timeout(SILENCE):
                    writer.write(struct.pack("!H", len(said)) + said)
                    await writer.drain()
        except (OSError, EOFError, TimeoutError, ValueError):
            pass  # who says no question, or nothing for so long, is not answered any more
        finally:
            self._connections[address] -= 1
            if not self._connections[address]:
                del self._connections[address]
            writer.transport.abort()
