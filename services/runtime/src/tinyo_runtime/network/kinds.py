"""Published ports of other kinds: of one address of the host only, and of UDP. Each has a map of its own."""

from collections.abc import Iterable, Iterator

from tinyo.v1.container_pb2 import PROTOCOL_UDP, Port

#: One address before all of them; "insert" puts a rule in front of those that are there.
RULES = """
table ip {table} {{
  map pub_udp {{ type inet_service : ipv4_addr . inet_service; }}
  map pub_at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
}}
add rule ip {table} publish fib daddr type local dnat ip to udp dport map @pub_udp
insert rule ip {table} publish fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @pub_at
"""


def special(port: Port) -> bool:
    """Whether a port is of one of these kinds."""
    return port.protocol == PROTOCOL_UDP or not everywhere(port)


def everywhere(port: Port) -> bool:
    """Whether a port is published on every address of the host."""
    return port.host_ip in ("", "0.0.0.0", "::")


def elements(verb: str, table: str, address: str, ports: Iterable[Port]) -> Iterator[str]:
    """Commands that "add" or "delete" the published ports of these kinds."""
    for port in filter(special, ports):
        if ":" in port.host_ip and not everywhere(port):
            continue  # ipv6.py leads it
        protocol = "udp" if port.protocol == PROTOCOL_UDP else "tcp"
        name, at = ("udp", "") if everywhere(port) else ("at", f"{port.host_ip} . {protocol} . ")
        element = f"{at}{port.host_port} : {address} . {port.container_port}"
        yield f"{verb} element ip {table} pub_{name} {{ {element} }}"
