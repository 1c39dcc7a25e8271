"""The processes that unpack are forked from one that is ready while layers come: starting each anew takes long."""

import asyncio
import contextlib
import os
import signal
import socket
from array import array
from asyncio.subprocess import PIPE, Process
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from tinyo_runtime.images.image import Document
    from tinyo_runtime.images.reference import Reference
    from tinyo_runtime.images.store import Images as Base
else:
    Base = object


class Nursed(Base):
    """Unpacks in children of a nursery, which is there as long as anything is unpacked."""

    def __init__(self) -> None:
        super().__init__()
        self._nursery: Nursery | None = None
        self._unpacking = 0
        self._turn = asyncio.Lock()

    async def unpack(self, reference: "Reference", layer: "Document", diff_id: str, folder: Path) -> bytes:
        """The same last word."""
        self._unpacking += 1
        try:
            return await super().unpack(reference, layer, diff_id, folder)
        finally:
            self._unpacking -= 1
            if not self._unpacking:
                nursery, self._nursery = self._nursery, None
                if nursery:
                    await nursery.close()

    async def unpacker(self, *arguments: str, stdin: int = PIPE) -> Process:
        """What is like the same process. Raises OSError."""
        birth = asyncio.create_task(self._child(*arguments))
        try:
            return cast(Process, await asyncio.shield(birth))
        except asyncio.CancelledError:
            await asyncio.wait([birth])  # whoever is born has to end before its folder does
            if not birth.exception():
                birth.result().kill()
                await birth.result().wait()
            raise

    async def _child(self, *arguments: str) -> "Child":
        async with self._turn:
            if not self._nursery:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    process = await super().unpacker(stdin=theirs.fileno())
                ours.setblocking(False)
                self._nursery = Nursery(process, ours)
            try:
                return await self._nursery.child(*arguments)
            except OSError as error:
                nursery, self._nursery = self._nursery, None
                await nursery.close()
                raise ChildProcessError("the process from which unpackers are forked has ended") from error


class Nursery:
    """The runtime's side of `tinyo_runtime.unpack.nursery`."""

    def __init__(self, process: Process, requests: socket.socket) -> None:
        self._process, self._requests = process, requests

    async def child(self, *arguments: str) -> "Child":
        """The next child. Raises OSError."""
        with ExitStack() as undo:
            stdin, its_stdin, stdout, its_stdout = map(
                undo.enter_context, (*socket.socketpair(), *socket.socketpair())
            )
            passed = array("i", [its_stdin.fileno(), its_stdout.fileno()])
            self._requests.sendmsg(
                ["\0".join(arguments).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)]
            )
            await _readable(self._requests.fileno())
            _, ancillary, _, _ = self._requests.recvmsg(1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
            if not ancillary:
                raise BrokenPipeError
            (pidfd,) = array("i", ancillary[0][2])
            undo.pop_all()
        its_stdin.close()
        its_stdout.close()
        _, writer = await asyncio.open_connection(sock=stdin)
        return Child(pidfd, writer, await asyncio.open_connection(sock=stdout))

    async def close(self) -> None:
        """Ends it, with all children."""
        self._requests.close()
        await self._process.wait()


class Child:
    """A process of the nursery, as far as it is like asyncio's."""

    def __init__(
        self,
        pidfd: int,
        stdin: asyncio.StreamWriter,
        stdout: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.stdin, self._stdout = stdin, stdout
        self._pidfd = pidfd
        #: None while it runs; negative when a signal ended it, as far as that can be known.
        self.returncode: int | None = None

    @property
    def pid(self) -> int:
        """Its process id while it runs, as the kernel says it of the pidfd; -1 when it has ended (pidfd_open(2))."""
        with open(f"/proc/self/fdinfo/{self._pidfd}", "rb") as facts:
            return int(dict(line.split(b":") for line in facts)[b"Pid"])

    async def communicate(self, input: bytes) -> tuple[bytes, None]:
        """What it said, when it has ended."""
        reader, writer = self._stdout
        try:
            return await reader.read(), None
        finally:
            writer.close()

    async def wait(self) -> None:
        """Returns when it has ended."""
        if self.returncode is None:
            await _readable(self._pidfd)
            code = self._exit_code()
            with contextlib.suppress(ChildProcessError):  # it is ours only if the nursery died before it
                os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
            os.close(self._pidfd)
            self.returncode = code

    def _exit_code(self) -> int:
        """Of a process that has ended, while nobody has waited for it (proc_pid_stat(5), the last field)."""
        try:
            status = int(Path(f"/proc/{self.pid}/stat").read_text().split()[-1])
        except (FileNotFoundError, ProcessLookupError):
            return 0
        return os.waitstatus_to_exitcode(status)

    def kill(self) -> None:
        """Ends it; nobody hears what it would say."""
        self.stdin.transport.abort()
        self._stdout[1].close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


async def _readable(descriptor: int) -> None:
    """Returns when there is something to be read."""
    loop, found = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, found.set)
    try:
        await found.wait()
    finally:
        loop.remove_reader(descriptor)
