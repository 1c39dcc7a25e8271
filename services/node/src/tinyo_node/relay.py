"""NodeService: calls that the node passes on to the runtime without looking inside."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc
from tinyo.node.v1 import node_pb2 as pb
from tinyo.runtime.v1 import runtime_pb2 as rt
from tinyo.v1.version_pb2 import Version

from tinyo_node import collecting
from tinyo_node.errors import TinyoError
from tinyo_node.interceptors import Context
from tinyo_node.lookup import find
from tinyo_node.reaching import Reaching

VERSION = Version(program="0.1.0", contract="v1.0")

if TYPE_CHECKING:
    from tinyo_node.cluster import State


class Relay(Reaching):
    """A part of NodeService; see server.py."""

    state: "State"

    async def GetVersion(self, request: pb.GetVersionRequest, context: Context) -> pb.GetVersionResponse:
        answer = pb.GetVersionResponse(version=VERSION, node_id=self.state.log.node_id)
        try:
            theirs = await self.runtime.GetVersion(rt.GetVersionRequest(), timeout=2)
            answer.runtime.CopyFrom(theirs.version)
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
        return answer

    async def Logs(self, request: pb.LogsRequest, context: Context) -> AsyncIterator[pb.LogsResponse]:
        container = find(self.state, request.cluster, request.name)
        theirs = rt.LogsRequest(id=container.id, follow=request.follow)
        if request.HasField("tail"):
            theirs.tail = request.tail
        for field in ("since", "until"):
            if request.HasField(field):
                getattr(theirs, field).CopyFrom(getattr(request, field))
        async for answer in self.passed_on(context, self.runtime.Logs, theirs):
            yield pb.LogsResponse(entries=answer.entries)

    async def Exec(
        self, requests: AsyncIterator[pb.ExecRequest], context: Context
    ) -> AsyncIterator[pb.ExecResponse]:
        first = await anext(aiter(requests), None)
        if first is None or not first.HasField("start"):
            message = "the first message must say what to run"
            raise TinyoError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", message)
        container = find(self.state, first.start.cluster, first.start.name)
        start = rt.ExecRequest(start=rt.ExecStart(id=container.id, exec=first.start.exec))
        inputs = (rt.ExecRequest(input=request.input) async for request in requests)
        async for answer in self.conversed(context, self.runtime.Exec, start, inputs):
            yield pb.ExecResponse(output=answer.output)

    async def PullImage(
        self, request: pb.PullImageRequest, context: Context
    ) -> AsyncIterator[pb.PullImageResponse]:
        theirs = rt.PullImageRequest(reference=request.reference, platform=request.platform, refresh=True)
        await self.reached()
        async for answer in collecting.pulled(self.state, self.runtime, theirs):
            if answer.HasField("progress"):
                yield pb.PullImageResponse(progress=answer.progress)
            else:
                yield pb.PullImageResponse(image=answer.image)

    async def Login(self, request: pb.LoginRequest, context: Context) -> pb.LoginResponse:
        login = rt.LoginRequest(
            registry=request.registry, username=request.username, password=request.password
        )
        await self.reached()
        return pb.LoginResponse(registry=(await self.runtime.Login(login)).registry)

    async def Logout(self, request: pb.LogoutRequest, context: Context) -> pb.LogoutResponse:
        await self.reached()
        theirs = await self.runtime.Logout(rt.LogoutRequest(registry=request.registry))
        return pb.LogoutResponse(registry=theirs.registry, was_logged_in=theirs.was_logged_in)
