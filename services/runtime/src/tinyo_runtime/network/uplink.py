"""Where packets leave this machine, and how large they may be: veths have the MTU of the device of the default route.

A smaller one would cost speed; a larger one costs each connection a message that its packets are too big.
"""

import fcntl
import socket
import struct

from tinyo_runtime.network import netlink as nl

RTM_NEWROUTE, RTM_GETROUTE, RTA_DST, RTA_OIF = 24, 26, 1, 4
SIOCGIFMTU = 0x8921
#: Addresses that are nobody's (RFC 5737, RFC 3849), so that the default route is the way to them.
NOBODY = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
#: Without a way out: that of Ethernet. IPv6 needs 1280 (RFC 8200), a veth takes 65535.
USUAL, LEAST, MOST = 1500, 1280, 65535


def mtu() -> int:
    """Bytes of the largest packet of a container; a smaller uplink is told to who sends."""
    for family, address in NOBODY:
        if index := device(family, address):
            with socket.socket() as asking:
                name = socket.if_indextoname(index).encode()
                request = fcntl.ioctl(asking, SIOCGIFMTU, struct.pack("16si12x", name, 0))
            return max(LEAST, min(MOST, int(struct.unpack_from("16xi", request)[0])))
    return USUAL


def device(family: int, address: str) -> int:
    """Index of the interface that leads to an address; 0 when there is none."""
    packed = socket.inet_pton(family, address)
    body = struct.pack("8BI", family, 8 * len(packed), 0, 0, 0, 0, 0, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as netlink:
        netlink.send(nl.message(RTM_GETROUTE, body, nl.attribute(RTA_DST, packed), flags=0))
        said = netlink.recv(1 << 16)
    length, kind = struct.unpack_from("IH", said)
    place = 16 + 12  # struct nlmsghdr and struct rtmsg, then attributes
    while kind == RTM_NEWROUTE and place + 4 <= length:
        size, name = struct.unpack_from("HH", said, place)
        if name == RTA_OIF:
            return int(struct.unpack_from("i", said, place + 4)[0])
        place += max(4, size + -size % 4)
    return 0
