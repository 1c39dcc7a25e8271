"""Messages between runtime and spawner: one JSON object a packet, descriptors beside it.

The socket is a SOCK_SEQPACKET unix socket, so a packet is whole or not there. What the messages
are is written down in docs/spawner-protocol.md.
"""

import array
import json
import socket
from collections.abc import Sequence
from typing import Any

from tinyo_runtime.spawner import failures

VERSION = 1
MAX_BYTES = 1 << 20
MAX_FDS = 253  # SCM_MAX_FD of unix(7)
SO_SNDBUFFORCE = 32

Message = dict[str, Any]


def prepare(sock: socket.socket) -> None:
    """Lets a message of MAX_BYTES through (socket(7): needs CAP_NET_ADMIN)."""
    sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 2 * MAX_BYTES)


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Sends one message. OSError EMSGSIZE when it is too large, BlockingIOError when the peer does not read."""
    text = json.dumps({"v": VERSION, **message}, separators=(",", ":"), ensure_ascii=False)
    data = text.encode(errors="surrogatepass")  # as large as it came; json.loads takes it
    if len(data) > MAX_BYTES or len(fds) > MAX_FDS:
        raise failures.too_large(data, fds)
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])


def receive(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """Receives one message and its descriptors (close-on-exec); None at the end of the connection."""
    room = socket.CMSG_SPACE(MAX_FDS * 4)
    data, beside, flags, _ = sock.recvmsg(MAX_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for _, _, rights in beside:  # SCM_RIGHTS is all that can come here
        fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
    if not data and not fds:
        return None
    with failures.understood(fds):
        message = json.loads(data)
        failures.check(message, VERSION, flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC))
    return message, list(fds)
