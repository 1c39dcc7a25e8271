"""Ports of the host that containers hold: kept by bound sockets, and answered on ::1.

nftables leads packets to containers before any socket sees them, so the socket that is bound here never
gets one. It is there so that another program gets EADDRINUSE, and so that we get it in time.
"""

import contextlib
import errno
import socket
from collections.abc import Iterator, Sequence

from tinyo.v1.container_pb2 import PROTOCOL_UDP, Port

from tinyo_runtime.network import errors, ipv6, kinds, loopback6
from tinyo_runtime.network.holders import holder


class Ports:
    """What each container holds."""

    def __init__(self) -> None:
        self._held: dict[str, contextlib.AsyncExitStack] = {}
        self._holders: dict[tuple[int, int, str], str] = {}

    async def hold(self, name: str, address: str, address6: str, ports: Sequence[Port]) -> None:
        """Takes the ports for a container, all or none. PORT_IN_USE names who has one."""
        async with contextlib.AsyncExitStack() as stack:
            for index, port in enumerate(ports):
                kind, field = _kind(port), f"ports[{index}].host_port"
                everywhere = kinds.everywhere(port)
                if ":" in port.host_ip and not everywhere and not address6:
                    raise errors.no_ipv6(port, field)
                stack.enter_context(self._bind(name, kind, port, field))
                if kind == socket.SOCK_STREAM and (everywhere or port.host_ip == ipv6.LOOPBACK):
                    addresses = [*filter(None, (address, address6))]
                    stack.push_async_callback(
                        await loopback6.listen(port.host_port, addresses, port.container_port)
                    )
            self._held[address] = stack.pop_all()

    @contextlib.contextmanager
    def _bind(self, name: str, kind: int, port: Port, field: str) -> Iterator[None]:
        key = kind, port.host_port, port.host_ip
        everywhere, six = kinds.everywhere(port), ":" in port.host_ip
        with socket.socket(socket.AF_INET6 if six and not everywhere else socket.AF_INET, kind) as bound:
            try:
                # With it, we ourselves can listen there too; nobody else can where one of both listens or does not say it.
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, port.host_ip == ipv6.LOOPBACK)
                bound.bind(("" if everywhere else port.host_ip, port.host_port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise errors.port_unusable(port, error, field) from error
                raise errors.port_in_use(port, self._holder(kind, port), field) from error
            self._holders[key] = name
            try:
                yield
            finally:
                self._holders.pop(key, None)

    def _holder(self, kind: int, port: Port) -> str:
        for (kind_held, port_held, ip), name in self._holders.items():
            if (kind_held, port_held) == (kind, port.host_port) and (
                ip == port.host_ip or {ip, port.host_ip} & {"", "0.0.0.0", "::"}
            ):
                return f"container {name}"
        return holder(kind, port.host_port)

    async def drop(self, address: str) -> None:
        """Undoes `hold`."""
        if stack := self._held.pop(address, None):
            await stack.aclose()

    async def close(self) -> None:
        """Drops everything."""
        for address in list(self._held):
            await self.drop(address)


def _kind(port: Port) -> int:
    return socket.SOCK_DGRAM if port.protocol == PROTOCOL_UDP else socket.SOCK_STREAM
