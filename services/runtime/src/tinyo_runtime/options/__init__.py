"""What a container can be asked to have that the first example does without.

Each module of this package sees to one subject: its part, an asynchronous function, looks at the spec of a start and
completes the plan for the spawner, the descriptors that go with it, and what the start has to give back.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinyo.v1.container_pb2 import ContainerSpec

from tinyo_runtime.options import devices

if TYPE_CHECKING:
    from tinyo_runtime.containers import Container, Containers


@dataclass
class Start:
    """A process that is about to be started: the first of a container, or a further one in it (`joins`)."""

    containers: "Containers"
    container: "Container"
    #: The container's, or for a further process its own.
    spec: ContainerSpec
    #: As in docs/spawner-protocol.md; values that are descriptors are places in `fds`.
    plan: dict[str, Any]
    fds: list[int]
    #: What is undone when the container ends; for a further process, once it was started.
    resources: AsyncExitStack
    joins: bool
    #: Descriptors of ours that are closed once the spawner has them.
    opened: list[int]

    def hand(self, fd: int) -> int:
        """Gives a descriptor to the spawner, and closes it then; its place among them."""
        self.opened.append(fd)
        self.fds.append(fd)
        return len(self.fds) - 1


#: In this order.
PARTS: tuple[Callable[[Start], Awaitable[None]], ...] = (devices.part,)


@asynccontextmanager
async def completed(
    containers: "Containers",
    container: "Container",
    plan: dict[str, Any],
    fds: list[int],
    resources: AsyncExitStack,
    spec: ContainerSpec | None = None,
) -> AsyncIterator[None]:
    """The plan is complete inside; with a `spec` of its own it is for a further process of the container."""
    start = Start(
        containers, container, spec or container.config.spec, plan, fds, resources, spec is not None, []
    )
    try:
        for part in PARTS:
            await part(start)
        yield
    finally:
        for fd in start.opened:
            os.close(fd)
