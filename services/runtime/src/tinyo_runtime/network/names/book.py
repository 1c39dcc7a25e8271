"""Who is who: names of containers, each for its own cluster alone.

`web` and `web.CLUSTER.internal` are the same. `internal` is nobody's on the Internet (ICANN, 2024); names below it that
are of no cluster here are asked of others, as a company or a cloud may have some.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from tinyo_runtime.network.names import message
from tinyo_runtime.network.names.message import Question

DOMAIN = "internal"
REVERSE, REVERSE6 = ".in-addr.arpa", ".ip6.arpa"

#: Types of records, by version of the protocol.
KINDS = {4: message.A, 6: message.AAAA}


@dataclass(frozen=True)
class Entry:
    """A container: its cluster and its name, and the servers that it wants others to be asked of."""

    cluster: str
    name: str
    servers: list[str]
    #: Its addresses by type of record.
    records: dict[int, bytes]


class Book:
    """Containers by their name and by their address."""

    def __init__(self) -> None:
        self.pools: list[IPv4Network | IPv6Network] = []
        #: Addresses by type of record.
        self._clusters: dict[str, dict[str, dict[int, bytes]]] = {}
        self._entries: dict[str, Entry] = {}

    @contextmanager
    def entry(self, cluster: str, name: str, addresses: Sequence[str], servers: list[str]) -> Iterator[None]:
        """A container is found inside."""
        records = {KINDS[ip.version]: ip.packed for ip in map(ip_address, addresses)}
        entry = Entry(cluster, name.lower(), servers, records)
        self._entries.update(dict.fromkeys(addresses, entry))
        self._clusters.setdefault(cluster, {})[entry.name] = records
        try:
            yield
        finally:
            last = [self._entries.pop(address) for address in addresses][-1]
            if self._clusters[cluster].get(last.name) is records:  # otherwise it is back already, elsewhere
                del self._clusters[cluster][last.name]

    def rename(self, address: str, name: str) -> None:
        """The container at an address, if one is there, is found by another name from now on."""
        if before := self._entries.get(address):
            names, entry = self._clusters[before.cluster], replace(before, name=name.lower())
            if names.get(before.name) is before.records:
                del names[before.name]
            its = [one for one, known in self._entries.items() if known is before]
            self._entries.update(dict.fromkeys(its, entry))
            names[entry.name] = entry.records

    def who(self, address: str) -> Entry | None:
        """Who has an address."""
        return self._entries.get(address)

    def answer(self, entry: Entry, asked: Question) -> bytes | None:
        """What is answered to a container; None when others must be asked."""
        if asked.flags & message.OPCODE:
            return message.answer(asked, message.UNKNOWN)
        if asked.family != message.IN:
            return message.answer(asked, message.REFUSED)
        names, domain = self._clusters[entry.cluster], f"{entry.cluster}.{DOMAIN}"
        if found := names.get(asked.name.removesuffix(f".{domain}")):
            records = [(kind, data) for kind, data in found.items() if kind == asked.kind]
            return message.answer(asked, message.OK, records)
        if asked.name == domain:
            return message.answer(asked, message.OK)
        if self._ours(asked.name) or ("." not in asked.name and asked.kind in (message.A, message.AAAA)):
            return message.answer(asked, message.NO_NAME)
        return self._reverse(entry, asked) if asked.name.endswith((REVERSE, REVERSE6)) else None

    def _ours(self, name: str) -> bool:
        """Whether a name is one of a cluster, whichever."""
        labels = name.removesuffix(f".{DOMAIN}").split(".")
        return name.endswith(f".{DOMAIN}") and any(
            ".".join(labels[place:]) in self._clusters for place in range(len(labels))
        )

    def _reverse(self, entry: Entry, asked: Question) -> bytes | None:
        """The name of an address, if that is one of ours."""
        try:
            address = reversed_address(asked.name)
        except ValueError:
            return None
        other = self._entries.get(str(address))
        if other and other.cluster == entry.cluster:
            try:
                data = message.name(f"{other.name}.{other.cluster}.{DOMAIN}")
            except ValueError:  # two dots in a row
                return message.answer(asked, message.NO_NAME)
            records = [(message.PTR, data)] if asked.kind == message.PTR else []
            return message.answer(asked, message.OK, records)
        return message.answer(asked, message.NO_NAME) if any(address in pool for pool in self.pools) else None


def reversed_address(name: str) -> IPv4Address | IPv6Address:
    """The address that a name below in-addr.arpa or ip6.arpa stands for (RFC 3596). ValueError for any other name."""
    if name.endswith(REVERSE):
        return IPv4Address(".".join(reversed(name.removesuffix(REVERSE).split("."))))
    digits = "".join(reversed(name.removesuffix(REVERSE6).split(".")))
    if len(digits) != 32 or len(name) != 63 + len(REVERSE6):
        raise ValueError(f"{name!r} is no address")
    return IPv6Address(bytes.fromhex(digits))
