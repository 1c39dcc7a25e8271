"""Clusters do not reach each other: each has a number, which is the group of its containers' interfaces.

The kernel keeps the number with the interface, so that it needs no record here and goes with the container. A packet
may go from one container to another when the pair of their groups is in a set, whatever the number of containers.
"""

import asyncio
import errno
import socket
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress

from tinyo_runtime.network import firewall
from tinyo_runtime.network import netlink as nl
from tinyo_runtime.network.veth import Endpoint

RTM_GETLINK = 18
#: Seconds after which a cluster loses its element of the set when it has no container any more: most get one again at
#: once, and to add or delete an element takes 0.3 ms.
PAUSE = 1

#: What was led to a published port comes as from anywhere else.
RULES = """
table ip {table} {{
  set joined {{ typeof iifgroup . oifgroup; }}
}}
add rule ip {table} through iifname "{prefix}*" oifname "{prefix}*" ct state != {{ established, related }} \
ct status & dnat == 0 iifgroup . oifgroup != @joined drop
"""


class Clusters:
    """Numbers of clusters, from 1 on; 0 is the group of an interface that was made when there was none."""

    def __init__(self, table: str, prefix: str) -> None:
        self._table, self._prefix = table, prefix
        self._numbers: dict[str, int] = {}
        self._members = Counter[str]()
        #: Those that may reach themselves for a moment longer, and what ends that.
        self._empty = set[str]()
        self._tidying: asyncio.TimerHandle | None = None
        self._last = 0
        #: The number of the cluster that was joined last, and those that interfaces were made with, by address.
        self._latest = 0
        self._made_with: dict[str, int] = {}
        #: Families of tables that have the set.
        self.families: tuple[str, ...] = ("ip",)

    def known(self, interfaces: Iterable[tuple[str, str]]) -> Iterator[str]:
        """Learns the numbers from interfaces that are there already, (cluster, name) of each; gives the commands that
        let each cluster reach itself. An interface of a runtime that knew no clusters gets its group now."""
        interfaces = list(interfaces)
        groups = dict(_groups(self._prefix))
        # Also of those that no container has any more: one that joined its network may be on it still.
        self._last = max(groups.values(), default=0)
        for cluster, interface in interfaces:
            if groups.get(interface):
                self._numbers.setdefault(cluster, groups[interface])
        for cluster, interface in interfaces:
            self._members[cluster] += 1
            with suppress(OSError):  # it has ended
                _set_group(interface, self._number(cluster))
        yield from self.elements()

    def elements(self) -> Iterator[str]:
        """Commands that let each cluster reach itself."""
        for cluster in (*self._members, *self._empty):
            yield from self._element("add", cluster)

    def expected(self, address: str) -> int:
        """The group that the interface of an address is made with, ahead of need: that of the cluster that was joined
        last. To give it another one takes up to 1 ms, since the kernel may be busy with namespaces that end."""
        self._made_with[address] = self._latest
        return self._latest

    def join(self, cluster: str, endpoint: Endpoint) -> None:
        """An interface belongs to a cluster from now on."""
        number = self._number(cluster)
        if not self._members[cluster] and cluster not in self._empty:
            firewall.run(*self._element("add", cluster))
        self._empty.discard(cluster)
        self._members[cluster] += 1
        self._latest = number
        if self._made_with.pop(endpoint.address, 0) != number:
            _set_group(endpoint.interface, number)

    def leave(self, cluster: str) -> None:
        """Undoes `join`, or what made one known, in a moment. The number stays the cluster's."""
        self._members[cluster] -= 1
        if not self._members[cluster]:
            del self._members[cluster]
            self._empty.add(cluster)
            if not self._tidying:
                self._tidying = asyncio.get_running_loop().call_later(PAUSE, self._tidy)

    def _tidy(self) -> None:
        """Those that are empty do not reach themselves any more."""
        self._tidying = None
        commands = [command for cluster in self._empty for command in self._element("delete", cluster)]
        self._empty.clear()
        if commands:
            firewall.run(*commands)

    def close(self) -> None:
        """Nothing is tidied any more."""
        if self._tidying:
            self._tidying.cancel()

    def _number(self, cluster: str) -> int:
        if cluster not in self._numbers:
            self._last += 1
            self._numbers[cluster] = self._last
        return self._numbers[cluster]

    def _element(self, verb: str, cluster: str) -> Iterator[str]:
        number = self._numbers[cluster]
        for family in self.families:
            yield f"{verb} element {family} {self._table} joined {{ {number} . {number} }}"


def _groups(prefix: str) -> Iterator[tuple[str, int]]:
    """Our interfaces, each with its group."""
    for index, name in socket.if_nameindex():
        if name.startswith(prefix):
            with suppress(OSError):  # it has ended
                yield name, _group(index)


def _group(index: int) -> int:
    """The group of an interface. (/sys/class/net has it too, of the network namespace that /sys was mounted in.)"""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as netlink:
        netlink.send(nl.message(RTM_GETLINK, nl.link(index), flags=0))
        said = netlink.recv(1 << 16)
    length, kind = struct.unpack_from("IH", said)
    place = 16 + 16  # struct nlmsghdr and struct ifinfomsg, then attributes
    while kind == nl.RTM_NEWLINK and place + 4 <= length:
        size, name = struct.unpack_from("HH", said, place)
        if name == nl.IFLA_GROUP:
            return int(struct.unpack_from("I", said, place + 4)[0])
        place += max(4, size + -size % 4)
    raise OSError(errno.ENODEV, "no group", f"interface {index}")


def _set_group(interface: str, number: int) -> None:
    name = nl.attribute(nl.IFLA_IFNAME, interface.encode())
    group = nl.attribute(nl.IFLA_GROUP, struct.pack("I", number))
    nl.request(nl.message(nl.RTM_SETLINK, nl.link(), name, group, flags=0))
