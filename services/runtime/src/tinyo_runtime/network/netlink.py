"""rtnetlink(7): messages built as bytes, and sent in batches.

A message is a header, a fixed structure and attributes. Only what a container's network needs is here.
"""

import os
import socket
import struct

NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
RTM_NEWLINK, RTM_SETLINK, RTM_NEWADDR, IFF_UP, IFA_ADDRESS, IFA_LOCAL = 16, 19, 20, 1, 1, 2
IFLA_IFNAME, IFLA_LINKINFO, IFLA_GROUP, IFLA_NET_NS_FD = 3, 18, 27, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1


def attribute(kind: int, *values: bytes) -> bytes:
    """One attribute, padded to four bytes; several values are attributes inside it."""
    value = b"".join(values)
    return struct.pack("HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def message(kind: int, body: bytes, *attributes: bytes, flags: int = NLM_F_CREATE | NLM_F_EXCL) -> bytes:
    """A request that is to be acknowledged; what it creates must not be there yet."""
    payload = body + b"".join(attributes)
    return struct.pack("IHHII", 16 + len(payload), kind, NLM_F_REQUEST | NLM_F_ACK | flags, 0, 0) + payload


def link(index: int = 0, flags: int = 0) -> bytes:
    """struct ifinfomsg, with flags of an interface that are to be set."""
    return struct.pack("BxHiII", socket.AF_UNSPEC, 0, index, flags, flags)


def veth(name: str, peer: str, netns: int) -> bytes:
    """A pair of interfaces: `name` here, `peer` in the network namespace `netns`."""
    there = attribute(IFLA_IFNAME, peer.encode()), attribute(IFLA_NET_NS_FD, struct.pack("I", netns))
    data = attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, link(), *there))
    info = attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, b"veth"), data)
    return message(RTM_NEWLINK, link(), attribute(IFLA_IFNAME, name.encode()), info)


def join(index: int, ip: str, peer: str) -> tuple[bytes, bytes]:
    """Switches an end on and gives it an address; there is a route to the one at the other end from then on."""
    ends = attribute(IFA_LOCAL, socket.inet_aton(ip)), attribute(IFA_ADDRESS, socket.inet_aton(peer))
    body = struct.pack("BBBBi", socket.AF_INET, 32, 0, 0, index)
    return message(RTM_SETLINK, link(index, IFF_UP)), message(RTM_NEWADDR, body, *ends)


def request(*messages: bytes) -> None:
    """Asks the network namespace of this thread for all at once. OSError of the first that failed."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as netlink:
        netlink.send(b"".join(messages))
        for _ in messages:
            if error := struct.unpack_from("i", netlink.recv(4096), 16)[0]:  # struct nlmsgerr
                raise OSError(-error, os.strerror(-error), "rtnetlink")
