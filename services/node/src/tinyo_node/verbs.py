"""NodeService: what can be done to containers besides starting and ending them, and who is in them."""

import asyncio
import signal
from collections.abc import Iterable
from typing import TYPE_CHECKING

import grpc
from tinyo.node.v1 import verbs_pb2 as pb
from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import event_pb2 as ev

from tinyo_node import graces, lifecycle, policies, renaming
from tinyo_node.errors import TinyoError
from tinyo_node.interceptors import Context
from tinyo_node.lookup import find, find_all
from tinyo_node.reaching import Reaching

if TYPE_CHECKING:
    from tinyo_node.cluster import State
    from tinyo_node.reconcile import Reconciler

#: The last signal there is (signal(7)).
LAST_SIGNAL = 64
LIVING = (v1.PHASE_RUNNING, v1.PHASE_STOPPING)


class Verbs(Reaching):
    """A part of NodeService; see server.py."""

    state: "State"
    reconciler: "Reconciler"

    async def Kill(self, request: pb.KillRequest, context: Context) -> pb.KillResponse:
        number = request.signal or signal.SIGKILL
        if number > LAST_SIGNAL:
            message = f"there is no signal {number}: they go from 1 to {LAST_SIGNAL}"
            invalid = grpc.StatusCode.INVALID_ARGUMENT
            raise TinyoError(invalid, "INVALID_SPEC", message, violations={"signal": message})
        await self.reached()
        containers = living(find_all(self.state, request.cluster, request.names))
        answer = await asyncio.shield(self._kill(containers, number, request.correlation_id))
        unheard = [one.spec.name for one in containers if one.id in answer.unheard]
        return pb.KillResponse(containers=containers, unheard=unheard)

    async def _kill(
        self, containers: list[v1.Container], number: int, correlation_id: str
    ) -> rt.KillResponse:
        """What is wanted is durable before anybody dies: a node that dies in between goes on with it."""
        also: list[tuple[str, bytes | None]] = []
        for container in containers:
            container.correlation_id = correlation_id
            if number == signal.SIGKILL:
                container.desired = v1.DESIRED_STATE_STOPPED
                policies.forget(container.status)
                also += graces.given(self.reconciler, container, 0)
        told = ev.Event(reason=ev.EVENT_REASON_KILLED, message=f"signal {number}")
        await self.state.write(containers, told, also=also)
        ids = [container.id for container in containers]
        answer = await self.runtime.Kill(rt.KillRequest(ids=ids, signal=number))
        if number == signal.SIGKILL:
            await self.reconciler.settled(containers)  # that one has ended meanwhile is what was wanted
            for container in containers:
                await graces.forget(self.reconciler, container)
        else:
            await self._observed(containers, answer.results)
        return answer

    async def Pause(self, request: pb.PauseRequest, context: Context) -> pb.PauseResponse:
        await self.reached()
        containers = living(find_all(self.state, request.cluster, request.names))
        for container in containers:
            container.correlation_id = request.correlation_id
        answer = await self.runtime.Pause(rt.PauseRequest(ids=[one.id for one in containers]))
        await self._observed(containers, answer.results)
        return pb.PauseResponse(containers=containers)

    async def Unpause(self, request: pb.UnpauseRequest, context: Context) -> pb.UnpauseResponse:
        await self.reached()
        containers = living(find_all(self.state, request.cluster, request.names))
        for container in containers:
            container.correlation_id = request.correlation_id
        answer = await self.runtime.Unpause(rt.UnpauseRequest(ids=[one.id for one in containers]))
        await self._observed(containers, answer.results)
        return pb.UnpauseResponse(containers=containers)

    async def _observed(self, containers: list[v1.Container], results: Iterable[rt.ContainerResult]) -> None:
        """Returns when what the runtime made of these is known here. The first error of theirs, if there is one."""
        errors = []
        for result in results:
            if result.HasField("error"):
                errors.append(result.error)
            else:
                self.reconciler.observe(result.state)
        await self.reconciler.settled(containers)
        if errors:
            raise TinyoError.of(errors[0])

    async def Restart(self, request: pb.RestartRequest, context: Context) -> pb.RestartResponse:
        containers = find_all(self.state, request.cluster, request.names)
        also = lifecycle.allow(self.reconciler, containers, request)
        for container in containers:
            container.desired = v1.DESIRED_STATE_RUNNING
            policies.forget(container.status)
            if container.status.phase in LIVING:
                container.restart_of.CopyFrom(container.status.started_at)
            elif container.status.phase not in (v1.PHASE_PENDING, v1.PHASE_PULLING):
                container.status.phase = v1.PHASE_PENDING
                container.status.ClearField("error")
        await asyncio.shield(self.state.write(containers, also=also))
        await self.reconciler.settled(containers)
        return pb.RestartResponse(containers=containers)

    async def Rename(self, request: pb.RenameRequest, context: Context) -> pb.RenameResponse:
        container = find(self.state, request.cluster, request.name)
        renamed = renaming.rename(self.reconciler, container, request.new_name, request.correlation_id)
        return pb.RenameResponse(container=await asyncio.shield(renamed))

    async def Top(self, request: pb.TopRequest, context: Context) -> pb.TopResponse:
        (container,) = living([find(self.state, request.cluster, request.name)])
        await self.reached()
        answer = await self.runtime.Top(rt.TopRequest(id=container.id))
        return pb.TopResponse(processes=answer.processes)


def living(containers: list[v1.Container]) -> list[v1.Container]:
    """These, all of which have a process. CONTAINER_NOT_RUNNING names the first that has none."""
    for container in containers:
        if container.status.phase not in LIVING:
            name = container.spec.name
            message = f"container {name!r} is not running: start it first"
            failed = grpc.StatusCode.FAILED_PRECONDITION
            raise TinyoError(failed, "CONTAINER_NOT_RUNNING", message, {"name": name})
    return containers
