"""Between containers and the world: a way out and back, and to other containers.

The veths forward, and so do the interfaces that lead outwards: without it, answers never reach a container.
What those had before is remembered in the run folder, and put back. Firewalls of others are told.
"""

import json
import socket
import struct
from contextlib import suppress
from pathlib import Path

from tinyo_runtime.network import foreign, ipv6
from tinyo_runtime.network import netlink as nl
from tinyo_runtime.network.extras import Extras

#: Index of the loopback interface in every namespace.
LO = 1
CONF = Path("/proc/sys/net/ipv4/conf")
IFLA_AF_SPEC, IFLA_INET_CONF, IPV4_DEVCONF_FORWARDING = 26, 1, 1
RTM_NEWROUTE, RTA_OIF, RTA_GATEWAY = 24, 4, 5
RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST = 254, 4, 1

#: The world sees the host's address. A container that comes to a published port, its own or another's, must
#: get the answer from there too, so it comes as the host.
RULES = """
add rule ip {table} leaving ip saddr {pool} oifname != "{prefix}*" oifname != "lo" masquerade
add rule ip {table} leaving ip saddr {pool} ct status dnat masquerade
"""


def routes(index: int, gateway: str, more: Extras) -> list[bytes]:
    """In a container: it finds itself on the loopback interface, and all others at the gateway."""
    body = struct.pack("8BI", socket.AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST, 0)
    via = nl.attribute(RTA_GATEWAY, socket.inet_aton(gateway))
    return [
        nl.message(nl.RTM_SETLINK, nl.link(LO, nl.IFF_UP)),
        nl.message(RTM_NEWROUTE, body, nl.attribute(RTA_OIF, struct.pack("i", index)), via),
        *ipv6.container(index, more),
    ]


def forwarding(index: int, more: Extras) -> list[bytes]:
    """On the host: what comes from the container goes on, and it belongs to a group."""
    conf = nl.attribute(IFLA_INET_CONF, nl.attribute(IPV4_DEVCONF_FORWARDING, struct.pack("I", 1)))
    family = nl.attribute(IFLA_AF_SPEC, nl.attribute(socket.AF_INET, conf))
    group = nl.attribute(nl.IFLA_GROUP, struct.pack("I", more.group))
    return [nl.message(nl.RTM_SETLINK, nl.link(index), family, group), *ipv6.host(index, more)]


def open(record: Path, prefix: str) -> None:
    """Lets the interfaces with a default route forward, where they do not yet; and firewalls let us."""
    before = json.loads(record.read_text()) if record.exists() else {}
    for interface in uplinks():
        setting = CONF / interface / "forwarding"
        if setting.read_text().strip() == "0":
            before[interface] = "0"
            record.write_text(json.dumps(before))
            setting.write_text("1")
    foreign.accept(prefix)


def close(record: Path, prefix: str) -> None:
    """Undoes `open`."""
    foreign.take_back(prefix)
    if record.exists():
        for interface, value in json.loads(record.read_text()).items():
            with suppress(FileNotFoundError):  # the interface is gone
                (CONF / interface / "forwarding").write_text(value)
        record.unlink()


def uplinks() -> set[str]:
    """Interfaces with a default route (/proc/net/route)."""
    lines = Path("/proc/net/route").read_text().splitlines()[1:]
    return {fields[0] for fields in map(str.split, lines) if fields[1] == fields[7] == "00000000"}
