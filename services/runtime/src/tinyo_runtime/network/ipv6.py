"""IPv6 of containers: as IPv4, a routed pair with two addresses, and a table of nftables that keeps everybody in place.

Every host end is fe80::1. Neither end asks who is where (harden.py: they know each other's hardware address), so
nothing of neighbour discovery is needed, and none of it is let through.
"""

import socket
import struct
from collections.abc import Iterable, Iterator

from tinyo.v1.container_pb2 import PROTOCOL_UDP, Port

from tinyo_runtime.network import kinds
from tinyo_runtime.network import netlink as nl
from tinyo_runtime.network.extras import Extras
from tinyo_runtime.network.pool6 import CONF

GATEWAY = "fe80::1"
LOOPBACK = "::1"
#: An address that nobody has to be asked about is there at once (if_addr.h).
IFA_F_NODAD = 0x02
RTM_NEWROUTE, RTA_OIF, RTA_GATEWAY = 24, 4, 5
RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST = 254, 4, 1

#: As in firewall.py, kinds.py, outside.py and harden.py. What is sent to ::1 cannot be led elsewhere (loopback6.py
#: answers there), and what comes from a link-local address cannot be passed on.
#:
#: Besides (the kernel itself takes ::1 from nobody outside): containers have no business with groups, with neighbours and routers, and with what the host says to its
#: links alone; all they get of the host's link-local address are answers and messages of ICMP.
# Protocols that have no word in nft(8) are numbers, 58 is ICMPv6: not every machine has /etc/protocols.
RULES = """
add table ip6 {table}; delete table ip6 {table}
table ip6 {table} {{
  map pub_tcp {{ type inet_service : ipv6_addr . inet_service; }}
  map pub_udp {{ type inet_service : ipv6_addr . inet_service; }}
  map pub_at {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
  set joined {{ typeof iifgroup . oifgroup; }}
  chain publish {{
    ip6 daddr {{ ::1, fe80::/10 }} return
    fib daddr type local dnat ip6 to ip6 daddr . meta l4proto . th dport map @pub_at
    fib daddr type local dnat ip6 to tcp dport map @pub_tcp
    fib daddr type local dnat ip6 to udp dport map @pub_udp
  }}
  chain arriving {{ type nat hook prerouting priority dstnat; jump publish; }}
  chain own {{ type nat hook output priority -100; jump publish; }}
  chain leaving {{
    type nat hook postrouting priority srcnat
    ip6 saddr {pool6} oifname != "{prefix}*" oifname != "lo" masquerade
    ip6 saddr {pool6} ct status dnat masquerade
  }}
  chain before {{
    type filter hook prerouting priority raw
    iifname "{prefix}*" ip6 daddr ff00::/8 drop
    iifname "{prefix}*" icmpv6 type {{ nd-router-solicit, nd-router-advert, nd-neighbor-solicit, \
nd-neighbor-advert, nd-redirect }} drop
    iifname "{prefix}*" fib saddr . iif oif missing drop
  }}
  chain to_host {{
    type filter hook input priority filter
    iifname "{prefix}*" ip6 daddr fe80::/10 meta l4proto != 58 ct state != {{ established, related }} drop
  }}
  chain through {{
    type filter hook forward priority filter
    iifname != "{prefix}*" oifname "{prefix}*" ct state != {{ established, related }} ct status & dnat == 0 drop
    iifname "{prefix}*" oifname "{prefix}*" ct state != {{ established, related }} \
ct status & dnat == 0 iifgroup . oifgroup != @joined drop
  }}
}}
"""

#: Where clouds tell machines their secrets (EC2, and by the same address others).
METADATA = """
add rule ip6 {table} before iifname "{prefix}*" ip6 daddr fd00:ec2::254 drop
"""


def container(index: int, more: Extras) -> list[bytes]:
    """In a container: its address, and a way to all others."""
    if not more.address6:
        return []
    body = struct.pack("8BI", socket.AF_INET6, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST, 0)
    via = nl.attribute(RTA_GATEWAY, socket.inet_pton(socket.AF_INET6, GATEWAY))
    route = nl.message(RTM_NEWROUTE, body, nl.attribute(RTA_OIF, struct.pack("i", index)), via)
    return [_join(index, more.address6, GATEWAY), route]


def host(index: int, more: Extras) -> list[bytes]:
    """On the host: the way to a container, and from there on."""
    if not more.address6:
        return []
    conf = CONF / socket.if_indextoname(index)
    # Nobody there is a router to us, or is asked for one.
    (conf / "accept_ra").write_text("0")
    # Where the kernel can let one interface forward (6.17); elsewhere all do (forwarding6.py).
    if (conf / "force_forwarding").exists():
        (conf / "force_forwarding").write_text("1")
    return [_join(index, GATEWAY, more.address6)]


def _join(index: int, ip: str, peer: str) -> bytes:
    ends = (
        nl.attribute(kind, socket.inet_pton(socket.AF_INET6, one))
        for kind, one in ((nl.IFA_LOCAL, ip), (nl.IFA_ADDRESS, peer))
    )
    return nl.message(
        nl.RTM_NEWADDR, struct.pack("BBBBi", socket.AF_INET6, 128, IFA_F_NODAD, 0, index), *ends
    )


def elements(verb: str, table: str, address: str, ports: Iterable[Port]) -> Iterator[str]:
    """Commands that "add" or "delete" the published ports of a container with this address."""
    for port in ports if address else ():
        protocol = "udp" if port.protocol == PROTOCOL_UDP else "tcp"
        if kinds.everywhere(port):
            name, at = protocol, ""
        elif ":" in port.host_ip and port.host_ip != LOOPBACK:
            name, at = "at", f"{port.host_ip} . {protocol} . "
        else:
            continue
        element = f"{at}{port.host_port} : {address} . {port.container_port}"
        yield f"{verb} element ip6 {table} pub_{name} {{ {element} }}"
