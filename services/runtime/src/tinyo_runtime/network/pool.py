"""The instance's addresses: a network that nobody else uses here, claimed by a route that others see.

What is claimed is remembered in the run folder: after a restart the containers are in that network still.
"""

import errno
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tinyo_runtime.network import errors
from tinyo_runtime.network import netlink as nl

CANDIDATES = [f"10.{number}.0.0/16" for number in range(77, 100)]
RTM_NEWROUTE, RTM_DELROUTE, RTA_DST = 24, 25, 1
RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNREACHABLE = 254, 4, 7
#: Seconds to wait for the kernel when every address is in use or was a moment ago.
PATIENCE = 0.2


def claim(wanted: str, record: Path) -> IPv4Network:
    """Our network of before a restart, or one that is free; from now on ours."""
    known = recorded(record)
    network = IPv4Network(known) if known else choose(wanted, list(routed()))
    own(record, str(network), _unreachable(RTM_NEWROUTE, network, nl.NLM_F_CREATE | nl.NLM_F_EXCL))
    return network


def recorded(record: Path) -> str:
    """What an earlier run of this boot wrote; nothing if it died before it could."""
    return record.read_text() if record.exists() else ""


def own(record: Path, network: str, route: bytes) -> None:
    """Remembers what is ours, and only then makes the route: whoever dies in between has left nothing that nobody
    takes back. OSError when somebody else was faster."""
    known = recorded(record)
    record.write_text(network)
    try:
        nl.request(route)
    except OSError as error:
        if error.errno == errno.EEXIST and known:  # it is there from then
            return
        if not known:
            record.unlink()
        raise


def choose(wanted: str, taken: Sequence[IPv4Network]) -> IPv4Network:
    """The network that is wanted, or with "auto" the first candidate. POOL_TAKEN when others have it."""
    try:
        candidates = [IPv4Network(text) for text in (CANDIDATES if wanted == "auto" else [wanted])]
    except ValueError as error:
        raise SystemExit(f"pool {wanted!r}: {error}") from error
    for network in candidates:
        overlapping = [other for other in taken if other.overlaps(network)]
        if not overlapping:
            return network
    raise errors.pool_taken(wanted, overlapping[0])


def routed() -> Iterable[IPv4Network]:
    """Networks that the host has routes to, save the default one (/proc/net/route, little-endian hexadecimal)."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        to, mask = (socket.inet_ntoa(bytes.fromhex(fields[place])[::-1]) for place in (1, 7))
        if mask != "0.0.0.0":
            yield IPv4Network(f"{to}/{mask}")


def give_up(network: IPv4Network, record: Path) -> None:
    """Undoes `claim`; what is not remembered is not ours."""
    if not record.exists():
        return
    with suppress(ProcessLookupError):  # ESRCH: somebody was faster
        nl.request(_unreachable(RTM_DELROUTE, network, 0))
    record.unlink(missing_ok=True)


def _unreachable(kind: int, network: IPv4Network, flags: int) -> bytes:
    # struct rtmsg: family, bits of the destination, … table, protocol, scope, type, flags
    bits, table, static = network.prefixlen, RT_TABLE_MAIN, RTPROT_STATIC
    body = struct.pack("8BI", socket.AF_INET, bits, 0, 0, table, static, 0, RTN_UNREACHABLE, 0)
    return nl.message(kind, body, nl.attribute(RTA_DST, network.network_address.packed), flags=flags)


class Addresses:
    """Addresses that nobody has, round and round, so that one comes back as late as possible. The kernel
    knows who has one, by its interface: a container, also one of before a restart or one that no record
    knows; and one that ended is taken apart in the kernel's own time."""

    def __init__(self, network: IPv4Network, prefix: str, taken: Sized, round: Iterator[IPv4Address]) -> None:
        self._network, self._prefix, self._taken, self._round = network, prefix, taken, round

    def __iter__(self) -> Iterator[IPv4Address]:
        return self

    def __next__(self) -> IPv4Address:
        """The next one. POOL_EMPTY when there is none, unless the kernel is about to be done with some."""
        rounds, patience = 0, time.monotonic() + PATIENCE
        while rounds < 2 or (
            len(self._taken) < self._network.num_addresses - 2 and time.monotonic() < patience
        ):
            for address in self._round:
                if not exists(f"{self._prefix}{int(address):x}"):
                    return address
            self._round = iter(self._network.hosts())
            rounds += 1
            time.sleep(0.002 * (rounds > 1))
        raise errors.pool_empty(self._network)


def exists(interface: str) -> bool:
    """Whether there is an interface of that name."""
    try:
        return socket.if_nametoindex(interface) > 0
    except OSError:
        return False
