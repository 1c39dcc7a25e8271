"""Network namespaces with an interface and an address, made ahead of need on a thread of their own.

A namespace has no name: it lives as long as its descriptor is open here, or a process of its container
runs. Then the kernel takes its interfaces, and the host's route, away by itself.
"""

import asyncio
import os
import socket
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tinyo_runtime.network import netlink as nl
from tinyo_runtime.network.pool import Pool
from tinyo_runtime.spawner import syscalls

#: Every host end has this address; never on a wire (RFC 3927). What comes from the host itself has it as
#: its source, so that published ports answer even where the host has no other address.
GATEWAY = "169.254.1.1"


@dataclass(frozen=True)
class Endpoint:
    """A container's end of the network."""

    #: Descriptor of the namespace; -1 when its container runs already.
    netns: int
    #: Dotted IPv4.
    address: str
    #: Name of the host's end.
    interface: str


class Namespaces:
    """Gives out endpoints, and keeps a few ready."""

    def __init__(self, prefix: str, pool: Pool, spare: int) -> None:
        self._prefix, self._pool, self._spare = prefix, pool, spare
        self._thread = ThreadPoolExecutor(1, "namespaces")
        self._host = nl.Netlink()
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._ready: deque[Endpoint] = deque()
        self._filling: asyncio.Future[None] | None = None

    async def acquire(self) -> Endpoint:
        """An endpoint that nobody has."""
        if not self._ready:
            await self._run(self._fill_one)
        endpoint = self._ready.popleft()
        if self._filling is None or self._filling.done():
            self._filling = asyncio.ensure_future(self._run(self._fill))
        return endpoint

    async def _run(self, call: object) -> None:
        assert callable(call)
        await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _fill(self) -> None:
        while len(self._ready) < self._spare:
            self._fill_one()

    def _fill_one(self) -> None:
        self._ready.append(self._make())

    def _make(self) -> Endpoint:
        """A namespace, its pair of interfaces, addresses and routes on both sides. Only on our thread,
        because unshare(2) and setns(2) are for a thread."""
        while True:
            address = self._pool.take()
            interface = f"{self._prefix}{self._pool.number(address):x}"
            try:
                return Endpoint(self._wire(interface, address), address, interface)
            except FileExistsError:  # the kernel still takes an earlier one apart: it comes later again
                self._pool.give_back(address)
            except BaseException:
                self._pool.give_back(address)
                raise

    def _wire(self, interface: str, address: str) -> int:
        host_mac, mac = nl.mac_of(GATEWAY), nl.mac_of(address)
        syscalls.unshare(syscalls.CLONE_NEWNET)
        try:
            netns = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            inside = nl.Netlink()
        finally:
            syscalls.setns(self._home, syscalls.CLONE_NEWNET)
        try:
            self._host.send(nl.veth(interface, host_mac, "eth0", mac, netns))
            index = socket.if_nametoindex(interface)
            self._host.send(
                nl.forwarding(index),
                nl.no_link_local(index),
                nl.up(index),
                nl.address(index, GATEWAY),
                nl.route(address, 32, index=index),
            )
            inside.send(
                nl.no_link_local(2),
                nl.up(1),
                nl.up(2),
                nl.address(2, address),
                nl.neighbour(2, GATEWAY, host_mac),
                nl.route(GATEWAY, 32, index=2),
                nl.route("0.0.0.0", 0, index=2, via=GATEWAY),
            )
        except BaseException:
            os.close(netns)
            raise
        finally:
            inside.close()
        return netns

    def release(self, endpoint: Endpoint) -> None:
        """Gives an endpoint back. The kernel takes the namespace apart in its own time (deleting the
        interface here would wait 30 ms for it); the address comes to the end of the queue."""
        if endpoint.netns >= 0:
            os.close(endpoint.netns)
        self._pool.give_back(endpoint.address)

    async def close(self) -> None:
        """Takes away what was kept ready."""
        if self._filling:
            await self._filling
        while self._ready:
            self.release(self._ready.popleft())
        self._thread.shutdown()
        self._host.close()
        os.close(self._home)
