"""What outlives a connection to the spawner: messages that wait for their turn, and processes.

A spawner that lives tells a new runtime every process with copies of its pipes. When it is the spawner
that died, a new one is started and told what the runtime still holds.
"""

import asyncio
import os
import select
import signal
import socket
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tinyo_runtime import consoles, lastwords
from tinyo_runtime.spawner import fields, protocol

if TYPE_CHECKING:
    from tinyo_runtime.spawnclient import News, Process, SpawnClient


class Keeper:
    """Stands by a client of the spawner."""

    def __init__(self, client: "SpawnClient") -> None:
        self._client = client
        #: Messages that the spawner does not take yet, in their order, with descriptors of our own.
        self._waiting: deque[tuple[protocol.Message, list[int]]] = deque()
        #: The present or last attempt to connect again; what the last connection told, until it has succeeded.
        self.reopening: asyncio.Future[None] | None = None
        self._before: dict[str, News] = {}
        #: What plans for the spawner that runs can say.
        self.fields: frozenset[str] = frozenset()

    def met(self, message: protocol.Message, _: Sequence[int]) -> None:
        """The spawner is there, and says what it knows. One of before it could, knows what there was then."""
        if message:
            self.fields = frozenset(message.get("fields", fields.PLAN))

    def reap(self) -> None:
        """A child of ours ended, which may be an orphan of a spawner that died."""
        lastwords.reap_strangers({process.pid for process in self._client.processes.values()})

    def connected(self) -> socket.socket | None:
        """A new connection to a spawner that lives, or None."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(str(self._client.path))
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            self._client.path.unlink(missing_ok=True)
            return None
        return sock

    def holds(self, message: protocol.Message, fds: Sequence[int]) -> bool:
        """True when a message is not to be sent now: it is when those before it were, or there is nobody to
        send it to, and then whoever waits for its answer is told."""
        if self._client.sock.fileno() < 0:
            for id in awaited(message):
                self._fail(id)
            return True
        if self._waiting or not self._writable():
            self._waiting.append((message, [os.dup(fd) for fd in fds]))
            asyncio.get_running_loop().add_writer(self._client.sock, self._flush)
            return True
        return False

    def _writable(self) -> bool:
        poll = select.poll()
        poll.register(self._client.sock, select.POLLOUT)
        return bool(poll.poll(0))

    def _flush(self) -> None:
        """Sends one message more. When the connection has ended that is read as well, and answers them all."""
        try:
            protocol.send(self._client.sock, *self._waiting[0])
        except BlockingIOError:
            return
        except ConnectionError:
            self._drop()
        except OSError as error:  # this one is too large
            message, fds = self._waiting.popleft()
            close(fds)
            for id in awaited(message):
                self._fail(id, str(error))
        else:
            close(self._waiting.popleft()[1])
        if not self._waiting:
            asyncio.get_running_loop().remove_writer(self._client.sock)

    def _drop(self) -> None:
        while self._waiting:
            close(self._waiting.popleft()[1])

    def unexpected(self, received: tuple[protocol.Message, list[int]] | None) -> None:
        """The connection ended; or the spawner tells of a process from before it, which we know or not."""
        if received is None:
            return self._lost()
        message, fds = received
        id = message["id"]
        if message["op"] == "started" and id not in self._client.processes:
            self._client.hold(id, message["pid"], *consoles.known(fds))
        elif message["op"] == "exited" and id in self._before:
            self._before[id].put_nowait(received)
        else:
            close(fds)
        return None

    def _lost(self) -> None:
        """Most likely the spawner died. Its processes live."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._client.sock)
        loop.remove_writer(self._client.sock)
        self._client.sock.close()
        self._drop()
        for id in set(self._client.news) - {"", *self._client.processes}:
            self._fail(id)
        self._before |= self._client.news
        self._client.news = {}
        self.reopening = asyncio.ensure_future(self._reopen())

    def _fail(self, id: str, why: str = "it died") -> None:
        """A process could not be started because the spawner was not told."""
        what = {"step": "reach the spawner", "errno": 0, "object": why}
        self._client.news[id].put_nowait(({"op": "failed", **what}, []))

    async def _reopen(self) -> None:
        """Connects again, with a new spawner if need be, and hands it what we hold. What it has that we do not
        know was started by a call that failed meanwhile."""
        child, known, before = self._client.child, dict(self._client.processes), self._before
        if child and child.poll() is not None:  # the connection may have ended otherwise
            await asyncio.to_thread(lastwords.reap_session, child.pid)
        await self._client.open()
        self._before = {}
        for id, process in list(self._client.processes.items()):
            if process is known.get(id):
                self._client.news[id] = before[id]
                self.adopt(process)
            else:
                self.end(process)
        before[""].put_nowait(({}, []))  # for whoever opened the connection that was lost

    def adopt(self, process: "Process", *, keep: bool = False) -> None:
        """Hands a process to the spawner that the spawner does not know; or, with `keep`, descriptors of one that it
        knows, to be kept instead of those that it has."""
        fds = (process.pidfd, process.stdin, process.stdout, process.stderr)
        self._client.send(
            {"op": "adopt", "id": process.id, "pid": process.pid, "keep": keep},
            [fd for fd in fds if fd >= 0],
        )

    def end(self, process: "Process") -> None:
        """Kills a process. It is forgotten when it has ended and not before, since the spawner does not wait
        for what it has forgotten; and a container does not end before everything that joined it was waited
        for."""
        process.kill(signal.SIGKILL)
        process.exited.add_done_callback(lambda _: self._client.forget(process.id))


def awaited(message: protocol.Message) -> list[str]:
    """The ids in a message that somebody awaits an answer about."""
    own = [message["id"]] if message["op"] == "userns" else []
    return own + [plan["id"] for plan in message.get("processes", ())]


def close(fds: Sequence[int]) -> None:
    """Closes descriptors."""
    for fd in fds:
        os.close(fd)
