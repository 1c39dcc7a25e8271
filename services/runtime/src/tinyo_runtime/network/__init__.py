"""The network of containers: routed, not bridged (docs/decisions/0005-routed-network.md).

Each container has a /32 address on a veth, with the host as its link-local gateway; one nftables table
publishes ports. `acquire` and `publish` give, `release` takes back.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from ipaddress import IPv4Network

from tinyo.runtime.v1.runtime_pb2 import ContainerConfig
from tinyo.v1.container_pb2 import Port

from tinyo_runtime.network import firewall, veth
from tinyo_runtime.network.surroundings import Adopted, Surroundings
from tinyo_runtime.network.veth import Endpoint
from tinyo_runtime.settings import Settings

__all__ = ["Adopted", "Endpoint", "Network"]


class Network(Surroundings):
    """Addresses and published ports of one instance."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.table, self.prefix = settings.instance, settings.prefix
        self.pool = IPv4Network("10.77.0.0/16")
        #: Addresses (or endpoints without one) that somebody has, each with what gives back all that belongs to it.
        self.taken: dict[str | Endpoint, AsyncExitStack] = {}

    async def open(self, live: Sequence[Adopted]) -> None:
        """Makes the table, with the containers that live already."""
        async with self.claimed_pool(live):
            self.addresses = self.pool.hosts()
            firewall.run(firewall.TABLE.format(table=self.table, prefix=self.prefix), *self.more_rules(live))
            await self.settle(live)

    async def acquire(self, config: ContainerConfig) -> Endpoint:
        """An endpoint for a new container: its namespace is ready to be joined."""
        return await self.given(config) or await self.make()

    async def make(self) -> Endpoint:
        """A namespace with the next address."""
        address = next(self.addresses)
        interface = f"{self.prefix}{int(address):x}"
        netns = await asyncio.to_thread(veth.make, interface, str(address), more := self.extras(address))
        self.taken[str(address)] = AsyncExitStack()
        self.taken[str(address)].callback(netns.close)
        return Endpoint(netns.fileno(), str(address), interface, more.address6 or "")

    async def publish(self, name: str, address: str, ports: Sequence[Port]) -> None:
        """Leads ports of the host to a container; all or none. PORT_IN_USE when somebody has one."""
        await self.reserve(name, address, ports)
        firewall.run(
            *firewall.elements("add", self.table, address, ports), *self.sixth("add", address, ports)
        )
        gone = *firewall.elements("delete", self.table, address, ports), *self.sixth("delete", address, ports)
        self.taken[address].callback(firewall.run, *gone)

    async def release(self, name: str, endpoint: Endpoint) -> None:
        """Undoes `publish` and `acquire`. The kernel takes the namespace apart in its own time (deleting the
        interface here would wait 30 ms for it)."""
        await self.taken.pop(endpoint.address or endpoint, AsyncExitStack()).aclose()

    async def close(self, *, remove: bool) -> None:
        """Ends; with `remove` nothing of the instance is left in the kernel."""
        await self.leave(remove=remove)
        if remove:
            firewall.run(f"delete table ip {self.table}")
