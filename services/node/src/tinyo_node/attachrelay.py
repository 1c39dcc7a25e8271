"""NodeService: clients at a container's own streams."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc
from tinyo.node.v1 import node_pb2 as pb
from tinyo.runtime.v1 import runtime_pb2 as rt

from tinyo_node import removing
from tinyo_node.errors import TinyoError
from tinyo_node.interceptors import Context
from tinyo_node.lookup import find
from tinyo_node.reaching import Reaching

if TYPE_CHECKING:
    from tinyo_node.cluster import State


class AttachRelay(Reaching):
    """A part of NodeService; see server.py."""

    state: "State"

    async def Attach(
        self, requests: AsyncIterator[pb.AttachRequest], context: Context
    ) -> AsyncIterator[pb.AttachResponse]:
        first = await anext(aiter(requests), None)
        if first is None or not first.HasField("start"):
            message = "the first message must say which container"
            raise TinyoError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", message)
        container = find(self.state, first.start.cluster, first.start.name)
        start = rt.AttachRequest(start=rt.AttachStart(id=container.id, attach=first.start.attach))
        inputs = (rt.AttachRequest(input=request.input) async for request in requests)
        with removing.attached(self.state, container):
            async for answer in self.conversed(context, self.runtime.Attach, start, inputs):
                yield pb.AttachResponse(output=answer.output)
