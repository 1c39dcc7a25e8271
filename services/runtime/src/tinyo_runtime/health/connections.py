"""Checks that connect: TCP and HTTP, to a server that may do anything.

A socket belongs to the network namespace that it was made in (network_namespaces(7)): it is made in the container's. So a check reaches the container and nothing else, whatever its network is: no route, no
rule and no proxy of the host has a part in it.
"""

import asyncio
import errno
import os
import socket
import ssl
from functools import cache
from io import FileIO

from tinyo.v1.health_pb2 import HttpCheck

from tinyo_runtime.health.verdict import OUTPUT
from tinyo_runtime.spawnclient import Process
from tinyo_runtime.spawner import syscalls

#: Of a thread.
NAMESPACE = "/proc/thread-self/ns/net"
#: Bytes of the head of a response that are read.
HEAD = 16 << 10
#: Statuses that are no failure.
FINE = range(200, 400)


class Failed(Exception):
    """It did not pass: what it came to, and the status of the response if there was one."""

    def __init__(self, output: bytes, code: int | None = None) -> None:
        super().__init__(output)
        self.output, self.code = output, code


async def connected(process: Process, address: str, port: int) -> socket.socket:
    """A connection to a port of a container: at its own address, where others reach it; without one, at its loopback.
    Failed when nobody takes it."""
    made, place = inside(process), (address or "127.0.0.1", port)
    try:
        await asyncio.get_running_loop().sock_connect(made, place)
        if made.getsockname() == made.getpeername():  # nobody listens, and TCP connected it to itself
            raise ConnectionRefusedError(errno.ECONNREFUSED, "")
    except OSError as error:
        made.close()
        raise Failed(f"{place[0]}:{port}: {os.strerror(error.errno or 0)}".encode()) from None
    except BaseException:
        made.close()
        raise
    return made


def inside(process: Process) -> socket.socket:
    """A socket of a process's network namespace, for which this thread goes there for 20 µs: to have another one do it
    would cost three times that. ProcessLookupError when the process has ended."""
    with FileIO(NAMESPACE) as home:
        syscalls.setns(process.pidfd, syscalls.CLONE_NEWNET)
        try:
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        finally:
            come_back(home.fileno())


def come_back(home: int) -> None:
    """Or ends the runtime, which no container notices: all that it did from now on would be done to one of them."""
    try:
        syscalls.setns(home, syscalls.CLONE_NEWNET)
    except OSError:
        os.abort()


async def tcp(process: Process, address: str, port: int) -> bytes:
    """Connects. Failed when nobody takes it."""
    (await connected(process, address, port)).close()
    return b""


async def http(process: Process, address: str, check: HttpCheck) -> tuple[int, bytes]:
    """Status and first line of an answer that is fine. Failed with another one; OSError when the connection fails."""
    connection = await connected(process, address, check.port)
    try:
        reader, writer = await asyncio.open_connection(
            sock=connection,
            limit=HEAD,
            ssl=_tls() if check.tls else None,
            server_hostname="" if check.tls else None,
        )
    except BaseException:
        connection.close()
        raise
    try:
        writer.write(request(address or "127.0.0.1", check))
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            raise Failed(b"the server did not answer in HTTP") from None
        status, line = parsed(head)
        if status in ([*check.statuses] or FINE):
            return status, line
        raise Failed(line + b"\n" + await _body(reader), status)
    finally:
        writer.transport.abort()


async def _body(reader: asyncio.StreamReader) -> bytes:
    """What comes of it within a moment; it is for people."""
    body = b""
    try:
        async with asyncio.timeout(1):
            while len(body) < OUTPUT and (data := await reader.read(OUTPUT - len(body))):
                body += data
    except (TimeoutError, OSError):  # what has come by then
        return body
    return body


def request(host: str, check: HttpCheck) -> bytes:
    """The request as it is sent (RFC 9112)."""
    default = 443 if check.tls else 80
    headers = {
        "host": host if check.port == default else f"{host}:{check.port}",
        "user-agent": "tinyo-health",
        "accept": "*/*",
    } | {name.lower(): value for name, value in check.headers.items()}
    lines = [f"GET {check.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "connection: close", "", ""]).encode("latin-1")


def parsed(head: bytes) -> tuple[int, bytes]:
    """Status and first line of a response. Failed when it is none."""
    line = head.partition(b"\r\n")[0]
    version, _, rest = line.partition(b" ")
    status = rest[:3]
    if not version.startswith(b"HTTP/1.") or not (len(status) == 3 and status.isdigit()):
        raise Failed(b"the server did not answer in HTTP: " + line)
    return int(status), line


@cache
def _tls() -> ssl.SSLContext:
    """Whoever can be reached there is the container itself: there is nobody else whose certificate it could be."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
