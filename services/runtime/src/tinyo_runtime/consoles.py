"""Terminals of containers: how their masters come to the runtime, and stay when it is restarted.

The first process of a container sends its master, before it execs, over a socket; the runtime's end of that is kept by
the spawner beside the pipes, and is never emptied but only looked into. So there is no moment in which the runtime
alone has the master: a runtime that is killed would hang up on the container (SIGHUP). When it has it, the spawner
gets the master itself to keep, and the rest is closed.
"""

import array
import contextlib
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tinyo_runtime import failures

if TYPE_CHECKING:
    from tinyo_runtime.spawnclient import SpawnClient

#: More than the message has in which a master comes.
MESSAGE = 256


def take(spawner: "SpawnClient", id: str, console: int) -> None:
    """A container that was started has its terminal instead of pipes. Raises TinyoError; it ends then."""
    process = spawner.processes[id]
    if (master := peek(console)) < 0:
        spawner.keeper.end(process)
        raise failures.old_spawner("`tty`", "tty")
    for fd in (process.stdin, process.stdout, process.stderr):
        os.close(fd)
    process.stdin, process.stdout, process.stderr = os.dup(master), master, -1
    spawner.keeper.adopt(process, keep=True)


def known(fds: Sequence[int]) -> list[int]:
    """Of what the spawner keeps of a process that we do not know: its pidfd, and what it reads from and writes to, -1
    where there is nothing. A console is among it when the last runtime was killed before it had taken the terminal."""
    pidfd, *kept = fds
    if len(kept) > 3:
        *pipes, console = kept
        master = peek(console)
        for fd in (*pipes, console):
            os.close(fd)
        kept = [os.dup(master), master]
    return [pidfd, *kept, -1, -1, -1][:4]


def peek(console: int) -> int:
    """A copy of the master that was sent; -1 when none was (recvmsg(2), MSG_PEEK)."""
    flags = socket.MSG_PEEK | socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    masters = array.array("i")
    with contextlib.suppress(BlockingIOError), socket.socket(fileno=os.dup(console)) as looked_into:
        for _, _, rights in looked_into.recvmsg(MESSAGE, socket.CMSG_SPACE(masters.itemsize), flags)[1]:
            masters.frombytes(rights)
    return masters[0] if masters else -1
