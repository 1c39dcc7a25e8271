"""NodeService: all that is known of a container, and what the kernel says of it."""

from typing import TYPE_CHECKING

import grpc
from tinyo.node.v1 import node_pb2 as pb
from tinyo.runtime.v1 import runtime_pb2 as rt

from tinyo_node.interceptors import Context
from tinyo_node.lookup import find
from tinyo_node.reaching import Reaching

if TYPE_CHECKING:
    from tinyo_node.cluster import State

#: How the runtime says that a container has no process, or was not made yet.
NOT_RUNNING = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND)


class InspectRelay(Reaching):
    """A part of NodeService; see server.py."""

    state: "State"

    async def Inspect(self, request: pb.InspectRequest, context: Context) -> pb.InspectResponse:
        container = find(self.state, request.cluster, request.name)
        await self.reached()
        answer = pb.InspectResponse()
        try:
            theirs = await self.runtime.Inspect(rt.InspectRequest(id=container.id))
            answer.inspection.CopyFrom(theirs.inspection)
        except grpc.aio.AioRpcError as error:
            if error.code() not in NOT_RUNNING:
                raise
        answer.container.CopyFrom(container)  # as it is by now
        return answer
