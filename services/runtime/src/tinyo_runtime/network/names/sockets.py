"""The sockets of an instance that its containers' questions are led to: one port of the gateway's address.

It is not 53, which each instance would want, and so would a server of the host's own.
"""

import contextlib
import socket
from pathlib import Path

from tinyo_runtime.network.veth import GATEWAY

#: The address may be bound before there is a container (ip(7)).
IP_FREEBIND = 15
#: Ports that are tried until one is free for both.
TRIES = 16


class Sockets:
    """A port for UDP and TCP. What is under way when the runtime is restarted comes to the port of before, so that is
    remembered and had again if possible."""

    def __init__(self, record: Path) -> None:
        self._record = record
        self.udp = socket.socket(type=socket.SOCK_DGRAM)
        self.tcp = socket.socket()

    def bind(self) -> int:
        """The port. OSError when there is none."""
        wanted = [int(self._record.read_text())] if self._record.exists() else []
        for port in (*wanted, *[0] * TRIES):
            self._renew()
            with contextlib.suppress(OSError):
                self.udp.bind((GATEWAY, port))
                bound: int = self.udp.getsockname()[1]
                self.tcp.bind((GATEWAY, bound))
                self._record.write_text(str(bound))
                return bound
        raise OSError(f"no port of {GATEWAY} is free for names")

    def _renew(self) -> None:
        self.close(remove=False)
        self.udp, self.tcp = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
        for made in (self.udp, self.tcp):
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    def close(self, *, remove: bool) -> None:
        """Ends; with `remove` the port is forgotten."""
        self.udp.close()
        self.tcp.close()
        if remove:
            self._record.unlink(missing_ok=True)
