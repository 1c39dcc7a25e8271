"""What containers must not do on the network, and nobody to them."""

import socket
import struct

from tinyo_runtime.network import netlink as nl
from tinyo_runtime.network.extras import Extras

IFF_NOARP, IFLA_ADDRESS, IFLA_MTU, IFLA_AF_SPEC = 0x80, 1, 4, 26
IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE = 8, b"\1"

#: Nobody reaches the host's loopback from outside, although veths route it (CVE-2020-8558). Nobody sends
#: from an address that is not routed to where they are, which is any but their own. From outside, only what
#: is published is reached.
RULES = """
table ip {table} {{
  chain before {{
    type filter hook prerouting priority raw
    iifname != "lo" ip daddr 127.0.0.0/8 drop
    iifname "{prefix}*" fib saddr . iif oif missing drop
  }}
  chain through {{
    type filter hook forward priority filter
    iifname != "{prefix}*" oifname "{prefix}*" ct state != {{ established, related }} ct status & dnat == 0 drop
  }}
}}
"""

#: What a cloud tells its machines about themselves, keys included, is none of a container's business.
METADATA = """
add rule ip {table} before iifname "{prefix}*" ip daddr 169.254.169.254 drop
"""


def link(index: int, more: Extras) -> list[bytes]:
    """For either end of a pair, before it is switched on. It neither asks nor answers by ARP, so that nobody
    can pretend to be the gateway: the other's hardware address is taken to be its own, and so it is. And it
    gets no IPv6 address by itself, over which a container could reach the host past every rule."""
    mode = nl.attribute(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE)
    family = nl.attribute(IFLA_AF_SPEC, nl.attribute(socket.AF_INET6, mode))
    mac = nl.attribute(IFLA_ADDRESS, b"\x02\x42" + socket.inet_aton(more.address))
    mtu = nl.attribute(IFLA_MTU, struct.pack("I", more.mtu))
    return [nl.message(nl.RTM_SETLINK, nl.link(index, IFF_NOARP), mac, mtu, family)]
