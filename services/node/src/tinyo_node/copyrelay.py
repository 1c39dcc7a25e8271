"""NodeService: files on their way between a client and a container."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc
from tinyo.node.v1 import node_pb2 as pb
from tinyo.runtime.v1 import runtime_pb2 as rt

from tinyo_node.errors import TinyoError
from tinyo_node.interceptors import Context
from tinyo_node.lookup import find
from tinyo_node.reaching import Reaching

if TYPE_CHECKING:
    from tinyo_node.cluster import State


class CopyRelay(Reaching):
    """A part of NodeService; see server.py."""

    state: "State"

    async def CopyOut(
        self, request: pb.CopyOutRequest, context: Context
    ) -> AsyncIterator[pb.CopyOutResponse]:
        id = find(self.state, request.cluster, request.name).id
        theirs = rt.CopyOutRequest(id=id, path=request.path, follow=request.follow)
        async for answer in self.passed_on(context, self.runtime.CopyOut, theirs):
            yield pb.CopyOutResponse(data=answer.data)

    async def CopyIn(self, requests: AsyncIterator[pb.CopyInRequest], context: Context) -> pb.CopyInResponse:
        first = await anext(aiter(requests), None)
        if first is None or not first.HasField("start"):
            message = "the first message must say where to"
            raise TinyoError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", message)
        start = first.start
        id = find(self.state, start.cluster, start.name).id

        async def relayed() -> AsyncIterator[rt.CopyInRequest]:
            yield rt.CopyInRequest(start=rt.CopyInStart(id=id, path=start.path, archive=start.archive))
            async for request in requests:
                yield rt.CopyInRequest(data=request.data)

        await self.reached()
        call = self.runtime.CopyIn(relayed())
        context.add_done_callback(lambda _: call.cancel())  # type: ignore[arg-type]
        await call
        return pb.CopyInResponse()
