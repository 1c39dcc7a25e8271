"""Networks that are not a container's own: none, the host's, and that of another container."""

import os
from contextlib import ExitStack
from io import FileIO

from tinyo.v1.network_pb2 import NETWORK_KIND_HOST, NETWORK_KIND_NONE, Network

from tinyo_runtime.network import netlink as nl
from tinyo_runtime.network.outside import LO
from tinyo_runtime.network.veth import NAMESPACE
from tinyo_runtime.spawner import syscalls


def opened(network: Network) -> FileIO:
    """The namespace, open; for another container's, which options/network.py finds, what nobody can join."""
    if network.kind == NETWORK_KIND_NONE:
        return empty()
    return FileIO(NAMESPACE if network.kind == NETWORK_KIND_HOST else os.devnull)


def empty() -> FileIO:
    """A new namespace with nothing but loopback."""
    with FileIO(NAMESPACE) as home, ExitStack() as away:
        syscalls.unshare(syscalls.CLONE_NEWNET)  # this thread alone
        away.callback(syscalls.setns, home.fileno(), syscalls.CLONE_NEWNET)
        netns = FileIO(NAMESPACE)
        nl.request(nl.message(nl.RTM_SETLINK, nl.link(LO, nl.IFF_UP)))
        return netns
