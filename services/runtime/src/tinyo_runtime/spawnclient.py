"""The runtime's end of the spawner's socket: starts the spawner when there is none, and outlives it.

The spawner is no child that dies with the runtime: it has a session of its own, and a runtime that is
restarted finds it by its socket. What follows from that stands in `reconnect`. The messages are written down
in docs/spawner-protocol.md.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tinyo.v1.container_pb2 import ExitStatus

from tinyo_runtime import failures, lastwords, reconnect
from tinyo_runtime.spawner import protocol

#: Messages of the spawner, with the descriptors that came beside them.
News = asyncio.Queue[tuple[protocol.Message, list[int]]]


@dataclass
class Process:
    """A process that the spawner started. The descriptors are ours: its pidfd, and our ends of its pipes;
    -1 is none."""

    id: str
    pid: int
    pidfd: int
    stdin: int
    stdout: int
    stderr: int
    #: Whoever may be cancelled while waiting for it shields it.
    exited: asyncio.Future[ExitStatus] = field(init=False)

    def kill(self, signal_number: int) -> None:
        """Sends a signal; one that has ended needs none."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal_number)


class SpawnClient:
    """Starts processes and tells how they ended. In an empty `folder` their roots are mounted; with `ready` a
    process waits for the next container."""

    def __init__(self, path: Path, folder: Path, *, ready: bool) -> None:
        self.path = path
        self.arguments = [str(folder), *(["ready"] if ready else [])]
        #: Every process that was started and not forgotten.
        self.processes: dict[str, Process] = {}
        #: What the spawner says of each; of itself it speaks as "".
        self.news: dict[str, News] = {}
        self.child: subprocess.Popen[bytes] | None = None
        self.keeper = reconnect.Keeper(self)

    async def open(self) -> None:
        """Connects, with a new spawner when there is none; returns when every process is known."""
        self.sock = self.keeper.connected() or self._launch()
        protocol.prepare(self.sock)
        self.sock.setblocking(False)
        self.news[""] = News()
        asyncio.get_running_loop().add_reader(self.sock, self._read)
        self.keeper.met(*await self.news[""].get())

    def _launch(self) -> socket.socket:
        """Execs a spawner that listens on our path, and connects."""
        program = Path(protocol.__file__).with_name("__main__.py")
        command = [sys.executable, "-I", "-S", str(program), *self.arguments]
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(self.path))
            self.path.chmod(0o600)
            listener.listen(1)
            self.child = subprocess.Popen(
                command, stdin=listener.fileno(), start_new_session=True, cwd="/", env={"LANG": "C.UTF-8"}
            )
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(str(self.path))
        return sock

    async def start(self, plan: protocol.Message, fds: Sequence[int], *, keep: bool) -> Process:
        """Starts one process: a plan as in spawner/enter.py, descriptors named by their index in `fds`.

        With `keep` its pipes outlive us. Raises SpawnError when a step failed; nothing is left then. What was
        sent cannot be taken back: whoever may be cancelled shields this call.
        """
        stdin, our_stdin = os.pipe2(os.O_CLOEXEC)
        our_stdout, stdout = os.pipe2(os.O_CLOEXEC)
        our_stderr, stderr = os.pipe2(os.O_CLOEXEC)
        theirs, ours = (stdin, stdout, stderr), (our_stdin, our_stdout, our_stderr)
        numbers = range(len(fds), len(fds) + 6)
        kept = [*numbers[3:], *plan.get("keep", ())] if keep else []
        plan |= {"stdio": [plan.pop("stdin", numbers[0]), *numbers[1:3]], "keep": kept}
        news = self.news[plan["id"]] = News()
        try:
            self.send({"op": "start", "processes": [plan]}, (*fds, *theirs, *ours))
            message, pidfds = await news.get()
            if message["op"] == "failed":
                raise failures.SpawnError(message["step"], message["errno"], message["object"])
        except BaseException:
            self.news.pop(plan["id"], None)
            close(*ours)
            raise
        finally:
            close(*theirs)
        return self.hold(plan["id"], message["pid"], pidfds[0], *ours)

    def hold(self, id: str, pid: int, pidfd: int, stdin: int, stdout: int, stderr: int) -> Process:
        """A process that is there until it is forgotten; its end will be among the news of it."""
        process = self.processes[id] = Process(id, pid, pidfd, stdin, stdout, stderr)
        process.exited = asyncio.ensure_future(self._exit(process, self.news.setdefault(id, News())))
        return process

    async def _exit(self, process: Process, news: News) -> ExitStatus:
        message, _ = await news.get()
        lastwords.complete(message, process)
        code, by_signal = message["status"], message["signaled"]
        return ExitStatus(code=128 + code, signal=code) if by_signal else ExitStatus(code=code)

    def forget(self, id: str) -> None:
        """Closes the descriptors of a process that has ended, here and in the spawner."""
        process = self.processes.pop(id)
        close(process.pidfd, process.stdin, process.stdout, process.stderr)
        self.news.pop(id, None)
        self.send({"op": "forget", "id": id})

    def send(self, message: protocol.Message, fds: Sequence[int] = ()) -> None:
        """Sends a message, in its turn; its descriptors may be closed afterwards."""
        if not self.keeper.holds(message, fds):
            with contextlib.suppress(ConnectionError):  # its end will be read, and who waits is told then
                protocol.send(self.sock, message, fds)

    def _read(self) -> None:
        """One message of the spawner, for whoever waits for it."""
        received = None
        with contextlib.suppress(ConnectionError):
            received = protocol.receive(self.sock)
        if received and received[0]["id"] in self.news:
            self.news[received[0]["id"]].put_nowait(received)
        else:
            self.keeper.unexpected(received)


def close(*fds: int) -> None:
    """Closes descriptors; -1 is none."""
    for fd in {*fds} - {-1}:
        os.close(fd)
