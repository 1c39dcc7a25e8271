"""Terminals of programs that are run in a container: the runtime has the master, the program the slave.

The master is both ways in one, so that there is no standard error; EIO is how it says that nobody has the slave any
more, and that comes at the latest when the program ends whose session it controls (credentials(7)).
"""

import fcntl
import os
import socket
import struct
import termios
from contextlib import AsyncExitStack
from typing import Any

from tinyo.v1.stream_pb2 import ExecSpec, TerminalSize

from tinyo_runtime import failures
from tinyo_runtime.spawnclient import Process, SpawnClient
from tinyo_runtime.spawner import protocol

#: As docker has it, unless the image or the container says another.
DEFAULT_TERM = "TERM=xterm"
#: What struct winsize takes.
MAX_SIZE = 0xFFFF


def ask(spec: ExecSpec, plan: dict[str, Any], fds: list[int], opened: AsyncExitStack) -> socket.socket | None:
    """Completes a plan for a program with a terminal; the socket that its master will come from."""
    if not spec.tty:
        return None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        opened.enter_context(end)
    ours.setblocking(False)
    rows, columns = measured(spec.size)
    plan["terminal"] = {"console": len(fds), "rows": rows, "columns": columns}
    fds.append(theirs.fileno())
    name_it(plan)
    return ours


def name_it(plan: dict[str, Any]) -> None:
    """Unless something else says what kind of terminal it is."""
    if not any(entry.startswith("TERM=") for entry in plan["env"]):
        plan["env"].append(DEFAULT_TERM)


def take(spawner: SpawnClient, process: Process, console: socket.socket | None) -> Process:
    """The process, which has its terminal instead of pipes. It was sent before the program began. Raises TinyoError."""
    if console:
        try:
            received = protocol.receive(console)
        except BlockingIOError:
            spawner.keeper.end(process)
            raise failures.old_spawner() from None
        assert received, "our end of the other side is still open"
        (master,) = received[1]
        os.close(process.stdin)
        os.close(process.stdout)
        process.stdin, process.stdout = os.dup(master), master
    return process


def resize(process: Process, size: TerminalSize) -> None:
    """Its window has another size, and who is in front hears of it (SIGWINCH). Without a terminal there is none."""
    if os.isatty(process.stdout):
        fcntl.ioctl(process.stdout, termios.TIOCSWINSZ, struct.pack("HHHH", *measured(size), 0, 0))


def measured(size: TerminalSize) -> tuple[int, int]:
    """Rows and columns, as many as there can be."""
    return min(size.rows, MAX_SIZE), min(size.columns, MAX_SIZE)


def end_of_file(process: Process) -> bytes:
    """What ends the input of a terminal that reads lines: Ctrl-D, unless the program chose another. Nothing for a pipe,
    whose end is enough, nor for a terminal that reads bytes, which has no end."""
    if not os.isatty(process.stdin):
        return b""
    settings = termios.tcgetattr(process.stdin)
    return settings[6][termios.VEOF] if settings[3] & termios.ICANON else b""
