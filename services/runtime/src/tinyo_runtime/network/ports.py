"""Ports of the host that containers hold: kept by bound sockets, and answered on ::1.

nftables leads packets to containers before any socket sees them, so the socket that is bound here never
gets one. It is there so that another program gets EADDRINUSE, and so that we get it in time.
"""

import contextlib
import errno
import socket
from collections.abc import Iterator

import grpc
from tinyo.v1.container_pb2 import PROTOCOL_UDP, Port

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.network import loopback6
from tinyo_runtime.network.holders import holder


class Ports:
    """What each container holds."""

    def __init__(self) -> None:
        self._held: dict[str, contextlib.AsyncExitStack] = {}
        self._holders: dict[tuple[int, int], str] = {}

    async def hold(self, name: str, address: str, ports: list[Port]) -> None:
        """Takes the ports for a container, all or none. PORT_IN_USE names who has one."""
        async with contextlib.AsyncExitStack() as stack:
            for index, port in enumerate(ports):
                kind = socket.SOCK_DGRAM if port.protocol == PROTOCOL_UDP else socket.SOCK_STREAM
                stack.enter_context(self._bind(name, kind, port, f"ports[{index}].host_port"))
                if kind == socket.SOCK_STREAM and port.host_ip in ("", "0.0.0.0"):
                    stack.push_async_callback(
                        await loopback6.listen(port.host_port, address, port.container_port)
                    )
            self._held[name] = stack.pop_all()

    @contextlib.contextmanager
    def _bind(self, name: str, kind: int, port: Port, field: str) -> Iterator[None]:
        key = kind, port.host_port
        with socket.socket(socket.AF_INET, kind) as bound:
            try:
                bound.bind((port.host_ip, port.host_port))
            except OSError as error:
                raise self._taken(error, kind, port, field) from error
            self._holders[key] = name
            try:
                yield
            finally:
                self._holders.pop(key, None)

    def _taken(self, error: OSError, kind: int, port: Port, field: str) -> TinyoError:
        other = self._holders.get((kind, port.host_port))
        if error.errno != errno.EADDRINUSE:
            text = f"port {port.host_port} of {port.host_ip or 'the host'} cannot be used: {error.strerror}"
            return TinyoError(
                grpc.StatusCode.FAILED_PRECONDITION, "PORT_IN_USE", text, {"port": str(port.host_port)}, field
            )
        who = f"container {other}" if other else holder(kind, port.host_port)
        text = f"port {port.host_port} of the host is used by {who}: choose another, or end that one"
        what = {"port": str(port.host_port), "holder": who}
        return TinyoError(grpc.StatusCode.FAILED_PRECONDITION, "PORT_IN_USE", text, what, field)

    def held(self) -> list[str]:
        """Names of the containers that hold ports."""
        return list(self._held)

    async def drop(self, name: str) -> None:
        """Undoes `hold`."""
        if stack := self._held.pop(name, None):
            await stack.aclose()
