"""What an instance's network needs of its host and does for it, beyond leading packets to containers.

A pool of addresses that is claimed, rules that keep everybody in their place, ports that are reserved,
endpoints that are made ahead of need, and containers that lived before this runtime did.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

from tinyo.runtime.v1.runtime_pb2 import ContainerConfig
from tinyo.v1.container_pb2 import Port

from tinyo_runtime.errors import TinyoError
from tinyo_runtime.network import (
    clusters,
    firewall,
    forwarding6,
    harden,
    ipv6,
    kinds,
    others,
    outside,
    pool,
    pool6,
    repair,
    uplink,
)
from tinyo_runtime.network.extras import Extras
from tinyo_runtime.network.names import Names
from tinyo_runtime.network.ports import Ports
from tinyo_runtime.network.ready import Ready
from tinyo_runtime.network.veth import Endpoint
from tinyo_runtime.settings import Settings

#: Takes a table away, also one that was never made.
ABSENT = "add table {family} {table}; delete table {family} {table}"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Adopted:
    """A container that lived before this runtime did."""

    name: str
    address: str
    interface: str
    ports: Sequence[Port]
    config: ContainerConfig
    address6: str = ""


def addressed(adopted: Adopted) -> bool:
    """Whether it has an address of its own."""
    return bool(adopted.address)


class Surroundings:
    """What `Network` calls, in the order in which it does."""

    table: str
    prefix: str
    pool: IPv4Network
    pool6: IPv6Network | None = None
    addresses: Iterator[IPv4Address]
    taken: dict[str | Endpoint, AsyncExitStack]

    async def make(self) -> Endpoint:
        """An endpoint with the next address."""
        raise NotImplementedError

    def __init__(self, settings: Settings) -> None:
        self._settings, self._run = settings, Path(settings.run)
        if settings.metadata not in ("closed", "open"):
            raise SystemExit(f"metadata {settings.metadata!r}: it is closed or open")
        self._ports = Ports()
        self._ready = Ready(self.make, int(settings.ready))
        #: Rules of the table besides those of `firewall`; and what is published, by address.
        self._rules: list[str] = []
        self._published: dict[str, Sequence[Port]] = {}
        #: IPv6 addresses of those that have one, by their other address.
        self._sixths: dict[str, str] = {}
        self._repair = repair.Repair(settings.instance, settings.prefix, self._again)
        self._clusters, self._names = clusters.Clusters(settings.instance, settings.prefix), Names(self._run)

    @asynccontextmanager
    async def claimed_pool(self, live: Sequence[Adopted]) -> AsyncIterator[None]:
        """Chooses the pool as the settings and the host's routes have it. Where that, or what is done inside, fails,
        nothing of the instance stays in the kernel, unless containers live."""
        settings, run = self._settings, self._run
        try:
            self.pool = pool.claim(settings.pool, run / "pool")
            self.pool6 = pool6.claim(settings.pool6, settings.instance, run / "pool6")
            yield
        except BaseException:
            await self.leave(remove=not live)
            if not live:
                firewall.run(ABSENT.format(family="ip", table=self.table))
            raise

    def more_rules(self, live: Sequence[Adopted]) -> Iterator[str]:
        """What stands in the table besides, and what the containers publish that live."""
        metadata = harden.METADATA if self._settings.metadata == "closed" else ""
        everyone = [kinds.RULES, outside.RULES, harden.RULES, metadata, clusters.RULES]
        if self.pool6:
            everyone += [ipv6.RULES, ipv6.METADATA if metadata else ""]
            self._repair.families = self._clusters.families = ("ip", "ip6")
        for rules in everyone:
            names = {"table": self.table, "prefix": self.prefix, "pool": self.pool, "pool6": self.pool6}
            self._rules.append(rules.format(**names))
        self._rules.append(self._names.rules(self.table, self.prefix, self.pool, self.pool6))
        self._published = {adopted.address: adopted.ports for adopted in filter(addressed, live)}
        self._sixths = {one.address: one.address6 for one in live if self.pool6 and one.address6}
        known = ((adopted.config.cluster, adopted.interface) for adopted in filter(addressed, live))
        return iter([*self._rules, *self._clusters.known(known), *self._elements()])

    def _elements(self) -> Iterator[str]:
        for address, ports in self._published.items():
            yield from firewall.elements("add", self.table, address, ports)
            yield from self.sixth("add", address, ports)

    def sixth(self, verb: str, address: str, ports: Sequence[Port]) -> Iterator[str]:
        """Commands that "add" or "delete" the published ports of a container for IPv6, if it has that."""
        return ipv6.elements(verb, self.table, self._sixths.get(address, ""), ports)

    def _again(self) -> Iterator[str]:
        """The table as it is to be now, from nothing."""
        yield firewall.TABLE.format(table=self.table, prefix=self.prefix)
        yield from (*self._rules, *self._clusters.elements(), *self._elements())

    async def settle(self, live: Sequence[Adopted]) -> None:
        """Does the rest once the table is there. That another program was faster to bind a container's port
        is no reason not to start: nftables leads its packets to the container all the same."""
        self.addresses = pool.Addresses(self.pool, self.prefix, self.taken, self.addresses)
        outside.open(self._run / "forwarding", self.prefix)
        if self.pool6:
            forwarding6.open(self._run / "forwarding6", outside.uplinks())
        for adopted in filter(addressed, live):
            undo = self.taken[adopted.address] = AsyncExitStack()
            undo.callback(self._sixths.pop, adopted.address, None)
            undo.callback(self._clusters.leave, adopted.config.cluster)
            undo.enter_context(self._names.known(adopted.config, self.endpoint(adopted)))
            try:
                await self.reserve(adopted.name, adopted.address, adopted.ports)
            except TinyoError as error:
                log.warning("container %s has its ports, but they are not reserved: %s", adopted.name, error)
            gone = firewall.elements("delete", self.table, adopted.address, adopted.ports)
            undo.callback(firewall.run, *gone, *self.sixth("delete", adopted.address, adopted.ports))
        await self._names.open()
        self._repair.open()

    def endpoint(self, adopted: Adopted) -> Endpoint:
        """The endpoint of a container that lived before: its namespace is its own."""
        return Endpoint(-1, adopted.address, adopted.interface, adopted.address6)

    def extras(self, address: IPv4Address) -> Extras:
        """What the endpoint with this address has besides."""
        group = self._clusters.expected(str(address))
        return Extras(str(address), uplink.mtu(), pool6.address(self.pool6, address), group)

    async def given(self, config: ContainerConfig) -> Endpoint:
        """An endpoint for a container, made ahead if there is one; without an address on a network of others."""
        if config.spec.network.kind:
            netns = await asyncio.to_thread(others.opened, config.spec.network)
            endpoint = Endpoint(netns.fileno(), "", "")
            self.taken[endpoint] = AsyncExitStack()
            self.taken[endpoint].callback(netns.close)
            return endpoint
        endpoint = self._ready.take() or await self.make()
        try:
            self._clusters.join(config.cluster, endpoint)
            self.taken[endpoint.address].callback(self._clusters.leave, config.cluster)
            self.taken[endpoint.address].enter_context(self._names.known(config, endpoint))
            if endpoint.address6:
                self._sixths[endpoint.address] = endpoint.address6
                self.taken[endpoint.address].callback(self._sixths.pop, endpoint.address, None)
        except BaseException:
            await self.taken.pop(endpoint.address).aclose()
            raise
        return endpoint

    def rename(self, address: str, name: str) -> None:
        """The container that has this address is found by another name; one without an address has none."""
        self._names.book.rename(address, name)

    async def reserve(self, name: str, address: str, ports: Sequence[Port]) -> None:
        """Takes ports of the host for a container, until its address is given back. PORT_IN_USE."""
        await self._ports.hold(name, address, self._sixths.get(address, ""), ports)
        self.taken[address].push_async_callback(self._ports.drop, address)
        self._published[address] = ports
        self.taken[address].callback(self._published.pop, address, None)

    async def leave(self, *, remove: bool) -> None:
        """Undoes the rest before the table goes, if it does."""
        self._repair.close()
        self._clusters.close()
        for endpoint in await self._ready.close():
            await self.taken.pop(endpoint.address).aclose()
        await self._ports.close()
        await self._names.close(remove=remove)
        if remove:
            outside.close(self._run / "forwarding", self.prefix)
            pool.give_up(self.pool, self._run / "pool")
            if self.pool6:
                forwarding6.close(self._run / "forwarding6")
                pool6.give_up(self.pool6, self._run / "pool6")
                firewall.run(ABSENT.format(family="ip6", table=self.table))
