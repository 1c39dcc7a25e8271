"""Checks that run a program in the container, which may do anything."""

import asyncio
import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyo.runtime.v1.runtime_pb2 import ExecStart
from tinyo.v1.stream_pb2 import ExecSpec

from tinyo_runtime.health.verdict import OUTPUT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinyo_runtime.containers import Container, Containers
    from tinyo_runtime.spawnclient import Process

#: Bytes that a check may write: what is more than is kept is read, so that it need not wait, and thrown away.
MOST, CHUNK = 1 << 20, 64 << 10
#: How often processes of a check are looked for that were born while they were killed.
ROUNDS = 16
#: Looks for them: a container may have a great many processes.
_killer = ThreadPoolExecutor(1, "health")


class TooMuch(Exception):
    """It wrote more than a check may write."""


async def run(
    containers: "Containers", container: "Container", command: "Sequence[str]"
) -> tuple[int, bytes]:
    """Exit code and output of a program. TinyoError when it cannot be run; TooMuch. Cancelled, or with an error, it leaves
    no process of its session."""
    from tinyo_runtime import execs  # which is made of what starts us

    request = ExecStart(id=container.config.id, exec=ExecSpec(command=command))
    process = await execs.started(containers, request)
    output = Output(process)
    try:
        execs.close_input(process)
        either: set[asyncio.Future[Any]] = {process.exited, output.excess}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not process.exited.done():
            raise TooMuch
        output.read_rest()
        return process.exited.result().code, bytes(output.kept)
    except BaseException:
        process.kill(signal.SIGKILL)
        cgroup, loop = containers.cgroups.roots[0] / container.config.id, asyncio.get_running_loop()
        await asyncio.shield(loop.run_in_executor(_killer, end_session, cgroup, process.pid))
        raise
    finally:
        output.close()
        containers.spawner.keeper.end(process)


class Output:
    """What a process writes, both streams together as they come."""

    def __init__(self, process: "Process") -> None:
        self.kept, self._size = bytearray(), 0
        self._loop = asyncio.get_running_loop()
        #: Done when it wrote too much.
        self.excess: asyncio.Future[None] = self._loop.create_future()
        self._open = {process.stdout, process.stderr}
        for fd in self._open:
            os.set_blocking(fd, False)
            self._loop.add_reader(fd, self._read, fd)

    def _read(self, fd: int) -> bool:
        """Reads once; whether there may be more."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        self.kept += data[: OUTPUT - len(self.kept)]
        self._size += len(data)
        if not data or self._size > MOST:
            self._forget(fd)
        if self._size > MOST and not self.excess.done():
            self.excess.set_result(None)
        return fd in self._open

    def read_rest(self) -> None:
        """What the process had written when it ended; others may have its pipes, and go on."""
        for fd in list(self._open):
            while len(self.kept) < OUTPUT and self._read(fd):
                pass

    def _forget(self, fd: int) -> None:
        if fd in self._open:
            self._open.discard(fd)
            self._loop.remove_reader(fd)

    def close(self) -> None:
        """Nothing more is read."""
        for fd in list(self._open):
            self._forget(fd)


def end_session(cgroup: Path, session: int) -> None:
    """Kills all that a program started, as far as that stayed in its session (setsid(2)). Who left it, as daemons do,
    belongs to the container from then on, and ends with it."""
    for _ in range(ROUNDS):
        if not sum(_kill(pid, session) for pid in _members(cgroup)):
            return


def _members(cgroup: Path) -> list[int]:
    """The processes of a cgroup; none when it is gone."""
    with contextlib.suppress(OSError):
        return [pid for line in (cgroup / "cgroup.procs").read_text().split() if (pid := int(line))]
    return []


def _kill(pid: int, session: int) -> bool:
    """Kills a process if it belongs to the session; whether it did and lived."""
    with contextlib.suppress(OSError):  # it has ended
        if not _belongs(pid, session):
            return False
        pidfd = os.pidfd_open(pid)
        try:
            if _belongs(pid, session):  # it was this one that we opened
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return True
        finally:
            os.close(pidfd)
    return False


def _belongs(pid: int, session: int) -> bool:
    """Whether a process lives and is of that session (proc_pid_stat(5))."""
    state, _, _, its_session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
    return int(its_session) == session and state not in ("Z", "X")
