"""The instance's addresses: a network that nobody else uses here, claimed by a route that others see."""

import contextlib
import ipaddress
import socket
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import grpc

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.network import netlink as nl

CANDIDATES = [f"10.{number}.0.0/16" for number in range(77, 100)]


class Pool:
    """Addresses of one network; the one that was given back longest ago is the next."""

    def __init__(self, network: str, record: Path) -> None:
        self._record = record
        self.network = self._claim(network)
        self._free = deque(range(1, min(self.network.num_addresses - 1, 65535)))

    def _claim(self, wanted: str) -> ipaddress.IPv4Network:
        """Our network of before a restart, or a free one; from now on ours."""
        if self._record.exists():
            return ipaddress.IPv4Network(self._record.read_text())
        try:
            candidates = [
                ipaddress.IPv4Network(text) for text in (CANDIDATES if wanted == "auto" else [wanted])
            ]
        except ValueError as error:
            raise SystemExit(f"pool {wanted!r}: {error}") from error
        taken = list(routed())
        for candidate in candidates:
            overlapping = [network for network in taken if network.overlaps(candidate)]
            if not overlapping:
                with contextlib.closing(nl.Netlink()) as netlink:
                    netlink.send(_unreachable(candidate))
                self._record.write_text(str(candidate))
                return candidate
        raise TinyoError(
            grpc.StatusCode.FAILED_PRECONDITION,
            "POOL_TAKEN",
            f"the addresses {wanted} overlap with the host's route to {overlapping[0]}: set another `pool`",
            {"pool": wanted, "route": str(overlapping[0])},
        )

    def take(self) -> str:
        """An address that nobody has."""
        if not self._free:
            raise TinyoError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "POOL_EMPTY",
                f"no address is left in {self.network}: set a larger `pool`",
                {"pool": str(self.network)},
            )
        return str(self.network[self._free.popleft()])

    def number(self, address: str) -> int:
        """Place of an address in the network."""
        return int(ipaddress.IPv4Address(address)) - int(self.network.network_address)

    def use(self, addresses: Iterable[str]) -> None:
        """Containers have these already."""
        used = {self.number(address) for address in addresses}
        self._free = deque(number for number in self._free if number not in used)

    def give_back(self, address: str) -> None:
        """Nobody has it any more."""
        self._free.append(self.number(address))

    def close(self, *, remove: bool) -> None:
        """With `remove` the claim is given up."""
        if remove:
            with contextlib.closing(nl.Netlink()) as netlink, contextlib.suppress(ProcessLookupError):
                netlink.send(_unreachable(self.network, delete=True))  # ESRCH: somebody was faster
            self._record.unlink(missing_ok=True)


def _unreachable(network: ipaddress.IPv4Network, *, delete: bool = False) -> bytes:
    to, bits = str(network.network_address), network.prefixlen
    return nl.route(to, bits, kind=nl.RTN_UNREACHABLE, delete=delete)


def routed() -> Iterable[ipaddress.IPv4Network]:
    """Networks that the host has routes to, save the default one (/proc/net/route, little-endian hexadecimal)."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        to, mask = (socket.inet_ntoa(bytes.fromhex(fields[place])[::-1]) for place in (1, 7))
        if mask != "0.0.0.0":
            yield ipaddress.IPv4Network(f"{to}/{mask}")
