"""The instance's IPv6 addresses: a network of its own (RFC 4193), the same on this machine at every time.

A container's IPv6 address has its IPv4 address at the end, so that nothing has to be given out or remembered.
"""

import hashlib
import logging
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path

from tinyo_runtime.network import errors
from tinyo_runtime.network import netlink as nl
from tinyo_runtime.network.pool import (
    RT_TABLE_MAIN,
    RTA_DST,
    RTM_DELROUTE,
    RTM_NEWROUTE,
    RTN_UNREACHABLE,
    own,
    recorded,
)

MACHINE = Path("/etc/machine-id")
ROUTES = Path("/proc/net/ipv6_route")
CONF = Path("/proc/sys/net/ipv6/conf")
RTPROT_STATIC = 4
#: Networks that are tried until one is free; bits that an address must have to itself.
CANDIDATES, OWN_BITS = 16, 32

log = logging.getLogger(__name__)


def available() -> bool:
    """Whether new interfaces of this machine can have IPv6 addresses (ip-sysctl; what is set of "all" is set of these)."""
    try:
        return (CONF / "default/disable_ipv6").read_text() == "0\n"
    except FileNotFoundError:
        return False


def claim(wanted: str, instance: str, record: Path) -> IPv6Network | None:
    """Our network of before a restart, or one that is free; from now on ours. None where there is no IPv6, or where
    nobody wants it."""
    if wanted != "none" and not available():
        log.warning("containers have no IPv6 addresses: IPv6 is switched off on this machine")
    known = recorded(record)
    if not available():
        return IPv6Network(known) if known else None
    network = IPv6Network(known) if known else choose(wanted, instance, list(routed()))
    if network:
        own(record, str(network), _unreachable(RTM_NEWROUTE, network, nl.NLM_F_CREATE | nl.NLM_F_EXCL))
    return network


def choose(wanted: str, instance: str, taken: Sequence[IPv6Network]) -> IPv6Network | None:
    """The network that is wanted, with "auto" one of the instance, with "none" none. POOL_TAKEN when others have it."""
    if wanted == "none":
        return None
    try:
        candidates = list(ours(instance)) if wanted == "auto" else [IPv6Network(wanted)]
    except ValueError as error:
        raise SystemExit(f"pool6 {wanted!r}: {error}") from error
    for network in candidates:
        if network.prefixlen > network.max_prefixlen - OWN_BITS:
            raise SystemExit(f"pool6 {wanted!r}: a network of /96 or larger is needed, as in fd00:1::/64")
        overlapping = [other for other in taken if other.overlaps(network)]
        if not overlapping:
            return network
    raise errors.pool_taken(wanted, overlapping[0], "pool6")


def ours(instance: str) -> Iterator[IPv6Network]:
    """Networks that are nobody else's in all likelihood: 40 bits that come from the machine's and the instance's name."""
    machine = MACHINE.read_text() if MACHINE.exists() else socket.gethostname()
    for number in range(CANDIDATES):
        digest = hashlib.sha256(f"{machine.strip()} {instance} {number}".encode()).digest()
        yield IPv6Network((b"\xfd" + digest[:5] + bytes(10), 64))


def routed() -> Iterator[IPv6Network]:
    """Networks that the host has routes to, save the default one (/proc/net/ipv6_route, hexadecimal)."""
    for line in ROUTES.read_text().splitlines():
        to, bits, *_ = line.split()
        if int(bits, 16):
            yield IPv6Network((bytes.fromhex(to), int(bits, 16)), strict=False)


def address(network: IPv6Network | None, own: IPv4Address) -> str:
    """The IPv6 address of who has this one; "" when there are none."""
    return str(network[int(own)]) if network and available() else ""


def give_up(network: IPv6Network, record: Path) -> None:
    """Undoes `claim`; what is not remembered is not ours."""
    if not record.exists():
        return
    with suppress(ProcessLookupError):  # ESRCH: somebody was faster
        nl.request(_unreachable(RTM_DELROUTE, network, 0))
    record.unlink(missing_ok=True)


def _unreachable(kind: int, network: IPv6Network, flags: int) -> bytes:
    bits, table, static = network.prefixlen, RT_TABLE_MAIN, RTPROT_STATIC
    body = struct.pack("8BI", socket.AF_INET6, bits, 0, 0, table, static, 0, RTN_UNREACHABLE, 0)
    return nl.message(kind, body, nl.attribute(RTA_DST, network.network_address.packed), flags=flags)
