"""Published ports: what is no port, and which cannot be had at the same time."""

import ipaddress
from collections.abc import Iterator
from typing import Generic, TypeVar

from tinyo.v1.container_pb2 import PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_UNSPECIFIED, ContainerSpec, Port

T = TypeVar("T")
#: Ports of one container: each takes sockets of the host, so that nobody else takes it.
MOST = 1000


def address(text: str) -> str:
    """An address of the host as it is stored: "" is every one, and what is none stays as it is."""
    try:
        read = ipaddress.ip_address(text)
    except ValueError:
        return text
    return "" if read.is_unspecified else str(read)


def check(spec: ContainerSpec) -> Iterator[tuple[str, str]]:
    """What is wrong with the ports of a spec."""
    if len(spec.ports) > MOST:
        yield "ports", f"{len(spec.ports)} ports are published: at most {MOST} are possible"
    for index, port in enumerate(spec.ports[:MOST]):
        for field in ("host_port", "container_port"):
            if not 1 <= getattr(port, field) <= 65535:
                yield f"ports[{index}].{field}", f"port {getattr(port, field)} is not between 1 and 65535"
        if port.host_ip and not listened(port.host_ip):
            yield f"ports[{index}].host_ip", f"{port.host_ip!r} is no address that a port can be published on"
        if port.host_ip == "::1" and port.protocol == PROTOCOL_UDP:
            yield (
                f"ports[{index}].host_ip",
                "udp is not answered on ::1: publish it on 127.0.0.1, or on every address",
            )
        if port.protocol == PROTOCOL_UNSPECIFIED:
            yield f"ports[{index}].protocol", "the protocol is tcp or udp"


def listened(text: str) -> bool:
    """Whether it is an address that others can connect to: not one of a group, of IPv4 in IPv6, or of one interface."""
    try:
        read = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(read, ipaddress.IPv6Address):
        return not (read.ipv4_mapped or read.is_link_local or read.is_multicast or read.scope_id)
    return not read.is_multicast


class Used(Generic[T]):
    """Ports that are published, each with who says so."""

    def __init__(self) -> None:
        self._ports: dict[tuple[int, int], dict[str, T]] = {}

    def __bool__(self) -> bool:
        return bool(self._ports)

    def add(self, port: Port, holder: T) -> None:
        """It is published."""
        self._ports.setdefault(_number(port), {}).setdefault(port.host_ip, holder)

    def holder(self, port: Port) -> T | None:
        """Who has a port that cannot be published at the same time; None when nobody has."""
        held = self._ports.get(_number(port), {})
        for ip, holder in held.items():
            if not ip or not port.host_ip or ip == port.host_ip:
                return holder
        return None


def _number(port: Port) -> tuple[int, int]:
    return port.host_port, port.protocol or PROTOCOL_TCP
