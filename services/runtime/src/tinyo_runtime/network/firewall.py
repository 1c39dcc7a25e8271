"""The one nftables table of an instance: published ports are elements of its maps, containers of its set."""

from collections.abc import Iterable

from tinyo.v1.container_pb2 import PROTOCOL_UDP, Port

from tinyo_runtime.network.nft import Nftables

TABLE = """
add table ip {table}
delete table ip {table}
table ip {table} {{
  set own {{ type ifname . ipv4_addr; }}
  map pub_tcp {{ type inet_service : ipv4_addr . inet_service; }}
  map pub_udp {{ type inet_service : ipv4_addr . inet_service; }}
  map pub_tcp_at {{ type ipv4_addr . inet_service : ipv4_addr . inet_service; }}
  map pub_udp_at {{ type ipv4_addr . inet_service : ipv4_addr . inet_service; }}
  chain published {{
    fib daddr type local dnat ip to ip daddr . tcp dport map @pub_tcp_at
    fib daddr type local dnat ip to tcp dport map @pub_tcp
    fib daddr type local dnat ip to ip daddr . udp dport map @pub_udp_at
    fib daddr type local dnat ip to udp dport map @pub_udp
  }}
  chain raw {{
    type filter hook prerouting priority raw
    iifname != "lo" ip daddr 127.0.0.0/8 drop
    iifname "{prefix}*" iifname . ip saddr != @own drop
    iifname "{prefix}*" ip daddr 169.254.169.254 drop
  }}
  chain pre {{
    type nat hook prerouting priority dstnat
    jump published
  }}
  chain out {{
    type nat hook output priority -100
    jump published
  }}
  chain post {{
    type nat hook postrouting priority srcnat
    ip saddr 127.0.0.0/8 oifname "{prefix}*" masquerade
    ip saddr {pool} oifname != "{prefix}*" oifname != "lo" masquerade
    ip saddr {pool} ct status dnat masquerade
  }}
}}
"""


class Firewall:
    """Keeps the table; everything that is added here is deleted here."""

    def __init__(self, table: str, prefix: str, pool: str) -> None:
        self._nft = Nftables()
        self._table = table
        self._text = TABLE.format(table=table, prefix=prefix, pool=pool)

    def open(self, containers: Iterable[tuple[str, str, Iterable[Port]]]) -> None:
        """The table with all that live: (interface, address, ports); in one transaction."""
        elements = []
        for interface, address, ports in containers:
            elements.append(self._element("add", "own", f'"{interface}" . {address}'))
            elements += self._published("add", address, ports)
        self._nft.run(self._text + "\n".join(elements))

    def admit(self, interface: str, address: str) -> None:
        """Lets an interface send from its own address, and from no other."""
        self._nft.run(self._element("add", "own", f'"{interface}" . {address}'))

    def publish(self, address: str, ports: Iterable[Port]) -> None:
        """Leads ports of the host to a container."""
        self._nft.run("\n".join(self._published("add", address, ports)))

    def forget(self, interface: str, address: str, ports: Iterable[Port]) -> None:
        """Undoes `admit` and `publish`."""
        own = self._element("delete", "own", f'"{interface}" . {address}')
        self._nft.run("\n".join([own, *self._published("delete", address, ports)]))

    def _published(self, verb: str, address: str, ports: Iterable[Port]) -> list[str]:
        commands = []
        for port in ports:
            protocol = "udp" if port.protocol == PROTOCOL_UDP else "tcp"
            suffix, at = ("_at", f"{port.host_ip} . ") if port.host_ip else ("", "")
            element = f"{at}{port.host_port} : {address} . {port.container_port}"
            commands.append(self._element(verb, f"pub_{protocol}{suffix}", element))
        return commands

    def _element(self, verb: str, name: str, element: str) -> str:
        return f"{verb} element ip {self._table} {name} {{ {element} }}"

    def close(self, *, remove: bool) -> None:
        """Ends; with `remove` the table goes too."""
        if remove:
            self._nft.run(f"delete table ip {self._table}")
        self._nft.close()
