"""Messages between runtime and spawner: one JSON object a packet, descriptors beside it.

The socket is a SOCK_SEQPACKET unix socket, so a packet is whole or not there. What the messages
are is written down in docs/spawner-protocol.md.
"""

import array
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

VERSION = 1
MAX_BYTES = 1 << 20
MAX_FDS = 253  # SCM_MAX_FD of unix(7)

Message = dict[str, Any]


class ProtocolError(Exception):
    """What arrived is not a message of this protocol."""


def prepare(sock: socket.socket) -> None:
    """Lets a message of MAX_BYTES through (SO_SNDBUFFORCE needs CAP_NET_ADMIN)."""
    so_sndbufforce = 32
    sock.setsockopt(socket.SOL_SOCKET, so_sndbufforce, 2 * MAX_BYTES)


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Sends one message. ValueError when it is too large, BlockingIOError when the peer does not read."""
    text = json.dumps({"v": VERSION, **message}, separators=(",", ":"), ensure_ascii=False)
    data = text.encode(errors="surrogatepass")  # as large as it came; json.loads takes it
    if len(data) > MAX_BYTES or len(fds) > MAX_FDS:
        raise ValueError(f"{len(data)} bytes, {len(fds)} descriptors: too much for one message")
    beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], beside)


def receive(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """Receives one message and its descriptors (close-on-exec); None at the end of the connection."""
    room = socket.CMSG_SPACE(MAX_FDS * 4)
    data, beside, flags, _ = sock.recvmsg(MAX_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in beside:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if not data and not fds:
        return None
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ProtocolError("message too large")
        message = json.loads(data)
        if not isinstance(message, dict) or message.get("v") != VERSION:
            raise ProtocolError(f"not a message of version {VERSION}")
    except (ValueError, RecursionError, ProtocolError) as error:
        for fd in fds:
            os.close(fd)
        raise ProtocolError(str(error)) from error
    return message, list(fds)
