"""A container's end of the network: a namespace with an interface that leads to the host.

The namespace has no name: it lives as long as it is open here, or a process of its container runs. Then
the kernel takes its interfaces, and the host's route, away by itself.
"""

import socket
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from tinyo_runtime.network import harden
from tinyo_runtime.network import netlink as nl
from tinyo_runtime.network.extras import Extras
from tinyo_runtime.network.outside import forwarding, routes
from tinyo_runtime.spawner import syscalls

#: Every host end has this address; never on a wire (RFC 3927). What comes from the host itself has it as
#: its source, so that published ports answer even where the host has no other address.
GATEWAY = "169.254.1.1"
NAMESPACE = "/proc/thread-self/ns/net"


class Endpoint(NamedTuple):
    """Descriptor of the namespace (-1 when its container runs already), dotted IPv4, name of the host's end, and
    its IPv6 address, which is empty without one."""

    netns: int
    address: str
    interface: str
    address6: str = ""


def make(interface: str, address: str, more: Extras) -> FileIO:
    """A new namespace, open, with a pair of interfaces, addresses and routes on both sides."""
    with FileIO(NAMESPACE) as home, ExitStack() as away:
        syscalls.unshare(syscalls.CLONE_NEWNET)  # this thread alone
        away.callback(syscalls.setns, home.fileno(), syscalls.CLONE_NEWNET)
        netns = FileIO(NAMESPACE)
        nl.request(nl.veth("eth0", interface, home.fileno()))
        end = socket.if_nametoindex("eth0")
        nl.request(*harden.link(end, more), *nl.join(end, address, GATEWAY), *routes(end, GATEWAY, more))
        away.close()
        end = socket.if_nametoindex(interface)
        nl.request(*harden.link(end, more), *nl.join(end, GATEWAY, address), *forwarding(end, more))
        # What the host sends to a port of 127.0.0.1 may be led there.
        Path(f"/proc/sys/net/ipv4/conf/{interface}/route_localnet").write_text("1")
        return netns
