"""What a container reads and writes: a terminal, or pipes, of which standard input can be none."""

import os
import socket
from functools import partial
from typing import TYPE_CHECKING

from tinyo.v1.stdin_pb2 import STANDARD_INPUT_CLOSED

from tinyo_runtime import consoles, terminals
from tinyo_runtime.spawner import system

if TYPE_CHECKING:
    from tinyo_runtime.options import Start

#: What a terminal measures before somebody sits at it.
ROWS, COLUMNS = 24, 80


async def part(start: "Start") -> None:
    """A further process has those of its client."""
    if start.joins:
        return
    if start.spec.tty:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        console = start.hand(theirs.detach())
        start.plan["terminal"] = {"console": console, "rows": ROWS, "columns": COLUMNS}
        start.plan["keep"] = [start.hand(ours.detach())]
        terminals.name_it(start.plan)
        (kept,) = start.plan["keep"]
        start.after.append(
            partial(consoles.take, start.containers.spawner, start.plan["id"], start.fds[kept])
        )
    elif start.spec.stdin == STANDARD_INPUT_CLOSED:
        start.plan["stdin"] = start.hand(nothing())


def nothing() -> int:
    """The host's /dev/null, by a mount of its own that is read-only: whoever has it can change neither its mode nor its
    owner, which are the host's (CVE-2025-31133)."""
    mount = system.host_null()
    try:
        return os.open(f"/proc/self/fd/{mount}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(mount)
