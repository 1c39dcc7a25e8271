"""NodeService: Remove, Start and Stop. Each writes what is desired, and then only watches."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import grpc
from tinyo.node.v1 import node_pb2 as pb
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import event_pb2 as ev

from tinyo_node.cluster import State, cluster_name
from tinyo_node.errors import TinyoError, answered
from tinyo_node.reconcile import DEFAULT_GRACE_MS, Reconciler

Context = grpc.aio.ServicerContext[Any, Any]


class Lifecycle:
    """A part of NodeService; see server.py."""

    state: State
    reconciler: Reconciler

    async def Remove(self, request: pb.RemoveRequest, context: Context) -> AsyncIterator[pb.RemoveResponse]:
        async with answered(context):
            containers = self._selected(request)
            after = self.state.events.newest
            for container in containers:
                container.correlation_id = request.correlation_id
                self._allow(container, request.grace_ms if request.HasField("grace_ms") else DEFAULT_GRACE_MS)
            await asyncio.shield(self.state.remove(containers))
            self._touch(containers)
            waiting = {c.id for c in containers if await self.reconciler.has(c.id)}
            if waiting:
                async with contextlib.aclosing(self.state.events.watch(after, follow=True)) as events:
                    async for event in events:
                        if event.container_id in waiting:
                            yield pb.RemoveResponse(event=event)
                            if event.reason == ev.EVENT_REASON_REMOVED:
                                waiting.discard(event.container_id)
                        if not waiting:
                            break
            names = [container.spec.name for container in containers]
            yield pb.RemoveResponse(settled=pb.RemoveSettled(names=names))

    def _selected(self, request: pb.RemoveRequest) -> list[v1.Container]:
        """What a Remove is about; CONTAINER_NOT_FOUND when that is nothing."""
        found = [self.state.find(request.cluster, name) for name in request.names]
        if request.origin:
            cluster = cluster_name(request.cluster)
            of_file = [
                c
                for key, c in self.state.containers.items()
                if key[0] == cluster and c.origin == request.origin
            ]
            if not of_file:
                message = f"no container belongs to {request.origin}: `tinyo ls -a` shows all"
                raise TinyoError(
                    grpc.StatusCode.NOT_FOUND, "CONTAINER_NOT_FOUND", message, {"name": request.origin}
                )
            found += of_file
        return list({container.id: container for container in found}.values())

    async def Start(self, request: pb.StartRequest, context: Context) -> pb.StartResponse:
        async with answered(context):
            containers = self._named(request.cluster, request.names)
            for container in containers:
                status = container.status
                if container.desired == v1.DESIRED_STATE_RUNNING and status.phase == v1.PHASE_RUNNING:
                    continue
                container.desired = v1.DESIRED_STATE_RUNNING
                container.correlation_id = request.correlation_id
                status.phase = v1.PHASE_PENDING
                status.ClearField("error")
            await self._wait(containers, (v1.PHASE_RUNNING, v1.PHASE_EXITED, v1.PHASE_FAILED))
            return pb.StartResponse(containers=containers)

    async def Stop(self, request: pb.StopRequest, context: Context) -> pb.StopResponse:
        async with answered(context):
            containers = self._named(request.cluster, request.names)
            for container in containers:
                container.desired = v1.DESIRED_STATE_STOPPED
                container.correlation_id = request.correlation_id
                self._allow(container, request.grace_ms if request.HasField("grace_ms") else DEFAULT_GRACE_MS)
            await self._wait(
                containers,
                (v1.PHASE_PENDING, v1.PHASE_PULLING, v1.PHASE_CREATED, v1.PHASE_EXITED, v1.PHASE_FAILED),
            )
            return pb.StopResponse(containers=containers)

    def _named(self, cluster: str, names: Iterable[str]) -> list[v1.Container]:
        found = [self.state.find(cluster, name) for name in names]
        return list({container.id: container for container in found}.values())

    def _allow(self, container: v1.Container, grace_ms: int) -> None:
        self.reconciler.grace[container.id] = grace_ms

    def _touch(self, containers: Iterable[v1.Container]) -> None:
        for container in containers:
            self.reconciler.touch((container.cluster, container.spec.name))

    async def _wait(self, containers: Sequence[v1.Container], phases: Sequence[int]) -> None:
        """Writes the containers, and returns when each is in one of the phases, durably."""
        after = self.state.events.newest
        for container in containers:
            await asyncio.shield(self.state.save(container))
        self._touch(containers)
        waiting = [container for container in containers if container.status.phase not in phases]
        if not waiting:
            return
        async with contextlib.aclosing(self.state.events.watch(after, follow=True)) as events:
            async for _ in events:
                waiting = [c for c in waiting if c.status.phase not in phases and self.state.is_current(c)]
                if not waiting:
                    return
