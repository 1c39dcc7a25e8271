"""The runtime's end of the spawner's socket: starts it when there is none, and outlives it.

The spawner is no child that dies with the runtime: it has a session of its own, and a runtime that is
restarted finds it by its socket and is told every process with copies of its pipes. When it is the
spawner that died, a new one is started and told what the runtime still holds.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyo_runtime import lastwords
from tinyo_runtime.spawner import __main__ as spawner_program
from tinyo_runtime.spawner import protocol


@dataclass(frozen=True)
class Exit:
    """How a process ended: exit code, or -1 when nobody can say; the signal that ended it, or 0."""

    code: int
    signal: int


@dataclass
class Process:
    """A process that the spawner started. The descriptors are ours: its pidfd, and our ends of its pipes."""

    id: str
    pid: int
    pidfd: int
    stdin: int
    stdout: int
    stderr: int
    exited: asyncio.Future[Exit]

    def kill(self, signal_number: int) -> None:
        """Sends a signal; one that has ended needs none."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal_number)

    def close_stdin(self) -> None:
        """End of input."""
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def close(self) -> None:
        self.close_stdin()
        for fd in (self.pidfd, self.stdout, self.stderr):
            if fd >= 0:
                os.close(fd)


class SpawnError(Exception):
    """A step of the spawner failed: which, with what errno (0: none), about what."""

    def __init__(self, step: str, errno: int, about: str) -> None:
        super().__init__(f"{step}: {about}: {os.strerror(errno) if errno else ''}")
        self.step, self.errno, self.about = step, errno, about


