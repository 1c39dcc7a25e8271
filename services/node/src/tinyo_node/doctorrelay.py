"""NodeService: Diagnose, passed on to the runtime with the containers that only the node knows."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from tinyo.node.v1 import node_pb2 as pb
from tinyo.runtime.v1 import runtime_pb2 as rt

from tinyo_node.interceptors import Context
from tinyo_node.reaching import Reaching

if TYPE_CHECKING:
    from tinyo_node.cluster import State


class DoctorRelay(Reaching):
    """A part of NodeService; see server.py."""

    state: "State"

    async def Diagnose(
        self, request: pb.DiagnoseRequest, context: Context
    ) -> AsyncIterator[pb.DiagnoseResponse]:
        ids = [container.id for container in self.state.containers.values()]
        theirs = rt.DiagnoseRequest(ids=ids, complete=True)
        async for answer in self.passed_on(context, self.runtime.Diagnose, theirs):
            yield pb.DiagnoseResponse(finding=answer.finding)
