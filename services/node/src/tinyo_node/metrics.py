"""The metrics of `exposition` over HTTP: on `metrics.sock` beside the node's socket, and where `metrics` of node.toml
says, on TCP. There is nothing else to be had, nothing to be changed, and nobody is asked who they are.

curl --unix-socket /run/tinyo/metrics.sock http://node/metrics
"""

import asyncio
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.v1.stats_pb2 import ContainerStats

from tinyo_node import exposition

if TYPE_CHECKING:
    from tinyo_node.reconcile import Reconciler

#: Bytes of a request, seconds until it is complete or its answer is read, requests at the same time.
HEAD, PATIENCE, MOST = 8192, 5, 16
#: Seconds in which the runtime is asked once: however many ask, the machine has little to do.
FRESH = 1.0

#: Host and port; None: not on TCP.
address: tuple[str, int] | None = None


def parsed(text: str) -> tuple[str, int] | None:
    """An address as in node.toml. SystemExit with one sentence."""
    if not text:
        return None
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]+)):([0-9]{1,5})", text)
    if not match or not 0 < int(match[3]) < 65536:
        raise SystemExit(
            f'metrics={text!r}: write an address and a port, as in "127.0.0.1:9323" or "[::1]:9323"'
        )
    return match[1] or match[2], int(match[3])


class Metrics:
    """Answers requests about one node."""

    def __init__(self, work: "Reconciler") -> None:
        self._work = work
        self._slots = MOST
        self._asking = asyncio.Lock()
        self._asked, self._stats = 0.0, list[ContainerStats]()

    async def listen(self, path: Path) -> None:
        """Returns when anybody can ask. SystemExit when the address cannot be had."""
        path.unlink(missing_ok=True)
        await asyncio.start_unix_server(self._connected, path, limit=HEAD)
        path.chmod(0o600)
        if address:
            try:
                await asyncio.start_server(self._connected, *address, limit=HEAD)
            except OSError as error:
                raise SystemExit(f"metrics={address[0]}:{address[1]}: {error.strerror}") from None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request and its answer; then the connection ends."""
        self._slots -= 1
        try:
            async with asyncio.timeout(PATIENCE):
                if self._slots < 0:
                    writer.write(answer("503 Service Unavailable", "too many ask at the same time\n"))
                else:
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(await self._answer(head))
                await writer.drain()
                writer.write_eof()
                await reader.read(HEAD)  # until the other side has read it
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()  # it asks for nothing, or too much, or is gone
        finally:
            self._slots += 1
            writer.close()

    async def _answer(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return answer("400 Bad Request", "this is no HTTP/1.1\n")
        if words[0] not in (b"GET", b"HEAD"):
            return answer("405 Method Not Allowed", "only GET and HEAD\n")
        if words[1].partition(b"?")[0] != b"/metrics":
            return answer("404 Not Found", "metrics are at /metrics\n")
        text = exposition.text(self._work.state, await self._sample())
        whole = answer("200 OK", text, exposition.CONTENT_TYPE)
        return whole if words[0] == b"GET" else whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"

    async def _sample(self) -> list[ContainerStats] | None:
        """What the runtime said last, if that was just now; None when it cannot be reached."""
        async with self._asking:
            if time.monotonic() - self._asked > FRESH:
                try:
                    async for said in self._work.runtime.Stats(rt.StatsRequest(), timeout=PATIENCE / 2):
                        self._stats = [*said.stats]
                except grpc.aio.AioRpcError as error:
                    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                        raise
                    return None
                self._asked = time.monotonic()
            return self._stats


def answer(status: str, text: str, kind: str = "text/plain; charset=utf-8") -> bytes:
    """The whole of an answer."""
    body = text.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
