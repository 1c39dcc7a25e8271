"""rtnetlink(7) messages, built once and sent in one batch.

A message is a header, a fixed structure and attributes; a batch is answered by one acknowledgement for
each message. Only what a container's network needs is here.
"""

import os
import socket
import struct

NETLINK_ROUTE = 0
RTM_NEWLINK, RTM_SETLINK = 16, 19
RTM_NEWADDR, RTM_NEWROUTE, RTM_DELROUTE, RTM_NEWNEIGH = 20, 24, 25, 28
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
CREATE = NLM_F_CREATE | NLM_F_EXCL
IFF_UP = 1

IFLA_ADDRESS, IFLA_IFNAME, IFLA_LINKINFO, IFLA_NET_NS_FD, IFLA_AF_SPEC = 1, 3, 18, 28, 26
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_INET_CONF, IFLA_INET6_ADDR_GEN_MODE = 1, 8
IPV4_DEVCONF_FORWARDING, IPV4_DEVCONF_ROUTE_LOCALNET = 1, 26
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY = 1, 4, 5, 6
NDA_DST, NDA_LLADDR, NUD_PERMANENT = 1, 2, 0x80
RT_TABLE_MAIN, RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RTN_UNICAST, RTN_UNREACHABLE = 254, 0, 253, 1, 7


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return struct.pack("HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def number(kind: int, value: int) -> bytes:
    """An attribute with 32 bits."""
    return attribute(kind, struct.pack("I", value))


def message(kind: int, flags: int, body: bytes, *attributes: bytes) -> bytes:
    """A request that is to be acknowledged."""
    payload = body + b"".join(attributes)
    flags |= NLM_F_REQUEST | NLM_F_ACK
    return struct.pack("IHHII", 16 + len(payload), kind, flags, 0, 0) + payload


def link(index: int = 0, flags: int = 0) -> bytes:
    """struct ifinfomsg."""
    return struct.pack("BxHiII", socket.AF_UNSPEC, 0, index, flags, flags)


def veth(name: str, mac: bytes, peer: str, peer_mac: bytes, netns: int) -> bytes:
    """A pair of interfaces: `name` here, `peer` in the network namespace `netns`."""
    there = link() + b"".join(
        (
            attribute(IFLA_IFNAME, peer.encode() + b"\0"),
            attribute(IFLA_ADDRESS, peer_mac),
            number(IFLA_NET_NS_FD, netns),
        )
    )
    data = attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, there))
    kind = attribute(IFLA_INFO_KIND, b"veth\0")
    return message(
        RTM_NEWLINK, CREATE, link(),
        attribute(IFLA_IFNAME, name.encode() + b"\0"), attribute(IFLA_ADDRESS, mac), attribute(IFLA_LINKINFO, kind + data),
    )  # fmt: skip


def up(index: int) -> bytes:
    """Switches an interface on."""
    return message(RTM_NEWLINK, 0, link(index, IFF_UP))


def forwarding(index: int) -> bytes:
    """Lets an interface forward packets, and route 127/8 (so that a published port answers there)."""
    settings = number(IPV4_DEVCONF_FORWARDING, 1) + number(IPV4_DEVCONF_ROUTE_LOCALNET, 1)
    family = attribute(socket.AF_INET, attribute(IFLA_INET_CONF, settings))
    return message(RTM_SETLINK, 0, link(index), attribute(IFLA_AF_SPEC, family))


def no_link_local(index: int) -> bytes:
    """Gives an interface no IPv6 address of its own when it is switched on: nobody would use it."""
    family = attribute(socket.AF_INET6, attribute(IFLA_INET6_ADDR_GEN_MODE, b"\1"))
    return message(RTM_SETLINK, 0, link(index), attribute(IFLA_AF_SPEC, family))


def address(index: int, ip: str) -> bytes:
    """Gives an interface an address, /32."""
    body = struct.pack("BBBBi", socket.AF_INET, 32, 0, RT_SCOPE_UNIVERSE, index)
    packed = socket.inet_aton(ip)
    return message(RTM_NEWADDR, CREATE, body, attribute(IFA_LOCAL, packed), attribute(IFA_ADDRESS, packed))


def route(
    to: str, bits: int, *, index: int = 0, via: str = "", kind: int = RTN_UNICAST, delete: bool = False
) -> bytes:
    """A route to a network: through an interface, a gateway, or nowhere (RTN_UNREACHABLE)."""
    scope = RT_SCOPE_LINK if index and not via else RT_SCOPE_UNIVERSE
    body = struct.pack("BBBBBBBBI", socket.AF_INET, bits, 0, 0, RT_TABLE_MAIN, 4, scope, kind, 0)
    attributes = [attribute(RTA_DST, socket.inet_aton(to))] if bits else []
    attributes += [number(RTA_OIF, index)] if index else []
    attributes += [attribute(RTA_GATEWAY, socket.inet_aton(via))] if via else []
    return message(RTM_DELROUTE if delete else RTM_NEWROUTE, 0 if delete else CREATE, body, *attributes)


def neighbour(index: int, ip: str, mac: bytes) -> bytes:
    """An address whose hardware address is fixed."""
    body = struct.pack("BxHiHBB", socket.AF_INET, 0, index, NUD_PERMANENT, 0, RTN_UNICAST)
    return message(
        RTM_NEWNEIGH, CREATE, body, attribute(NDA_DST, socket.inet_aton(ip)), attribute(NDA_LLADDR, mac)
    )


class Netlink:
    """A socket in the network namespace in which it was opened."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        self._socket.bind((0, 0))

    def send(self, *messages: bytes) -> None:
        """Sends all at once and waits for every acknowledgement. OSError of the first that failed."""
        self._socket.send(b"".join(messages))
        failed, waiting = 0, len(messages)
        while waiting:
            data = self._socket.recv(65536)
            while data:
                (length, kind), error = struct.unpack_from("IH", data), struct.unpack_from("i", data, 16)[0]
                data = data[(length + 3) & ~3 :]
                if kind == 2:  # NLMSG_ERROR
                    failed = failed or -error
                    waiting -= 1
        if failed:
            raise OSError(failed, os.strerror(failed), "rtnetlink")

    def close(self) -> None:
        self._socket.close()


def mac_of(ip: str) -> bytes:
    """A locally administered hardware address that belongs to an address."""
    return b"\x02\x42" + socket.inet_aton(ip)
