"""Update: what containers may take of the machine, changed while they run; and the step that does it.

What is desired is written first, as with every other call: a node or a runtime that dies in between catches up. What
the kernel refuses is not desired any longer.
"""

import asyncio
from typing import TYPE_CHECKING

import grpc
from tinyo.node.v1 import node_pb2 as pb
from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.v1 import container_pb2 as v1
from tinyo.v1 import event_pb2 as ev
from tinyo.v1.error_pb2 import Error
from tinyo.v1.resources_pb2 import Resources

from tinyo_node import checks
from tinyo_node.errors import TinyoError
from tinyo_node.interceptors import Context
from tinyo_node.lookup import find_all

if TYPE_CHECKING:
    from tinyo_node.cluster import Key, State
    from tinyo_node.reconcile import Reconciler

#: Why an update of a container was refused, by its id, for the caller that waits for it.
refused: dict[str, Error | None] = {}


class Limiting:
    """A part of NodeService; see server.py."""

    state: "State"
    reconciler: "Reconciler"

    async def Update(self, request: pb.UpdateRequest, context: Context) -> pb.UpdateResponse:
        containers = find_all(self.state, request.cluster, request.names)
        wanted = [merged(container.spec, request) for container in containers]  # all of them or none
        for container, resources in zip(containers, wanted, strict=True):
            container.spec.resources.CopyFrom(resources)
            container.correlation_id = request.correlation_id
            refused[container.id] = None
        await asyncio.shield(self.state.write(containers, ev.Event(reason=ev.EVENT_REASON_UPDATED)))
        await self.reconciler.settled(containers)
        told = [(container, refused.pop(container.id, None)) for container in containers]
        for container, error in told:
            if error:
                code = next(one for one in grpc.StatusCode if one.value[0] == error.code)
                message = f"{container.spec.name}: {error.message}"
                raise TinyoError(
                    code, error.reason, message, error.metadata, {error.field or "resources": message}
                )
        return pb.UpdateResponse(containers=containers)


def merged(spec: v1.ContainerSpec, request: pb.UpdateRequest) -> Resources:
    """The limits of a spec with those that a request changes. INVALID_SPEC."""
    new = v1.ContainerSpec(name=spec.name)
    known = Resources.DESCRIPTOR.fields_by_name
    violations = {
        f"resources.{name}": "there is no such limit" for name in request.fields if name not in known
    }
    kept = Resources()
    for values, of_request in ((spec.resources, False), (request.resources, True)):
        for field, value in values.ListFields():
            if (field.name in request.fields) == of_request:
                kept.MergeFrom(Resources(**{field.name: value}))
    new.resources.CopyFrom(kept)
    violations |= dict(checks.check(new))
    if violations or not request.fields:
        message = next(iter(violations.values()), "say at least one limit")
        raise TinyoError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", message, violations=violations)
    return new.resources


async def update(work: "Reconciler", key: "Key") -> None:
    """Brings the runtime's limits to those that are desired; those that cannot be had are not desired any more."""
    container = work.state.containers[key]
    request = rt.UpdateRequest(ids=[container.id], resources=container.spec.resources)
    result = (await work.runtime.Update(request)).results[0]
    if not result.HasField("error"):
        work.observe(result.state)
        return
    own = work.observed.get(container.id)
    if own and container.spec.resources == request.resources:
        container.spec.resources.CopyFrom(own.config.spec.resources)
        if container.id in refused:
            refused[container.id] = result.error
        error = ev.Event(
            reason=ev.EVENT_REASON_UPDATE_REFUSED, message=result.error.message, error=result.error
        )
        await work.state.write([container], error)
