"""Who is who: names of containers, each for its own cluster alone.

`web` and `web.CLUSTER.internal` are the same. `internal` is nobody's on the Internet (ICANN, 2024); names below it that
are of no cluster here are asked of others, as a company or a cloud may have some.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from tinyo_runtime.network.names import message
from tinyo_runtime.network.names.message import Question

DOMAIN = "internal"
REVERSE = ".in-addr.arpa"


@dataclass(frozen=True)
class Entry:
    """A container: its cluster and its name, and the servers that it wants others to be asked of."""

    cluster: str
    name: str
    servers: list[str]


class Book:
    """Containers by their name and by their address."""

    def __init__(self) -> None:
        self.pool = IPv4Network("0.0.0.0/32")
        self._clusters: dict[str, dict[str, str]] = {}
        self._entries: dict[str, Entry] = {}

    @contextmanager
    def entry(self, cluster: str, name: str, address: str, servers: list[str]) -> Iterator[None]:
        """A container is found inside."""
        self._entries[address] = entry = Entry(cluster, name.lower(), servers)
        self._clusters.setdefault(cluster, {})[entry.name] = address
        try:
            yield
        finally:
            last = self._entries.pop(address)
            if self._clusters[cluster].get(last.name) == address:  # it is back already, elsewhere
                del self._clusters[cluster][last.name]

    def rename(self, address: str, name: str) -> None:
        """The container at an address, if one is there, is found by another name from now on."""
        if before := self._entries.get(address):
            names = self._clusters[before.cluster]
            if names.get(before.name) == address:
                del names[before.name]
            self._entries[address] = entry = replace(before, name=name.lower())
            names[entry.name] = address

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
        if address := names.get(asked.name.removesuffix(f".{domain}")):
            records = [(message.A, socket.inet_aton(address))] if asked.kind == message.A else []
            return message.answer(asked, message.OK, records)
        if asked.name == domain:
            return message.answer(asked, message.OK)
        if self._ours(asked.name) or ("." not in asked.name and asked.kind in (message.A, message.AAAA)):
            return message.answer(asked, message.NO_NAME)
        return self._reverse(entry, asked) if asked.name.endswith(REVERSE) else None

    def _ours(self, name: str) -> bool:
        """Whether a name is one of a cluster, whichever."""
        labels = name.removesuffix(f".{DOMAIN}").split(".")
        return name.endswith(f".{DOMAIN}") and any(
            ".".join(labels[place:]) in self._clusters for place in range(len(labels))
        )

    def _reverse(self, entry: Entry, asked: Question) -> bytes | None:
        """The name of an address, if that is one of ours."""
        try:
            address = IPv4Address(".".join(reversed(asked.name.removesuffix(REVERSE).split("."))))
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
        return message.answer(asked, message.NO_NAME) if address in self.pool else None
