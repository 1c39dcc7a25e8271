"""Stop and Start: the calls, which write what is desired and wait, and the steps that do it."""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

import grpc
from tinyo.node.v1 import node_pb2 as pb
from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.v1 import container_pb2 as v1

from tinyo_node import events, failures, graces, policies
from tinyo_node.errors import TinyoError
from tinyo_node.interceptors import Context
from tinyo_node.lookup import find_all

if TYPE_CHECKING:
    from tinyo_node.cluster import Key, State
    from tinyo_node.reconcile import Reconciler
    from tinyo_node.sqlite import Changes


class Lifecycle:
    """A part of NodeService; see server.py."""

    state: "State"
    reconciler: "Reconciler"

    async def Start(self, request: pb.StartRequest, context: Context) -> pb.StartResponse:
        containers = find_all(self.state, request.cluster, request.names)
        for container in containers:
            if container.status.paused:
                raise paused(container.spec.name)
        also: list[tuple[str, bytes | None]] = []
        for container in containers:
            status = container.status
            if container.desired == v1.DESIRED_STATE_RUNNING and status.phase == v1.PHASE_RUNNING:
                continue
            container.desired = v1.DESIRED_STATE_RUNNING
            container.correlation_id = request.correlation_id
            if status.phase in (
                v1.PHASE_RUNNING,
                v1.PHASE_STOPPING,
            ):  # the process that ends is followed by another
                container.restart_of.CopyFrom(status.started_at)
            else:
                also += graces.over(self.reconciler, container)
            status.phase = v1.PHASE_PENDING
            status.ClearField("error")
            policies.forget(container.status)
        await asyncio.shield(self.state.write(containers, also=also))
        await self.reconciler.settled(containers)
        return pb.StartResponse(containers=containers)

    async def Stop(self, request: pb.StopRequest, context: Context) -> pb.StopResponse:
        containers = find_all(self.state, request.cluster, request.names)
        also = allow(self.reconciler, containers, request)
        for container in containers:
            container.desired = v1.DESIRED_STATE_STOPPED
            policies.forget(container.status)
        running = [c for c in containers if c.status.phase in (v1.PHASE_RUNNING, v1.PHASE_STOPPING)]
        await asyncio.shield(self.state.write(containers, also=also))
        await self.reconciler.settled(running)
        return pb.StopResponse(containers=containers)


def paused(name: str) -> TinyoError:
    """CONTAINER_PAUSED."""
    message = f"container {name!r} is paused: `tinyo unpause {name}` lets it go on"
    return TinyoError(grpc.StatusCode.FAILED_PRECONDITION, "CONTAINER_PAUSED", message, {"name": name})


def allow(work: "Reconciler", containers: Iterable[v1.Container], request: "graces.Said") -> "Changes":
    """Notes who wants these to stop, and how much time they have; to be written with that."""
    for container in containers:
        container.correlation_id = request.correlation_id
    return graces.note(work, containers, request)


def is_unwanted(container: v1.Container, own: rt.ContainerState | None) -> bool:
    """Whether the process that it has shall end, for good or to be followed by another."""
    restarts = own and container.HasField("restart_of") and container.restart_of == own.started_at
    return container.desired == v1.DESIRED_STATE_STOPPED or bool(restarts)


async def stop(work: "Reconciler", key: "Key") -> None:
    """Ends the process; the container stays."""
    container = work.state.containers[key]
    await work.state.write([container], *events.STOPPING)
    await end(work, container)


async def end(work: "Reconciler", container: v1.Container) -> None:
    """Ends its process."""
    request = rt.StopRequest(ids=[container.id], grace_ms=graces.of(work, container))
    answer = await work.runtime.Stop(request)
    failures.check(answer)
    work.observe(answer.results[0].state)
    await graces.forget(work, container)


async def start(work: "Reconciler", key: "Key") -> None:
    """Starts a container that exists and has no process."""
    container = work.state.containers[key]
    answer = await work.runtime.Start(rt.StartRequest(ids=[container.id]))
    if not await failures.of_start(work, container, answer.results[0]):
        work.observe(answer.results[0].state)