class SpawnClient:
    """Starts processes and tells how they ended. In an empty `folder` their roots are mounted; with `ready` a
    process waits for the next container."""

    def __init__(self, path: Path, folder: Path, *, ready: bool) -> None:
        self._path = path
        self._arguments = [str(folder), *(["ready"] if ready else [])]
        self._sock: socket.socket | None = None
        self._starting: dict[str, tuple[Process, asyncio.Future[Process]]] = {}
        self._ready = asyncio.Event()
        self._outgoing: deque[tuple[protocol.Message, Sequence[int]]] = deque()
        self._child: subprocess.Popen[bytes] | None = None
        #: Every process that the spawner told us and that was not forgotten.
        self.processes: dict[str, Process] = {}

    async def open(self) -> None:
        """Connects, with a new spawner when there is none; returns when every process is known."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(str(self._path))
        except (FileNotFoundError, ConnectionRefusedError):
            self._launch()
            sock.connect(str(self._path))
        protocol.prepare(sock)
        sock.setblocking(False)
        self._sock = sock
        self._ready.clear()
        asyncio.get_running_loop().add_reader(sock.fileno(), self._read)
        await self._ready.wait()

    def _launch(self) -> None:
        """Execs a spawner that listens on our path."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with listener:
            listener.bind(str(self._path))
            os.chmod(self._path, 0o600)
            listener.listen(1)
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", str(spawner_program.__file__), *self._arguments],
                stdin=listener.fileno(),
                start_new_session=True,
                cwd="/",
                env={"LANG": "C.UTF-8"},
            )

    async def start(self, plan: protocol.Message, fds: Sequence[int], *, keep: bool) -> Process:
        """Starts one process: a plan as in spawner/enter.py, descriptors named by their index in `fds`.

        With `keep` its pipes outlive us. Raises SpawnError when a step failed; nothing is left then.
        """
        loop = asyncio.get_running_loop()
        stdin, our_stdin = os.pipe2(os.O_CLOEXEC)
        our_stdout, stdout = os.pipe2(os.O_CLOEXEC)
        our_stderr, stderr = os.pipe2(os.O_CLOEXEC)
        theirs, ours = (stdin, stdout, stderr), (our_stdin, our_stdout, our_stderr)
        process = Process(plan["id"], 0, -1, *ours, loop.create_future())
        started: asyncio.Future[Process] = loop.create_future()
        self._starting[process.id] = process, started
        first = len(fds)
        plan |= {"stdio": [first, first + 1, first + 2], "keep": []}
        if keep:
            plan["keep"] = [first + 3, first + 4, first + 5]
        try:
            self._send({"op": "start", "processes": [plan]}, (*fds, *theirs, *(ours if keep else ())))
            return await started
        except BaseException:
            process.close()
            raise
        finally:
            for fd in theirs:
                os.close(fd)
            del self._starting[process.id]

    def forget(self, id: str) -> None:
        """Closes a process's descriptors, here and in the spawner."""
        if process := self.processes.pop(id, None):
            process.close()
            if self._sock:  # a spawner that died has forgotten anyway
                self._send({"op": "forget", "id": id})

    def _send(self, message: protocol.Message, fds: Sequence[int] = ()) -> None:
        """Queues a message; order is kept. Its descriptors must stay open until it is answered."""
        if not self._sock:
            raise SpawnError("reach the spawner", 0, str(self._path))
        self._outgoing.append((message, fds))
        if len(self._outgoing) == 1:
            self._flush()

    def _flush(self) -> None:
        """Sends what is queued, as far as the socket takes it, and comes back when it takes more."""
        assert self._sock
        loop = asyncio.get_running_loop()
        loop.remove_writer(self._sock.fileno())
        while self._outgoing:
            try:
                protocol.send(self._sock, *self._outgoing[0])
            except BlockingIOError:
                loop.add_writer(self._sock.fileno(), self._flush)
                return
            except ConnectionError:
                self._outgoing.clear()  # what was to be answered fails when the end is read
                return
            self._outgoing.popleft()

    def _read(self) -> None:
        assert self._sock
        try:
            received = protocol.receive(self._sock)
        except BlockingIOError:
            return
        except ConnectionError:
            received = None
        if received is None:
            self._lost()
            return
        message, fds = received
        id = message["id"]
        match message["op"]:
            case "ready":
                self._ready.set()
            case "started":
                self._started(id, message["pid"], fds)
            case "failed":
                error = SpawnError(message["step"], message["errno"], message["object"])
                self._failed(id, error)
            case "exited":
                if (process := self.processes.get(id)) and not process.exited.done():
                    status, signaled = message["status"], message["signaled"]
                    if status < 0:  # it was never the spawner's child
                        status, signaled = lastwords.status_of(process.pid, process.pidfd) or (-1, False)
                    process.exited.set_result(Exit(128 + status, status) if signaled else Exit(status, 0))

    def _started(self, id: str, pid: int, fds: list[int]) -> None:
        if id in self._starting:
            process, started = self._starting[id]
            process.pid, process.pidfd = pid, fds[0]
            self.processes[id] = process
            if not started.done():  # else its start was cancelled
                started.set_result(process)
        elif id not in self.processes and len(fds) == 4:  # from before our time
            exited = asyncio.get_running_loop().create_future()
            pidfd, stdin, stdout, stderr = fds
            self.processes[id] = Process(id, pid, pidfd, stdin, stdout, stderr, exited)
        else:
            for fd in fds:
                os.close(fd)

    def _failed(self, id: str, error: SpawnError) -> None:
        if id in self._starting and not self._starting[id][1].done():
            self._starting[id][1].set_exception(error)

    def _lost(self) -> None:
        """The spawner died. Its processes live: a new spawner gets what we hold of them."""
        assert self._sock
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sock.fileno())
        loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._sock = None
        self._outgoing.clear()
        for id in self._starting:
            self._failed(id, SpawnError("reach the spawner", 0, "it died"))
        self._reopening = asyncio.ensure_future(self._reopen())

    async def _reopen(self) -> None:
        if self._child and self._child.poll() is not None:  # the connection may have ended otherwise
            await asyncio.to_thread(lastwords.reap_session, self._child.pid)
        await self.open()
        for process in list(self.processes.values()):
            self.adopt(process)

    def close(self) -> None:
        """Leaves the spawner, which ends when it has no processes."""
        if self._sock:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def adopt(self, process: Process) -> None:
        """Hands a process to the spawner that the spawner does not know."""
        self.processes[process.id] = process
        fds = (process.pidfd, process.stdin, process.stdout, process.stderr)
        self._send({"op": "adopt", "id": process.id, "pid": process.pid}, fds)
