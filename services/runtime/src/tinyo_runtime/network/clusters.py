"""Clusters do not reach each other: each has a number, which is the group of its containers' interfaces.

The kernel keeps the number with the interface, so that it needs no record here and goes with the container. A packet
may go from one container to another when the pair of their groups is in a set, whatever the number of containers.
"""

import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from tinyo_runtime.network import firewall
from tinyo_runtime.network import netlink as nl

IFLA_GROUP = 27

#: What was led to a published port comes as from anywhere else.
RULES = """
table ip {table} {{
  set joined {{ typeof iifgroup . oifgroup; }}
}}
add rule ip {table} through iifname "{prefix}*" oifname "{prefix}*" ct state != {{ established, related }} \
ct status & dnat == 0 iifgroup . oifgroup != @joined drop
"""


class Clusters:
    """Numbers of clusters, from 1 on; 0 is the group of an interface that has no container yet."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._numbers: dict[str, int] = {}

    def known(self, interfaces: Iterable[tuple[str, str]]) -> Iterator[str]:
        """Learns the numbers from interfaces that are there already, (cluster, name) of each; gives the commands that
        let each cluster reach itself. An interface of a runtime that knew no clusters gets its group now."""
        interfaces = list(interfaces)
        for cluster, interface in interfaces:
            with suppress(OSError):  # it ended meanwhile
                if group := int(Path(f"/sys/class/net/{interface}/netdev_group").read_text()):
                    self._numbers.setdefault(cluster, group)
        for cluster, interface in interfaces:
            with suppress(OSError):
                _set_group(interface, self._number(cluster))
        yield from map(self._element, self._numbers.values())

    def join(self, cluster: str, interface: str) -> None:
        """An interface belongs to a cluster from now on."""
        if cluster not in self._numbers:
            firewall.run(self._element(self._number(cluster)))
        _set_group(interface, self._numbers[cluster])

    def _number(self, cluster: str) -> int:
        return self._numbers.setdefault(cluster, max(self._numbers.values(), default=0) + 1)

    def _element(self, number: int) -> str:
        return f"add element ip {self._table} joined {{ {number} . {number} }}"


def _set_group(interface: str, number: int) -> None:
    name = nl.attribute(nl.IFLA_IFNAME, interface.encode())
    group = nl.attribute(IFLA_GROUP, struct.pack("I", number))
    nl.request(nl.message(nl.RTM_SETLINK, nl.link(), name, group, flags=0))
