"""The network of containers: routed, not bridged (DESIGN: docs/architecture.md).

Each container has a /32 address on a veth, with the host as its link-local gateway; one nftables table
publishes ports. `acquire` and `publish` give, `release` takes back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyo.v1.container_pb2 import Port

from tinyo_runtime.network import forwarding
from tinyo_runtime.network.firewall import Firewall
from tinyo_runtime.network.namespaces import Endpoint, Namespaces
from tinyo_runtime.network.pool import Pool
from tinyo_runtime.network.ports import Ports
from tinyo_runtime.settings import Settings

__all__ = ["Adopted", "Endpoint", "Network"]


@dataclass(frozen=True)
class Adopted:
    """A container that lived before this runtime did."""

    name: str
    address: str
    interface: str
    ports: Sequence[Port]


class Network:
    """Addresses and published ports of one instance."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._run = Path(settings.run)
        self._ports = Ports()
        #: What each address publishes.
        self._published: dict[str, list[Port]] = {}

    async def open(self, live: Sequence[Adopted]) -> None:
        """Claims addresses and makes the table, with the containers that live already."""
        self._pool = Pool(self._settings.pool, self._run / "pool")
        self._pool.use(adopted.address for adopted in live)
        self._firewall = Firewall(self._settings.instance, self._settings.prefix, str(self._pool.network))
        self._firewall.open((a.interface, a.address, a.ports) for a in live)
        forwarding.enable(self._run / "forwarding")
        self._namespaces = Namespaces(self._settings.prefix, self._pool, int(self._settings.ready))
        for adopted in live:
            self._published[adopted.address] = list(adopted.ports)
            await self._ports.hold(adopted.name, adopted.address, list(adopted.ports))

    def endpoint(self, adopted: Adopted) -> Endpoint:
        """The endpoint of a container that runs already."""
        return Endpoint(-1, adopted.address, adopted.interface)

    async def acquire(self) -> Endpoint:
        """An endpoint for a new container: its namespace is ready to be joined."""
        endpoint = await self._namespaces.acquire()
        self._firewall.admit(endpoint.interface, endpoint.address)
        self._published[endpoint.address] = []
        return endpoint

    async def publish(self, name: str, address: str, ports: Sequence[Port]) -> None:
        """Leads ports of the host to a container; all or none. PORT_IN_USE when somebody has one."""
        if ports:
            await self._ports.hold(name, address, list(ports))
            self._published[address] = list(ports)
            self._firewall.publish(address, ports)

    async def release(self, name: str, endpoint: Endpoint) -> None:
        """Undoes `publish` and `acquire`."""
        await self._ports.drop(name)
        ports = self._published.pop(endpoint.address, None)
        if ports is not None:
            self._firewall.forget(endpoint.interface, endpoint.address, ports)
            self._namespaces.release(endpoint)

    async def close(self, *, remove: bool) -> None:
        """Ends; with `remove` nothing of the instance is left in the kernel."""
        await self._namespaces.close()
        for name in self._ports.held():
            await self._ports.drop(name)
        self._firewall.close(remove=remove)
        self._pool.close(remove=remove)
        if remove:
            forwarding.restore(self._run / "forwarding")
