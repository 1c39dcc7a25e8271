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
    #: What the container's state says of it, by field.
    said: dict[str, Any]
    #: What is done once it has started. Raises TinyoError; whoever does has ended it.
    after: list[Callable[[], None]]

    def hand(self, fd: int) -> int:
        """Gives a descriptor to the spawner, and closes it then; its place among them."""
        self.opened.append(fd)
        self.fds.append(fd)
        return len(self.fds) - 1


def _parts() -> tuple[Callable[[Start], Awaitable[None]], ...]:
    """Imported when what they are made of is there."""
    from tinyo_runtime import pausing
    from tinyo_runtime.health import watch as health
    from tinyo_runtime.options import (
        apparmor,
        capabilities,
        devices,
        known,
        limits,
        network,
        process,
        seccomp,
        storage,
        streams,
        userns,
    )

    first = (process.part, limits.part, pausing.part, streams.part)
    mapped = (devices.part, network.part, storage.mounts, userns.part)
    return (*first, *mapped, apparmor.part, capabilities.part, seccomp.part, health.part, known.part)


#: In this order: that of user namespaces maps what all others have mounted; the last looks at all of it.
PARTS = _parts()


@asynccontextmanager
async def completed(
    containers: "Containers",
    container: "Container",
    plan: dict[str, Any],
    fds: list[int],
    resources: AsyncExitStack,
    spec: ContainerSpec | None = None,
) -> AsyncIterator[dict[str, Any]]:
    """The plan is complete inside; with a `spec` of its own it is for a further process of the container. Gives what
    the container's state is to say besides."""
    start = Start(
        containers,
        container,
        spec or container.config.spec,
        plan,
        fds,
        resources,
        spec is not None,
        [],
        {},
        [],
    )
    try:
        for part in PARTS:
            await part(start)
        yield start.said
        for do in start.after:
            do()
    finally:
        for fd in start.opened:
            os.close(fd)
