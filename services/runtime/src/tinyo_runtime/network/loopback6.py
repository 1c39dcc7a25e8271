"""Published ports on ::1: `localhost` often means that first, and nftables cannot lead it elsewhere.

IPv6 has no route_localnet, so what arrives on [::1] is passed on to the container, over IPv4 if it listens there.
"""

import asyncio
import contextlib
import errno
import logging
from collections.abc import Awaitable, Callable, Sequence

log = logging.getLogger(__name__)

CHUNK = 65536


async def listen(port: int, addresses: Sequence[str], to: int) -> Callable[[], Awaitable[None]]:
    """Answers on [::1]:port until the result is called. A host without IPv6, or whose ::1 somebody else
    answers for, has no need of it."""
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        connections.add(task)
        task.add_done_callback(connections.discard)
        for address in addresses:
            with contextlib.suppress(OSError):
                there = await asyncio.open_connection(address, to)
                break
        else:
            writer.transport.abort()  # the container does not listen: refused, as over IPv4
            return
        try:
            await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))
        finally:
            for end in (writer, there[1]):
                end.transport.abort()

    try:
        server = await asyncio.start_server(serve, "::1", port, limit=CHUNK)
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EADDRINUSE):
            raise
        log.warning("[::1]:%d is not answered: %s", port, error.strerror)
        return _nothing

    async def close() -> None:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    return close


async def _nothing() -> None:
    pass


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction until its end, which is passed on as such; the other direction goes on."""
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except ConnectionError:
        writer.transport.abort()
