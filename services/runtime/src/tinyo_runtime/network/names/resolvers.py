"""Others who are asked: the servers of the host's /etc/resolv.conf, or those that a container wants.

They are asked from the host, so one of its loopback (systemd-resolved) does as well. An answer counts only when it
comes from where the question went, to a port and with a number that nobody could know (RFC 5452).
"""

import asyncio
import ipaddress
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from tinyo_runtime.network.names import message
from tinyo_runtime.network.names.message import Question
from tinyo_runtime.network.veth import GATEWAY

HOST = Path("/etc/resolv.conf")
PORT = 53
#: Seconds for one server; how often all are asked; servers that count (resolv.conf(5) has three).
PATIENCE, ROUNDS, MOST = 2.0, 2, 4
#: Messages on a question's port that are no answer to it, before we listen no longer.
NOISE = 100


class Resolvers:
    """The host's servers, read again when the file has changed; who did not answer last is asked last."""

    def __init__(self) -> None:
        self._seen: tuple[int, ...] = ()
        self._servers: list[str] = []
        self._slow: set[str] = set()

    def servers(self) -> list[str]:
        """Addresses of the host's servers."""
        try:
            found = HOST.stat()
            seen = found.st_mtime_ns, found.st_ino, found.st_size
            if seen != self._seen:
                self._servers = parse(HOST.read_text(errors="replace"))
                self._slow.clear()
                self._seen = seen
        except OSError:  # it is being replaced: those of before, or of resolv.conf(5) without a file
            self._servers = self._servers or ["127.0.0.1"]
        return self._servers

    async def ask(self, asked: Question, query: bytes, servers: Sequence[str], *, tcp: bool) -> bytes:
        """The answer to a question that came over UDP or TCP; that we failed, when nobody has one."""
        servers = (servers or self.servers())[:MOST]
        refusal = b""
        for server in sorted(servers, key=self._slow.__contains__) * ROUNDS:
            id = struct.unpack("H", os.urandom(2))[0]
            try:
                async with asyncio.timeout(PATIENCE):
                    said = await (_by_tcp if tcp else _by_udp)(asked, id, query, server)
            except (OSError, EOFError, TimeoutError):
                self._slow.add(server)
                continue
            self._slow.discard(server)
            said = query[:2] + said[2:]
            if said[3] & 0xF not in (message.FAILED, message.UNKNOWN, message.REFUSED):
                return said
            refusal = said
        return refusal or message.answer(asked, message.FAILED)


def parse(text: str) -> list[str]:
    """Addresses of the servers in a resolv.conf(5)."""
    servers = []
    for line in text.splitlines():
        keyword, *values = line.split() or [""]
        if keyword == "nameserver" and values and values[0] != GATEWAY:
            try:
                servers.append(str(ipaddress.ip_address(values[0])))
            except ValueError:
                continue
    return servers or ["127.0.0.1"]


async def _by_udp(asked: Question, id: int, query: bytes, server: str) -> bytes:
    loop = asyncio.get_running_loop()
    with socket.socket(_family(server), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect((server, PORT))
        sock.send(struct.pack("!H", id) + query[2:])
        for _ in range(NOISE):
            said = await loop.sock_recv(sock, 1 << 16)
            if message.answers(asked, id, said):
                return said
    raise EOFError


async def _by_tcp(asked: Question, id: int, query: bytes, server: str) -> bytes:
    reader, writer = await asyncio.open_connection(server, PORT)
    try:
        writer.write(struct.pack("!HH", len(query), id) + query[2:])
        said = await reader.readexactly(*struct.unpack("!H", await reader.readexactly(2)))
        if not message.answers(asked, id, said):
            raise EOFError
        return said
    finally:
        writer.transport.abort()


def _family(server: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in server else socket.AF_INET
